"""What is chosen beats its neighbours on every axis; what was chosen before is found again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bench.config import LEARNING_RATE, PRESETS, Run
from bench.grid import recorded
from bench.grid.tasks import Grid
from bench.grid.tuning import RATES, Contest, Tuning, extended, opened
from vaes import VAE, discover
from vaes.base import diagonal_gaussian

VARIANTS = discover().variants
OPEN = Run("fixed_variance", "toy", 0, epochs=10, learning_rate=None)
AXES = {"scale": extended((0.1, 0.2, 0.4)), "learning_rate": RATES}
START = {"scale": 0.2, "learning_rate": 2 * LEARNING_RATE}


def climbed(score, seeds: int = 2) -> Contest:
    """A contest at its end, where a run's score is a function of rate, scale and seed."""
    contest = Contest(OPEN, AXES, START, seeds)
    while runs := contest.further():
        assert contest.chosen() is None
        for run in runs:
            contest.tell(
                run, score(run.learning_rate, dict(run.hyperparameters)["scale"], run.seed)
            )
    return contest


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("scale", AXES["scale"])
def test_a_single_peak_is_found_wherever_it_lies(rate, scale):
    def score(r, s, seed):
        return -(math.log(r / rate) ** 2) - math.log(s / scale) ** 2 + 100 * seed

    chosen = climbed(score).chosen()
    assert (chosen.learning_rate, dict(chosen.hyperparameters)["scale"]) == (rate, scale)


def test_the_choice_beats_its_neighbours_though_candidates_fail():
    """Rates from 0.004 on diverge, and all is better the higher the rate is."""
    contest = climbed(lambda r, s, seed: r if r < 0.003 else -math.inf)
    assert contest.chosen().learning_rate == 0.002
    assert {c.learning_rate for c in contest.scores} == {0.001, 0.002, 0.004}


def test_where_everything_fails_the_start_is_chosen():
    chosen = climbed(lambda r, s, seed: -math.inf).chosen()
    assert (chosen.learning_rate, chosen.hyperparameters) == (0.002, (("scale", 0.2),))


def test_candidates_that_are_no_positive_fractions_are_not_extended():
    assert extended((2, 4, 8)) == (2, 4, 8)
    assert extended((-0.5, 0.5)) == (-0.5, 0.5)
    assert extended((0.3,)) == (0.3,)


def test_a_run_that_leaves_nothing_open_is_itself():
    tuning = Tuning(None, lambda run: 1, {"flow": {}}, lambda run: None, lambda run: 100)
    run = Run("flow", "toy", 3, epochs=10)
    assert tuning.resolved(run) == run
    assert tuning.resolved(run.with_(learning_rate=None)) is None
    fixed = Tuning(0.01, lambda run: 1, {"flow": {}}, lambda run: None, lambda run: 100)
    assert fixed.resolved(run.with_(learning_rate=None)).learning_rate == 0.01
    assert not fixed.contests


def test_a_run_with_noisy_copies_takes_the_choice_of_as_many_clean_steps():
    run = Run("flow", "toy", 3, epochs=10, learning_rate=None, augmentation="salt")
    rates = {20: 0.004, 10: 0.1}
    tuning = Tuning(
        None,
        lambda run: 1,
        {"flow": {}},
        lambda r: r.with_(learning_rate=rates[r.epochs]) if not r.augmentation else None,
        lambda run: 100,
    )
    assert tuning.resolved(run) == run.with_(learning_rate=0.004)
    climbing = Tuning(None, lambda run: 1, {"flow": {}}, lambda run: None, lambda run: 100)
    assert climbing.resolved(run) is None
    assert climbing.resolved(run.with_(augmentation="", epochs=20)) is None
    assert len(climbing.contests) == 1


def test_a_hyperparameter_that_is_given_is_no_candidate():
    """With a rate all is given; without one the rate alone is chosen, whatever was recorded."""
    given = {"fixed_variance": {"scale": (0.7,)}}
    at_a_rate = Tuning(0.01, lambda run: 1, given, lambda run: None, lambda run: 100)
    chosen = (("scale", 0.7),)
    fixed = OPEN.with_(learning_rate=0.01)
    assert at_a_rate.resolved(fixed) == fixed.with_(hyperparameters=chosen)
    assert not at_a_rate.contests
    climbing = Tuning(None, lambda run: 1, given, lambda run: None, lambda run: 100)
    assert climbing.resolved(OPEN) is None
    (first, *others) = climbing.further()
    assert first.hyperparameters == chosen
    assert {run.hyperparameters for run in others} <= {chosen}


def test_a_grid_narrows_the_candidates_of_those_that_declare_them():
    given = Grid(
        "digits", ("fixed_variance", "flow"), 1, PRESETS["quick"], hyperparameters=(("scale", 0.7),)
    )
    assert given.choices("fixed_variance") == {"scale": (0.7,)}
    assert given.choices("flow") == {}
    free = replace(given, hyperparameters=())
    assert free.choices("fixed_variance") == given.known["fixed_variance"].choices


@pytest.fixture
def stored(tmp_path, monkeypatch):
    path = tmp_path / "recorded.json"
    monkeypatch.setattr(recorded, "FILE", path)
    chosen = OPEN.with_(learning_rate=0.004, hyperparameters=(("scale", 0.4),))
    recorded.record([(OPEN, chosen)], VARIANTS, "data")
    return chosen


def test_what_was_recorded_is_found_by_any_seed_device_and_precision(stored):
    kind = VARIANTS["fixed_variance"]
    run = opened(OPEN.with_(seed=4, device="cuda", precision="bf16"), None)
    found = recorded.choice(run, kind, "data")
    assert found == stored.with_(device="cuda", precision="bf16")
    tuning = Tuning(
        None,
        lambda run: 1,
        {"fixed_variance": kind.choices},
        lambda r: recorded.choice(r, kind, "data"),
        lambda run: 100,
    )
    assert tuning.resolved(OPEN.with_(seed=4)) == stored.with_(seed=4)
    assert not tuning.contests


def test_what_was_recorded_holds_for_its_length_data_and_code_alone(stored):
    kind = VARIANTS["fixed_variance"]
    assert recorded.choice(OPEN.with_(epochs=20), kind, "data") is None
    assert recorded.choice(OPEN, kind, "other data") is None
    assert recorded.choice(OPEN, Other, "data") is None


def test_recording_keeps_what_is_recorded_of_other_runs(stored):
    longer = OPEN.with_(epochs=20)
    recorded.record([(longer, longer.with_(learning_rate=0.001))], VARIANTS, "data")
    kind = VARIANTS["fixed_variance"]
    assert recorded.choice(OPEN, kind, "data") == stored
    assert recorded.choice(longer, kind, "data").learning_rate == 0.001


class Other(VAE):
    """Another variant's code."""

    def posterior(self, x):
        loc = self.encode(x)
        return diagonal_gaussian(loc, loc.exp())
