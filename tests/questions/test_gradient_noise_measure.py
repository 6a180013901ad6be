"""Measuring the gradient's noise: parts and whole, cost, reasons, requests."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from bench.config import PRESETS, Run
from bench.data.dataset import load
from bench.grid.contract import Subject
from bench.inference.gradients import of_bound
from bench.questions.gradient_noise import STAGES, step_times
from bench.questions.gradient_noise import measure as gradient_noise
from bench.training.loop import Trained
from tests.posteriors import (
    Mixture,
    Overflowing,
    perturbed,
)
from tests.subjects import find, of_digits, small_data, subject
from vaes import discover

IMAGES, PASSES = 6, 200


@pytest.fixture
def few_rounds(monkeypatch):
    monkeypatch.setattr(step_times, "ROUNDS", 3)


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_times, "ROUNDS", 3)
        digits = of_digits(perturbed(discover().variants["input_dependent"], 64))
        return gradient_noise.measure(digits, IMAGES, PASSES).rows


def value(rows, metric, **settings):
    (row,) = find(rows, metric, **settings)
    return row.value


def test_every_cell_is_a_number_or_has_its_reason(rows):
    for stage, samples, name in itertools.product(STAGES, gradient_noise.SAMPLES, of_bound("elbo")):
        cell = {"stage": stage, "S": samples, "estimator": name}
        (row,) = find(rows, "total_variance", **cell)
        missing = samples == 1 and name in ("rloo", "pathwise_antithetic")
        assert bool(row.reason) == missing == math.isnan(row.value)
        if not missing:
            assert row.n == IMAGES
            for metric in ("decoder_variance", "squared_signal_to_noise", "precision_per_second"):
                assert math.isfinite(value(rows, metric, **cell))


def test_the_whole_is_the_sum_of_its_parts_and_ratios_are_of_the_whole(rows):
    for stage, name in itertools.product(STAGES, of_bound("elbo")):
        cell = {"stage": stage, "S": 4, "estimator": name}
        noise = value(rows, "total_variance", **cell) + value(rows, "decoder_variance", **cell)
        sides = ("encoder", "decoder")
        data = sum(value(rows, f"{side}_data_variance", stage=stage) for side in sides)
        whole = value(rows, "whole_variance", **cell)
        assert whole == pytest.approx(noise + data)
        assert value(rows, "monte_carlo_share", **cell) == pytest.approx(noise / whole)
        same_s = value(rows, "whole_variance", **cell | {"estimator": "pathwise"})
        ratio = value(rows, "whole_variance_ratio", **cell, reference="pathwise")
        assert ratio == pytest.approx(whole / same_s)


def test_precision_is_at_equal_cost(rows):
    """Against pathwise with S = 1: a baseline's passes count, and the clock is another cost."""
    one = {"stage": "best", "S": 1, "estimator": "pathwise"}
    for name, passes in (("score_function_baseline", 16 + 2), ("measure_valued", 2 * 13)):
        cell = {"stage": "best", "S": 2, "estimator": name}
        assert value(rows, "decoder_passes", **cell) == passes
        gain = value(rows, "whole_variance", **one) / value(rows, "whole_variance", **cell)
        found = value(rows, "precision_per_pass", **cell, reference="pathwise", reference_S=1)
        assert found == pytest.approx(gain / passes)
        clock = value(rows, "step_time", **one) / value(rows, "step_time", **cell)
        assert value(rows, "precision_per_second", **cell) == pytest.approx(gain * clock)
    (own,) = find(rows, "precision_per_second", **one)
    assert (own.value, own.standard_error) == (1, 0)


def test_the_error_of_a_ratio_is_over_images_and_that_of_a_cost_besides():
    """The jackknife, against its linear approximation."""
    draws = torch.Generator().manual_seed(0)
    above, below = torch.rand(2, 400, generator=draws, dtype=torch.float64) + 0.5
    found = gradient_noise.ratio("r", above, below, {})
    residual = (above - found.value * below) / below.mean()
    assert found.value == pytest.approx((above.mean() / below.mean()).item())
    assert found.standard_error == pytest.approx(residual.std().item() / 20, rel=0.01)
    twice = gradient_noise.scaled(found, 2.0, 0.5, "t")
    relative = found.standard_error / found.value
    assert twice.standard_error == pytest.approx(twice.value * math.hypot(relative, 0.5))


def test_training_images_are_random_ones_of_all_and_binarized():
    """The first half of the training images is black, the other grey: some of each are drawn."""
    data = small_data()
    data.train[: len(data.train) // 2] = 0
    found = gradient_noise.training_images(subject("input_dependent", data=data), 40)
    assert found.shape == (40, 24)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert 8 < (found.sum(1) == 0).sum() < 32


def test_a_mixture_is_measured_where_it_can_be_and_says_why_elsewhere(few_rounds):
    mixture, estimators = of_digits(perturbed(Mixture, 64)), ("pathwise", "score_function", "rloo")
    rows = gradient_noise.measure(mixture, IMAGES, PASSES, estimators).rows
    (row,) = find(rows, "total_variance", stage="best", S=4, estimator="pathwise")
    assert math.isnan(row.value)
    assert "MixtureSameFamily is not a map of standard normal noise" in row.reason
    cell = {"stage": "best", "S": 4, "estimator": "rloo"}
    assert value(rows, "total_variance", **cell) > 0
    find(rows, "whole_variance_ratio", **cell, reference="score_function")


def test_an_overflow_is_shown_with_its_cause(few_rounds):
    overflowing = of_digits(perturbed(Overflowing, 64))
    rows = gradient_noise.measure(overflowing, IMAGES, PASSES, ("pathwise",)).rows
    (row,) = find(rows, "total_variance", stage="best", S=1, estimator="pathwise")
    assert not math.isfinite(row.value)
    assert row.n == IMAGES
    assert "gradient estimates are not finite" in row.reason


def test_a_plain_autoencoder_has_no_rows():
    run = Run("autoencoder", "digits", 0, 1)
    plain = Subject(Trained(run), discover().variants["autoencoder"], load("digits"))
    assert gradient_noise.measure(plain, IMAGES, PASSES).rows == []


def test_requests():
    """Three seeds; every estimator of the reference, the pathwise ones of others."""
    run, preset = Run("input_dependent", "mnist5k", 0, 100), PRESETS["default"]
    assert preset.gradient_images >= 100
    for seed in range(3):
        (request,) = gradient_noise.requests(run.with_(seed=seed), preset)
        assert request.run.seed == seed
        assert dict(request.settings)["estimators"] == tuple(of_bound("elbo"))
    (other,) = gradient_noise.requests(run.with_(variant="flow"), preset)
    assert (
        set(dict(other.settings)["estimators"])
        == set(gradient_noise.USUAL)
        <= set(of_bound("elbo"))
    )
    assert list(gradient_noise.requests(run.with_(seed=3), preset)) == []
