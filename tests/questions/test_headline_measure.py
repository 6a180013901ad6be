"""Measuring the headline: bounds in order, paired differences, what an autoencoder lacks."""

from __future__ import annotations

import math

import pytest
import torch

from bench.data.binarization import as_float
from bench.grid.contract import Result
from bench.questions.averages import image_mean, paired_differences
from bench.questions.headline.measure import compare, iw_bounds, measure
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
    gap = find(result.rows, "inference_gap", K=10)[0]
    assert gap.value == pytest.approx(find(result.rows, "iw_bound", K=10)[0].value - elbo)
    assert gap.standard_error > find(result.rows, "iw_bound", K=10)[0].standard_error > 0
    sample = find(result.rows, "elbo_test_sample_error")[0].value
    assert sample == pytest.approx(result.arrays["elbo"].std().item() / 60**0.5)
    assert 0 < find(result.rows, "active_directions")[0].value <= 3


def test_the_error_of_a_bound_of_one_group_is_that_of_repetitions():
    """60 repetitions of a mean over 40 images: their spread is known to 10 %, the measured error,
    from 40 pairs, to some 25 %; the delta method's is less than two thirds of it here."""
    one = subject("input_dependent", lambda model: model.decoder[-1].weight.mul_(8))
    x = as_float(one.data.test)[:40]
    draws = torch.Generator().manual_seed(0)
    found = [iw_bounds(one.model(), x, draws, (5, 20), torch.arange(40))[0] for _ in range(60)]
    for k in (5, 20):
        spread = torch.stack([bounds[k][0].mean() for bounds in found]).std()
        errors = [(bounds[k][1].square().sum().sqrt() / 40) for bounds in found]
        assert torch.stack(errors).mean() == pytest.approx(spread.item(), rel=0.3)
    size = torch.stack([bounds[20][2] for bounds in found])
    delta = ((1 / size - 1 / 20).mean() / 40).sqrt()
    assert delta < 0.67 * spread


def test_axes_are_counted_where_the_posterior_has_them():
    """A full covariance, a flow and s² I may turn; a decoder of other sizes changes nothing."""

    def counted(variant, change=lambda model: None):
        rows = measure(subject(variant, change), 2, (1, 2)).rows
        return any(row.metric == "active_units" for row in rows)

    def uneven(model):
        model.log_scale.copy_(torch.tensor([0.0, -1.0, 0.5]))

    assert counted("input_dependent")
    assert counted("learned_diagonal", uneven)
    assert not any(map(counted, ("full_covariance", "flow", "fixed_variance", "learned_diagonal")))


def test_the_difference_of_elbos_is_that_of_the_bounds_less_that_of_the_gaps():
    results = {(v, 0): measure(subject(v), 5, (1, 10)) for v in ("input_dependent", "flow")}
    rows = [row for *_, row in compare(results, "input_dependent")]
    elbo, bound, gap = (
        find(rows, f"{name}_difference", **settings)[0].value
        for name, settings in (
            ("elbo", {}),
            ("iw_bound", {"K": 10}),
            ("inference_gap", {"K": 10, "reference": "input_dependent"}),
        )
    )
    assert elbo == pytest.approx(bound - gap)
    assert elbo != 0


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
