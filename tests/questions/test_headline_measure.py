"""Measuring the headline: bounds in order, paired differences, what an autoencoder lacks."""

from __future__ import annotations

import math

import pytest
import torch

from bench.grid.contract import Result
from bench.questions.averages import image_mean, paired_differences
from bench.questions.headline.measure import compare, measure
from tests.subjects import find, subject
from vaes import discover


@pytest.mark.parametrize("variant", discover().variants)
def test_a_vae_has_bounds_and_an_autoencoder_its_distortion_alone(variant):
    result = measure(subject(variant), 5, (1, 10))
    if variant == "autoencoder":
        assert result.arrays.keys() == {"distortion"}
        assert not any("elbo" in row.metric or "bound" in row.metric for row in result.rows)
        return
    elbo, distortion, rate = (
        find(result.rows, name)[0].value for name in ("elbo", "distortion", "rate")
    )
    assert elbo == pytest.approx(-(distortion + rate), rel=1e-6)
    assert (
        find(result.rows, "iw_bound", K=10)[0].value > find(result.rows, "iw_bound", K=1)[0].value
    )
    assert find(result.rows, "effective_sample_size", K=1)[0].value == pytest.approx(1)
    assert 1 < find(result.rows, "effective_sample_size", K=10)[0].value <= 10
    assert find(result.rows, "elbo")[0].standard_error >= 0


def test_differences_are_paired_within_each_seed():
    """A shift of 2 nats in every image has no error, however much images differ."""
    reference = torch.linspace(-90, -70, 5).double()
    results = {
        ("input_dependent", 0): Result(arrays={"elbo": reference, "rate": reference}),
        ("flow", 0): Result(arrays={"elbo": reference + 2, "rate": reference}),
        ("flow", 1): Result(arrays={"elbo": reference}),
        ("autoencoder", 0): Result(arrays={"distortion": reference}),
    }
    found = list(compare(results, "input_dependent"))
    assert [(variant, seed, row.metric) for variant, seed, row in found] == [
        ("flow", 0, "elbo_difference"),
        ("flow", 0, "rate_difference"),
    ]
    row = found[0][2]
    assert (row.value, row.n, row.settings) == (2, 5, {"reference": "input_dependent"})
    assert row.standard_error == pytest.approx(0, abs=1e-12)
    (one,) = paired_differences(results, "input_dependent", ("rate",))
    assert one[2].metric == "rate_difference"


def test_the_error_of_a_mean_over_images_is_over_images():
    row = image_mean("rate", torch.tensor([1.0, 2.0, 3.0]))
    assert row.value == 2
    assert row.standard_error == pytest.approx(1 / math.sqrt(3))
