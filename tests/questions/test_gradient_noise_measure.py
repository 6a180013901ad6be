"""Measuring the gradient's noise: flags and reasons, requests."""

from __future__ import annotations

import math

import pytest

from bench.config import PRESETS, Run
from bench.data.dataset import load
from bench.grid.contract import Subject
from bench.inference.gradients import of_bound
from bench.questions.gradient_noise import STAGES
from bench.questions.gradient_noise import measure as gradient_noise
from bench.training.loop import Trained
from tests.posteriors import (
    Mixture,
    Overflowing,
    perturbed,
)
from tests.subjects import find, of_digits
from vaes import discover


@pytest.fixture
def few_rounds(monkeypatch):
    monkeypatch.setattr(gradient_noise, "ROUNDS", 1)
    monkeypatch.setattr(gradient_noise, "DECODER_DRAWS", 4)


def test_every_cell_is_a_number_or_has_its_reason(few_rounds):
    variant = discover().variants["input_dependent"]
    rows = gradient_noise.measure(of_digits(perturbed(variant, 64)), 2, 300).rows
    for stage in STAGES:
        for samples in gradient_noise.SAMPLES:
            for name in of_bound("elbo"):
                (row,) = find(rows, "total_variance", stage=stage, S=samples, estimator=name)
                missing = samples == 1 and name in ("rloo", "pathwise_antithetic")
                assert bool(row.reason) == missing == math.isnan(row.value)
        assert find(rows, "decoder_variance", stage=stage)[0].value > 0
    cell = dict(stage="best", S=4, estimator="rloo")
    (ratio,) = find(rows, "variance_ratio", **cell, reference="pathwise")
    (own,), (other,) = (
        find(rows, "total_variance", **cell | {"estimator": e}) for e in ("rloo", "pathwise")
    )
    assert ratio.value == pytest.approx(own.value / other.value)
    (time,), (other_time,) = (
        find(rows, "step_microseconds", **cell | {"estimator": e}) for e in ("rloo", "pathwise")
    )
    (efficiency,) = find(rows, "efficiency", **cell)
    assert efficiency.value == pytest.approx(other_time.value / (time.value * ratio.value))
    assert find(rows, "signal_to_noise", **cell)[0].value > 0


def test_a_mixture_is_measured_where_it_can_be_and_says_why_elsewhere(few_rounds):
    rows = gradient_noise.measure(of_digits(perturbed(Mixture, 64)), 2, 300).rows
    (row,) = find(rows, "total_variance", stage="best", S=4, estimator="pathwise")
    assert math.isnan(row.value)
    assert "MixtureSameFamily is not a map of standard normal noise" in row.reason
    (row,) = find(rows, "total_variance", stage="best", S=4, estimator="rloo")
    assert row.value > 0
    find(rows, "variance_ratio", stage="best", S=4, estimator="rloo", reference="score_function")


def test_an_overflow_is_shown_with_its_cause(few_rounds):
    rows = gradient_noise.measure(of_digits(perturbed(Overflowing, 64)), 2, 300).rows
    (row,) = find(rows, "total_variance", stage="best", S=1, estimator="pathwise")
    assert not math.isfinite(row.value)
    assert row.n > 0
    assert "gradient estimates are not finite" in row.reason


def test_a_plain_autoencoder_has_no_rows():
    run = Run("autoencoder", "digits", 0, 1)
    plain = Subject(Trained(run), discover().variants["autoencoder"], load("digits"))
    assert gradient_noise.measure(plain, 2, 300).rows == []


def test_requests():
    run, preset = Run("input_dependent", "mnist5k", 0, 100), PRESETS["default"]
    (request,) = gradient_noise.requests(run, preset)
    assert request.run == run
    assert list(gradient_noise.requests(run.with_(seed=1), preset)) == []
