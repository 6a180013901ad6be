"""Measuring trainings by gradient estimator: which are asked for, and their curves."""

from __future__ import annotations

import math

import pytest

from bench.config import PRESETS, Run
from bench.data.dataset import load
from bench.grid.contract import Subject
from bench.inference.gradients import of_bound
from bench.questions.estimator_training import measure as estimator_training
from bench.training.loop import train
from tests.subjects import find
from vaes import discover


def test_a_training_is_reported_with_its_curve():
    variant, data = discover().variants["input_dependent"], load("digits")
    run = Run("input_dependent", "digits", 0, 1, 3, 6, estimator="rloo", samples=2, steps=20)
    trained = train(run, variant, data)
    rows = estimator_training.measure(Subject(trained, variant, data), "equal_steps").rows
    (elbo,) = find(rows, "elbo", budget="equal_steps", estimator="rloo", S=2, steps=20)
    assert elbo.value < 0 < elbo.standard_error
    assert [r.value for r in find(rows, "valid_elbo")] == [e["valid_elbo"] for e in trained.history]
    assert find(rows, "valid_elbo")[-1].settings["step"] == 20
    (row,) = estimator_training.measure(
        Subject(trained, variant, data), "equal_steps", "measure_valued", "too dear"
    ).rows
    assert math.isnan(row.value)
    assert row.settings == {"budget": "equal_steps", "estimator": "measure_valued"}
    assert row.reason == "too dear"


def test_requests_cover_every_estimator_within_both_budgets():
    run, preset = Run("input_dependent", "mnist5k", 0, 100), PRESETS["default"]
    asked = list(estimator_training.requests(run, preset))
    assert len({hash(r) for r in asked}) == len(asked)
    by_budget = {
        (dict(r.settings)["budget"], r.run.estimator): r.run
        for r in asked
        if "left_out" not in dict(r.settings)
    }
    assert {name for _, name in by_budget} == set(of_bound("elbo"))
    steps = {
        budget: by_budget[budget, "pathwise"].steps for budget in ("equal_steps", "equal_time")
    }
    assert len(set(steps.values())) == 1
    baseline = by_budget["equal_time", "score_function_baseline"]
    assert steps["equal_time"] / baseline.steps == pytest.approx(10.5 / 2.5, rel=0.02)
    assert by_budget["equal_steps", "rloo"].samples == 2
    (left_out,) = [dict(r.settings) for r in asked if "left_out" in dict(r.settings)]
    assert left_out["left_out"] == "measure_valued"
    assert "pathwise steps" in left_out["reason"]
    assert list(estimator_training.requests(run.with_(seed=3), preset)) == []
