"""What is done and what is missing of a grid, told from its cache alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.config import PRESETS
from bench.data.dataset import load
from bench.grid.runner import execute
from bench.grid.survey import State, Survey
from bench.grid.tasks import Grid
from bench.questions import named


@pytest.fixture
def grid(tiny, tmp_path) -> Grid:
    overrides = (("latent_dim", 2), ("hidden_dim", 8), ("epochs", 1))
    names = ("fixed_variance", "input_dependent")
    questions = named(["headline", "budget"])
    cache = tmp_path / "cache"
    return Grid(str(tiny), names, 2, PRESETS["quick"], "cpu", overrides, None, cache, questions)


def survey(grid: Grid) -> Survey:
    return Survey(grid, load(grid.dataset))


def stored(grid: Grid) -> list[Path]:
    return sorted(grid.cache.iterdir())


def test_of_an_empty_cache_everything_is_missing_or_open(grid):
    states = survey(grid).states()
    assert stored(grid) == []
    assert states["training", "input_dependent"] == State(missing=2)
    assert states["headline", "input_dependent"] == State(missing=2)
    assert states["training", "fixed_variance"] == State(open=2)
    assert states["headline", "fixed_variance"] == State(open=2)
    assert sum(state.done for state in states.values()) == 0


def test_of_a_finished_grid_nothing_is(grid, inline):
    outcome = execute(grid, load(grid.dataset), inline)
    states = survey(grid).states()
    assert not [state for state in states.values() if state.missing or state.open]
    scored = sum(len(scores) for contest in outcome.contests for scores in contest.scores.values())
    assert states["tuning", "fixed_variance"].done == scored
    for kind in ("training", "headline"):
        assert states[kind, "fixed_variance"].done == states[kind, "input_dependent"].done == 2


def test_one_that_is_lost_is_missing(grid, inline):
    """A measurement alone; a training with all that waits for it."""
    execute(grid, load(grid.dataset), inline)
    for path in stored(grid)[::6]:
        content = path.read_bytes()
        path.unlink()
        states = survey(grid).states().values()
        assert sum(state.missing for state in states) >= 1
        assert not path.exists()
        path.write_bytes(content)


def test_a_finished_run_is_found_with_its_weights(grid, inline):
    assert survey(grid).subject("input_dependent", 1) is None
    outcome = execute(grid, load(grid.dataset), inline)
    (run,) = (run for run in outcome.headline if (run.variant, run.seed) == ("fixed_variance", 1))
    found = survey(grid).subject("fixed_variance", 1)
    assert found.run == run
    assert dict(run.hyperparameters)["scale"] > 0
    assert torch.equal(found.data.test, load(grid.dataset).test)
    x = found.data.test[:3].float()
    assert found.model().posterior(x).stddev.unique().item() == pytest.approx(
        dict(run.hyperparameters)["scale"]
    )
    assert survey(grid).subject("fixed_variance", 2) is None
