"""Measuring the signal-to-noise ratio of L_K's gradient by K."""

from __future__ import annotations

import math

import pytest
import torch

from bench.config import PRESETS, Run
from bench.inference.gradients import of_bound
from bench.questions.multi_sample import STAGES, THEORY
from bench.questions.multi_sample import measure as multi_sample
from tests.subjects import find, subject

IMAGES = 20


def even_weights(model) -> None:
    """A decoder that hardly depends on the code, and a posterior hardly off the prior."""
    for weight in (model.decoder[0].weight, model.location.weight, *model.log_scale.parameters()):
        weight.mul_(0.1)
    model.log_scale.bias.zero_()


@pytest.fixture(scope="module")
def rows():
    return multi_sample.measure(subject("input_dependent", even_weights), IMAGES, 2048).rows


@pytest.mark.parametrize("name", THEORY)
def test_the_exponents_are_theory_s_where_the_weights_are_even(rows, name):
    """Rainforth et al. 2018: −½; Tucker et al. 2018: ½; for K → ∞, hence nearly. 0.065 is four
    standard errors of the noisier one: a false alarm has probability under 1e-3."""
    (size,) = find(rows, "effective_sample_size", stage="best", K=256)
    assert size.value > 230
    (row,) = find(rows, "exponent", stage="best", estimator=name, K=multi_sample.BEYOND)
    assert row.standard_error < 0.016
    assert abs(row.value - THEORY[name]) < 0.065


def test_every_k_and_estimator_has_its_ratio_and_those_of_ratios(rows):
    for stage in STAGES:
        for name in of_bound("iw_bound"):
            first = find(rows, "signal_to_noise", stage=stage, estimator=name, K=1)[0].value
            for K in multi_sample.KS:
                here = dict(stage=stage, estimator=name, K=K)
                (own,) = find(rows, "signal_to_noise", **here)
                assert own.value > 0
                assert own.n == IMAGES
                if K > 1:
                    (change,) = find(rows, "signal_to_noise_change", **here, reference_K=1)
                    assert change.value == pytest.approx(own.value / first)
                if name != "iwae":
                    plain = find(rows, "signal_to_noise", **here | {"estimator": "iwae"})[0]
                    (ratio,) = find(rows, "signal_to_noise_ratio", **here, reference="iwae")
                    assert ratio.value == pytest.approx(own.value / plain.value)


def test_the_bias_is_nothing_for_one_sample_and_grows(rows):
    biases = [
        find(rows, "relative_bias", stage="best", estimator="iwae_sticking_the_landing", K=K)[0]
        for K in (1, 4, 64)
    ]
    assert biases[0].value == 0
    assert biases[1].value > 4 * biases[1].standard_error
    assert biases[2].value > 2 * biases[1].value


def test_equal_weights_have_no_spread(rows):
    (one,) = find(rows, "effective_sample_size", stage="best", K=1)
    assert (one.value, one.standard_error) == (1, 0)


def test_an_exponent_is_that_of_a_power_law():
    """Signals 9 K^−2, noises K^−3 of every image: the ratio is 3 K^½, with no error."""
    squares = {
        ("dreg", K): torch.tensor([[9 * K**-2.0], [K**-3.0]]).double().expand(2, 5)
        for K in multi_sample.KS
    }
    for row in multi_sample._exponents(squares, "dreg", {}):
        assert row.value == pytest.approx(0.5)
        assert row.standard_error == pytest.approx(0, abs=1e-9)


def test_a_signal_that_is_not_told_from_zero_is_a_reason():
    squares = torch.tensor([[-1.0, 0.5], [1.0, 1.0]])
    row = multi_sample._over_images("signal_to_noise", squares, multi_sample._ratio, {})
    assert math.isnan(row.value)
    assert "not significantly above zero" in row.reason


def test_requests_are_one_run_of_one_variant():
    run, preset = Run("input_dependent", "mnist5k", 0, 100), PRESETS["default"]
    (request,) = multi_sample.requests(run, preset)
    assert request.run == run
    assert dict(request.settings)["images"] >= 100
    assert dict(request.settings)["estimators"] == of_bound("iw_bound")
    assert list(multi_sample.requests(run.with_(seed=1), preset)) == []
    assert list(multi_sample.requests(run.with_(variant="flow"), preset)) == []
