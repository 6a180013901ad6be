"""The grid: done once, resumed, isolated failures, chosen hyperparameters, paired differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.distributions import Independent, Laplace

from bench.config import PRESETS, Run
from bench.data.dataset import load
from bench.grid import outcome as outcomes
from bench.grid import runner, tasks
from bench.grid.runner import execute, in_turn
from bench.grid.tasks import Grid, Task
from bench.grid.tuning import RATES
from bench.questions import named
from bench.questions.estimator_training import measure as estimator_training
from bench.report import rows as tidy
from vaes import VAE, Discovery, discover
from vaes.base import diagonal_gaussian

TIMING = {"training_seconds"}


@pytest.fixture
def grid(tiny, tmp_path) -> Grid:
    overrides = (("latent_dim", 2), ("hidden_dim", 8))
    names = ("autoencoder", "fixed_variance", "input_dependent")
    return Grid(
        str(tiny),
        names,
        2,
        PRESETS["quick"],
        "cpu",
        overrides,
        cache=tmp_path / "cache",
        questions=named(["headline"]),
    )


def rows_of(grid: Grid, outcome: outcomes.Outcome) -> pd.DataFrame:
    return tidy.frame(outcomes.rows(grid, outcome))


def rows(grid: Grid, inline) -> pd.DataFrame:
    table = rows_of(grid, execute(grid, load(grid.dataset), inline))
    return table[~table.metric.isin(TIMING)].reset_index(drop=True)


def test_a_second_run_redoes_nothing_and_gives_the_same_rows(grid, inline):
    data = load(grid.dataset)
    first = execute(grid, data, inline)
    second = execute(grid, data, inline)
    (contest,) = first.contests
    assert first.executed == 2 + 2 * len(contest.scores) + 2 + 6
    assert (second.executed, second.cached) == (0, first.executed)
    pd.testing.assert_frame_equal(rows_of(grid, first), rows_of(grid, second))


def test_damaged_weights_are_made_again_where_a_measurement_needs_them(grid, inline):
    one, data = replace(grid, variants=("input_dependent",), seeds=1), load(grid.dataset)
    execute(one, data, inline)
    files = {b"checkpoints" in path.read_bytes(): path for path in one.cache.glob("*.run")}

    def damage(path) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    damage(files[True])
    assert execute(one, data, inline).executed == 0

    damage(files[False])
    told = []
    asked = replace(one, questions=named(["headline", "loss_noise", "gradient_noise"]))
    outcome = execute(asked, data, inline, lambda event, task, value: told.append((event, value)))
    notices = sorted(value for event, value in told if event == "notice")
    assert [notice.split(" ")[0] for notice in notices] == sorted(p.name for p in files.values())
    assert all(notice.endswith("it will be made again") for notice in notices)
    assert not outcome.failures
    assert outcome.cached == 0
    assert outcome.executed == 1 + sum(map(len, outcome.results.values()))
    assert outcome.results.keys() == set(asked.questions)
    assert len(outcome.headline) == len(outcome.trained) == 1


def test_a_finished_task_costs_the_same_however_many_there_are(grid, inline, tmp_path, monkeypatch):
    """The runs of the tables are not made again for each; trained weights stay on the disk."""
    made = []
    whole = Grid.run
    monkeypatch.setattr(
        Grid, "run", lambda self, *given, **named: made.append(1) or whole(self, *given, **named)
    )
    one = vars(grid) | {"variants": ("autoencoder",)}
    counts = []
    for seeds in (3, 12):
        many = Grid(**(one | {"seeds": seeds, "cache": tmp_path / str(seeds)}))
        made.clear()
        outcome = execute(many, load(grid.dataset), inline)
        counts.append(len(made))
        assert outcome.executed == 2 * seeds
        assert not any(trained.checkpoints for trained in outcome.trained.values())
    assert counts == [3, 12]


def test_variants_take_turns(grid):
    """So that workers that start together compile different steps."""
    asked = [Task(grid.run(name, seed)) for name in grid.variants for seed in (0, 1)]
    order = [(task.run.variant, task.run.seed) for task in in_turn(asked)]
    assert order == [(name, seed) for seed in (0, 1) for name in grid.variants]


def test_an_interrupted_grid_resumes_to_the_same_rows(grid, inline, tmp_path):
    whole = rows(grid, inline)
    resumed = Grid(**(vars(grid) | {"cache": tmp_path / "other"}))
    execute(resumed, load(grid.dataset), inline)
    files = sorted(resumed.cache.glob("*.run"))
    for path in files[::2]:
        path.unlink()
    files[1].write_bytes(files[1].read_bytes()[:-10])
    notices = []
    outcome = execute(
        resumed,
        load(grid.dataset),
        inline,
        lambda event, task, value: notices.append((event, value)),
    )
    assert outcome.executed == len(files[::2]) + 1
    assert any(event == "notice" and "truncated" in value for event, value in notices)
    pd.testing.assert_frame_equal(whole, rows(resumed, inline))


def test_the_hyperparameter_of_the_highest_validation_elbo_is_chosen(grid, inline):
    outcome = execute(grid, load(grid.dataset), inline)
    (contest,) = outcome.contests
    assert contest.open.variant == "fixed_variance"
    for candidate, scores in contest.scores.items():
        for seed, score in scores.items():
            trained = outcome.trained[candidate.with_(seed=seed)]
            assert score == trained.best()["valid_elbo"]
    best = max(contest.scores, key=lambda candidate: sum(contest.scores[candidate].values()))
    assert contest.chosen() == best
    chosen = {run.hyperparameters for run in outcome.headline}
    assert chosen == {(), best.hyperparameters}
    table = rows_of(grid, outcome)
    tuning = table[table.question == "tuning"]
    assert tuning[tuning.chosen].hyperparameter_scale.unique() == best.hyperparameters[0][1]
    assert tuning.metric.unique() == "valid_elbo"
    contest.open = contest.open.with_(kl_weight=4.0)
    table = rows_of(grid, outcome)
    assert table[table.question == "tuning"].metric.unique() == "valid_objective"


def test_a_run_of_fewer_images_trains_on_random_ones(grid):
    train = load(grid.dataset).train
    run = grid.run("input_dependent", 1).with_(train_size=20)
    _, data = tasks.subject_of(run, grid)
    assert len(data.train) == 20
    assert not torch.equal(data.train, train[:20])
    _, whole = tasks.subject_of(run.with_(train_size=0), grid)
    assert torch.equal(whole.train, train)


def test_learning_rates_are_chosen_at_each_length_and_lengths_share_trunks(
    grid, inline, monkeypatch
):
    groups = []
    whole = tasks._train_together
    monkeypatch.setattr(
        tasks, "_train_together", lambda group, *rest: groups.append(group) or whole(group, *rest)
    )
    preset = replace(PRESETS["quick"], tuned=True, epochs={"": 4}, halvings=1)
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset}
    both = Grid(**(one | {"questions": named(["headline", "budget"])}))
    outcome = execute(both, load(grid.dataset), inline)
    assert {contest.open.epochs for contest in outcome.contests} == {2, 4}
    for contest in outcome.contests:
        rate = contest.chosen().learning_rate
        tried = {candidate.learning_rate for candidate in contest.scores}
        at_end = rate in (min(RATES), max(RATES))
        assert at_end or {rate / 2, rate * 2} <= tried
    assert groups
    assert all({task.run.epochs for task in group} == {2, 4} for group in groups)
    table = rows_of(both, outcome)
    budget = table[(table.question == "budget") & (table.metric == "elbo")]
    assert set(zip(budget.epochs, budget.seed)) == {(2, 0), (2, 1), (4, 0), (4, 1)}
    headline = table[(table.question == "headline") & (table.metric == "elbo")]
    longest = budget[budget.epochs == 4]
    # a fifth of the noise samples; equal ones are compared in test_budget.py
    assert list(longest.value) == pytest.approx(list(headline.value), abs=0.2)


def test_a_short_training_of_a_question_has_the_rate_of_the_headline(grid, inline):
    preset = replace(PRESETS["quick"], tuned=True, epochs={"": 2}, scaling_steps=3)
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset, "seeds": 1}
    overrides = (*grid.overrides, ("latent_dim", 20))
    scaled = Grid(**(one | {"overrides": overrides, "questions": named(["gradient_scaling"])}))
    outcome = execute(scaled, load(grid.dataset), inline)
    (contest,) = outcome.contests
    short = [run for run in outcome.trained if run.steps]
    assert {run.learning_rate for run in short} == {contest.chosen().learning_rate}


def test_an_estimators_rate_is_chosen_by_more_seeds_than_a_long_trainings(
    grid, inline, monkeypatch
):
    monkeypatch.setattr(estimator_training, "of_bound", lambda bound: ("pathwise",))
    preset = replace(
        PRESETS["quick"],
        tuned=True,
        halvings=0,
        sweep_seeds={"": 1},
        comparison_sweep_seeds=2,
        comparison_steps={"": 2},
    )
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset, "seeds": 1}
    compared = Grid(**(one | {"questions": named(["headline", "estimator_training"])}))
    data = load(grid.dataset)

    def seeds(choosing: bool) -> dict[int, int]:
        contests = execute(compared, data, inline, choosing=choosing).contests
        return {contest.open.steps: contest.seeds for contest in contests}

    assert seeds(choosing=True) == {0: 1, 1: 2, 2: 2}
    assert seeds(choosing=False) == {0: 1, 1: 1, 2: 1}


def test_a_rate_that_is_given_is_not_chosen(grid, inline):
    overrides = (*grid.overrides, ("learning_rate", 0.004))
    preset = replace(PRESETS["quick"], tuned=True)
    one = vars(grid) | {"preset": preset, "overrides": overrides}
    fixed = Grid(**(one | {"questions": named(["budget"])}))
    outcome = execute(fixed, load(grid.dataset), inline)
    assert {run.learning_rate for run in outcome.trained} == {0.004}
    assert {contest.open.variant for contest in outcome.contests} == {"fixed_variance"}


def test_where_every_candidate_fails_the_failure_is_told_of_each_seed(grid, inline, monkeypatch):
    found = discover()
    more = Discovery({**found.variants, "exploding": Exploding}, {})
    monkeypatch.setattr(tasks, "discover", lambda **files: more)
    preset = replace(PRESETS["quick"], tuned=True)
    one = vars(grid) | {"variants": ("autoencoder", "exploding"), "preset": preset}
    outcome = execute(Grid(**one), load(grid.dataset), inline)
    assert {task.run.seed for task in outcome.failures} == {0, 1}
    assert {task.run.variant for task in outcome.failures} == {"exploding"}
    assert {c.open.variant: c.succeeded() for c in outcome.contests} == {
        "autoencoder": True,
        "exploding": False,
    }
    table = rows_of(Grid(**one), outcome)
    assert set(table[table.question == "failure"].variant) == {"exploding"}


def test_a_record_is_of_no_use_to_a_rate_that_is_given_nor_where_it_is_chosen_anew(
    grid, inline, monkeypatch
):
    wrong = {"learning_rate": 0.123, "hyperparameters": ()}
    monkeypatch.setattr(runner.recorded, "choice", lambda run, *_: run.with_(**wrong))
    preset = replace(PRESETS["quick"], tuned=True)
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset}
    overrides = (*grid.overrides, ("learning_rate", 0.004))
    data = load(grid.dataset)

    def rates(overrides=grid.overrides, **options) -> set[float]:
        outcome = execute(Grid(**(one | {"overrides": overrides})), data, inline, **options)
        return {run.learning_rate for run in outcome.trained}

    assert rates() == {0.123}
    assert rates(overrides) == {0.004}
    assert 0.123 not in rates(choosing=True)


def test_of_headline_runs_a_record_may_be_kept_where_others_are_chosen_anew(
    grid, inline, monkeypatch
):
    given = {"learning_rate": 0.004, "hyperparameters": ()}
    monkeypatch.setattr(runner.recorded, "choice", lambda run, *_: run.with_(**given))
    preset = replace(PRESETS["quick"], tuned=True, epochs={"": 2}, halvings=1)
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset}
    short = Grid(**(one | {"questions": named(["budget"])}))
    data = load(grid.dataset)

    def lengths(**options) -> set[int]:
        outcome = execute(short, data, inline, choosing=True, **options)
        return {contest.open.epochs for contest in outcome.contests}

    assert lengths(keeping=True) == {1}
    assert lengths() == {1, 2}


def test_paired_differences_are_differences_of_the_means(grid, inline):
    table = rows(grid, inline)
    for seed in (0, 1):
        mine = table[table.seed == seed].set_index(["variant", "metric"]).value
        difference = mine["fixed_variance", "elbo"] - mine["input_dependent", "elbo"]
        assert math.isclose(mine["fixed_variance", "elbo_difference"], difference, rel_tol=1e-6)
    paired = table[table.metric == "elbo_difference"]
    assert set(paired.variant) == {"fixed_variance"}
    assert (paired.standard_error > 0).all()


def test_the_elbo_is_minus_distortion_plus_rate_and_below_every_bound(grid, inline):
    table = rows(grid, inline)
    one = table[(table.variant == "input_dependent") & (table.seed == 0)]
    value = one.set_index("metric").value
    assert math.isclose(value.elbo, -(value.distortion + value.rate), rel_tol=1e-7)
    bounds = one[one.metric == "iw_bound"].set_index("K").value
    assert bounds[1] < bounds[10] < bounds[100]
    assert math.isclose(value.bits_per_dim, -value.elbo / math.log(2) / 16, rel_tol=1e-9)


class Faulty(VAE):
    """Fails once the posterior is asked for."""

    rank = 4

    def posterior(self, x):
        raise RuntimeError("no such posterior")


class Exploding(VAE):
    """Has a loss that is not finite."""

    rank = 5

    def posterior(self, x):
        loc = self.encode(x)
        return diagonal_gaussian(loc, torch.full_like(loc, math.nan))


def test_one_failure_is_recorded_and_the_rest_finish(grid, inline, monkeypatch):
    found = discover()
    more = Discovery({**found.variants, "faulty": Faulty, "exploding": Exploding}, {})
    monkeypatch.setattr(tasks, "discover", lambda **files: more)
    names = ("autoencoder", "faulty", "exploding")
    broken = Grid(**(vars(grid) | {"variants": names, "seeds": 1}))
    outcome = execute(broken, load(grid.dataset), inline)
    reasons = {task.run.variant: reason for task, reason in outcome.failures.items()}
    assert set(reasons) == {"faulty", "exploding"}
    assert "RuntimeError" in reasons["faulty"]
    assert "no such posterior" in reasons["faulty"]
    assert "stopped being finite at step 0" in reasons["exploding"]
    table = rows_of(broken, outcome)
    assert set(table[table.question == "failure"].variant) == {"faulty", "exploding"}
    assert not table[(table.variant == "autoencoder") & (table.metric == "distortion")].empty


class Laplacian(VAE):
    """Samples by itself: it is no map of normal noise."""

    rank = 6

    def posterior(self, x):
        loc = self.encode(x)
        return Independent(Laplace(loc, torch.ones_like(loc)), 1)


def test_a_posterior_that_samples_by_itself_gives_the_same_rows_again(
    grid, inline, monkeypatch, tmp_path
):
    found = discover()
    more = Discovery({**found.variants, "laplacian": Laplacian}, {})
    monkeypatch.setattr(tasks, "discover", lambda **files: more)
    one = vars(grid) | {"variants": ("laplacian",), "seeds": 1}
    torch.manual_seed(1)
    first = rows(Grid(**one), inline)
    torch.manual_seed(2)
    again = rows(Grid(**(one | {"cache": tmp_path / "other"})), inline)
    assert not first[first.metric == "elbo"].empty
    pd.testing.assert_frame_equal(first, again)


def stack_on(monkeypatch, *devices: str) -> None:
    for module in (runner, tasks):
        monkeypatch.setattr(module, "STACKED_ON", devices)


@pytest.fixture
def stacked(monkeypatch):
    """The CPU trains as a GPU does."""
    stack_on(monkeypatch, "cpu")
    called = []
    whole = tasks._train_together
    monkeypatch.setattr(
        tasks, "_train_together", lambda group, *rest: called.append(group) or whole(group, *rest)
    )
    return called


def test_seeds_that_are_trained_together_give_the_rows_of_each_alone(
    grid, inline, tmp_path, stacked, monkeypatch
):
    together = rows(grid, inline)
    # both seeds of each candidate are trained to choose, so the chosen one needs no more
    assert {len(group) for group in stacked} == {2}
    stack_on(monkeypatch)
    alone = rows(Grid(**(vars(grid) | {"cache": tmp_path / "other"})), inline)
    pd.testing.assert_frame_equal(together, alone, rtol=1e-3, atol=1e-3)


def test_where_one_seed_of_a_stack_fails_each_is_trained_alone(grid, inline, stacked):
    wild = (*grid.overrides, ("learning_rate", 1e6), ("epochs", 20))
    outcome = execute(Grid(**(vars(grid) | {"overrides": wild})), load(grid.dataset), inline)
    assert stacked
    assert outcome.failures
    assert all("stopped being finite" in reason for reason in outcome.failures.values())
    assert {task.run.seed for task in outcome.failures} <= {0, 1}


def test_identity_leaves_out_defaults():
    run = Run("v", "d", 0, 1)
    assert run.identity() == {"variant": "v", "dataset": "d", "seed": 0, "epochs": 1}
    assert run.with_(samples=4).identity()["samples"] == 4
