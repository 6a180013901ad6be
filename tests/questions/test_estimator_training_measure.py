"""Measuring trainings by gradient estimator: which are asked for, and their curves."""

from __future__ import annotations

import math

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
    run = run.with_(validated_every=1, learning_rate=0.004)
    trained = train(run, variant, data)
    rows = estimator_training.measure(Subject(trained, variant, data), along=True).rows
    (elbo,) = find(rows, "elbo", estimator="rloo", S=2, steps=20, learning_rate=0.004)
    assert elbo.value < 0 < elbo.standard_error
    assert [r.value for r in find(rows, "valid_elbo")] == [e["valid_elbo"] for e in trained.history]
    assert [r.settings["step"] for r in find(rows, "valid_elbo")] == list(range(1, 21))
    (row,) = estimator_training.measure(
        Subject(trained, variant, data), left_out="measure_valued", reason="too dear"
    ).rows
    assert math.isnan(row.value)
    assert row.settings == {"estimator": "measure_valued"}
    assert row.reason == "too dear"


def test_steps_are_timed_in_turns():
    variant, data = discover().variants["input_dependent"], load("digits")
    run = Run("input_dependent", "digits", 0, 1, 3, 6, steps=2)
    subject = Subject(train(run, variant, data), variant, data)
    timed = (("pathwise", 1), ("pathwise", 2), ("rloo", 2))
    rows = estimator_training.measure(subject, timed=timed).rows
    assert [(r.settings["estimator"], r.settings["S"]) for r in rows] == [*timed]
    assert all(r.metric == "step_seconds" and 0 < r.value < 1 for r in rows)


def test_where_the_kl_has_no_closed_form_or_free_bits_nothing_is_compared():
    run, preset = Run("input_dependent", "mnist5k", 0, 100), PRESETS["default"]
    for other in (run.with_(prior="vamp"), run.with_(free_bits=0.1)):
        assert list(estimator_training.requests(other, preset)) == []


def test_every_estimator_is_trained_at_a_rate_of_its_own_beside_pathwise_of_its_samples():
    run, preset = Run("input_dependent", "mnist5k", 0, 100), PRESETS["default"]
    asked = list(estimator_training.requests(run, preset))
    assert len({hash(r) for r in asked}) == len(asked)
    (timed,) = [dict(r.settings)["timed"] for r in asked if "timed" in dict(r.settings)]
    trained = [r.run for r in asked if not {"left_out", "timed"} & dict(r.settings).keys()]
    assert set(timed) == {(r.estimator, r.samples) for r in trained}
    assert {r.estimator for r in trained} == set(of_bound("elbo"))
    assert all(r.learning_rate is None for r in trained)
    steps = max(r.steps for r in trained)
    lengths = {}
    for r in trained:
        lengths.setdefault((r.estimator, r.samples), set()).add(r.steps)
    for name, samples in lengths:
        assert ("pathwise", samples) in lengths
        assert min(lengths[name, samples]) <= steps / 2
    assert lengths["rloo", 2] >= {steps, steps // 2}
    assert max(lengths["measure_valued", 1]) < steps / 8
    assert steps / trained[0].validated_every >= 20
    (left_out,) = [dict(r.settings) for r in asked if "left_out" in dict(r.settings)]
    assert {r.run.steps for r in asked if "along" in dict(r.settings)} == {steps}
    assert left_out["left_out"] == "measure_valued"
    assert "pathwise steps" in left_out["reason"]
    assert list(estimator_training.requests(run.with_(seed=5), preset)) == []
    assert list(estimator_training.requests(run.with_(variant="flow"), preset)) == []
