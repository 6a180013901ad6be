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
from bench.questions import named
from bench.report import rows as tidy
from vaes import VAE, Discovery, discover
from vaes.base import diagonal_gaussian

TIMING = {"training_seconds"}


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


def test_a_run_of_fewer_images_trains_on_random_ones(grid):
    train = load(grid.dataset).train
    run = grid.run("input_dependent", 1).with_(train_size=20)
    _, data = tasks.subject_of(run, grid)
    assert len(data.train) == 20
    assert not torch.equal(data.train, train[:20])
    _, whole = tasks.subject_of(run.with_(train_size=0), grid)
    assert torch.equal(whole.train, train)


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
