"""Schedules are what they are cited for, and say truly how long lengths share a trunk."""

from __future__ import annotations

import math

import pytest

from bench.config import Run
from bench.data.dataset import load
from bench.errors import BenchError
from bench.training.loop import STAGES, train, train_branches
from bench.training.schedules import SCHEDULES, learning_rate, schedule
from vaes import discover

VARIANTS = discover().variants
NAMES = [*SCHEDULES, "exponential:4"]
RUN = Run("input_dependent", "tiny", 0, epochs=3, latent_dim=2, hidden_dim=8)


def rates(name: str, steps: int, epoch: int = 10) -> list[float]:
    run = RUN.with_(schedule=name, learning_rate=1.0)
    return [learning_rate(run, step, steps, epoch) for step in range(steps)]


def test_learning_rate_is_constant_then_falls_to_two_per_cent():
    found = [*rates("decay", 100), schedule("decay").factor(100, 100, 10)]
    assert found[:81] == [1.0] * 81
    assert math.isclose(found[90], 0.51)
    assert math.isclose(found[100], 0.02)


def test_cosine_has_half_the_rate_in_the_middle():
    assert math.isclose(rates("cosine", 100)[50], 0.5)


def test_exponential_falls_tenfold_over_its_epochs():
    found = rates("exponential:4", 90)
    assert math.isclose(found[0], 1.0)
    assert math.isclose(found[45], 0.1)  # in the fifth epoch
    assert math.isclose(found[80], 0.01)


def test_stages_are_those_of_burda_et_al():
    """3^i epochs at 1e-4 · round(10^(1 − i/7), 1), as printed: 1e-3, 7e-4, 5e-4, 4e-4, …"""
    found = [1e-3 * rates("stages", 130, epoch=1)[epoch] for epoch in (0, 1, 3, 4, 12, 13, 39, 40)]
    expected = [10e-4, 7.2e-4, 7.2e-4, 5.2e-4, 5.2e-4, 3.7e-4, 3.7e-4, 2.7e-4]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_longer_trainings_have_the_common_steps_of_shorter_ones(name):
    common = schedule(name).common(50)
    assert rates(name, 50)[:common] == rates(name, 200)[:common]
    assert common < 50


@pytest.mark.parametrize("name", NAMES)
def test_a_branch_is_what_a_run_of_its_length_is(name, tiny):
    data = load(str(tiny))
    lengths = [RUN.with_(schedule=name, steps=steps) for steps in (3, 5, 6)]
    for branch in train_branches(lengths, VARIANTS["input_dependent"], data):
        alone = train(branch.run, VARIANTS["input_dependent"], data)
        for stage in STAGES:
            for key, weight in alone.checkpoints[stage].items():
                assert weight.equal(branch.checkpoints[stage][key])
        assert [e["epoch"] for e in branch.history] == [e["epoch"] for e in alone.history]


@pytest.mark.parametrize("name", ["decya", "exponential", "exponential:", "exponential:-1"])
def test_an_unknown_schedule_is_named(name):
    with pytest.raises(BenchError, match=f"schedule '{name}'"):
        schedule(name)
