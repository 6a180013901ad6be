"""Measuring the noise of the loss: statistics, and rows that say what cannot be measured.

Statistical comparisons allow 4 standard errors: a correct program fails one with probability
under 1e-4. Seeds are fixed.
"""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from bench.config import PRESETS, Run
from bench.inference.elbo import SAMPLINGS, antithetic, elbo_estimate, integrands
from bench.questions.averages import jackknife, log_log_slope
from bench.questions.loss_noise.measure import (
    STAGES,
    measure,
    requests,
    variance_over_noise,
)
from bench.randomness import generator
from tests.posteriors import (
    Broken,
    Implicit,
    LaplacePosterior,
    Squashed,
)
from tests.subjects import find, of_digits
from vaes import discover

ERRORS = 4


LATENT = 3


def images(count):
    return torch.bernoulli(torch.full((count, 64), 0.4), generator=generator("cpu", "images"))


def built(variant=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (variant or discover().variants["input_dependent"])(64, LATENT, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
        if variant is None:
            model.log_scale.bias.zero_()  # as wide as the prior, wherever training starts
    return model.eval()


def measured(variant, stage="epoch_1", samples=(1, 4, 16), replicates=4):
    return measure(of_digits(built(variant)), stage, 6, samples, replicates).rows


def test_the_variance_of_independent_samples_falls_as_one_over_s():
    """The slope is exactly −1 for every integrand."""
    samples = (1, 4, 16, 64)
    for kl, pool in integrands(
        built(), images(60), "independent", 64, 16, generator("cpu", "slope")
    ).items():
        variances = torch.stack([variance_over_noise(pool, s) for s in samples])
        slope, error = jackknife(partial(log_log_slope, samples), variances)
        assert error < 0.03, kl
        assert abs(slope + 1) < ERRORS * error, kl


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_variance_from_blocks_is_that_of_the_estimator_itself(kl, sampling):
    """Blocks of 8 out of 32 samples against the variance of separate calls with S = 8.

    Two replicates a pool: there, taking blocks of one replicate for independent would show.
    """
    model, x = built(), images(1).expand(300, -1)
    rng = generator("cpu", "blocks", sampling)
    pool = torch.cat([integrands(model, x, sampling, 32, 2, rng)[kl] for _ in range(12)], -1)
    value, error = jackknife(lambda v: v[0], variance_over_noise(pool, 8)[None])
    rng = generator("cpu", "calls", sampling)
    calls = torch.stack([elbo_estimate(model, x, kl, sampling, 8, rng) for _ in range(40)])
    direct, direct_error = jackknife(lambda v: v[0], calls.double().var(0)[None])
    assert error < 0.08 * value
    assert abs(value - direct) < ERRORS * math.hypot(error, direct_error)


def test_an_even_integrand_makes_pairs_twice_as_noisy_and_an_odd_one_cancels():
    noise = antithetic(500, 1, generator("cpu", "parity"))
    z = torch.stack([noise(16) for _ in range(20)])[..., 0].double()
    assert variance_over_noise(z, 4).max() < 1e-20
    value, error = jackknife(lambda v: v[0], variance_over_noise(z.square(), 4)[None])
    assert abs(value - 2 * 2 / 4) < ERRORS * error  # Var z² = 2, two pairs


def test_the_jackknife_of_a_mean_is_the_standard_error():
    values = torch.randn(30, generator=generator("cpu")).double()
    found = jackknife(lambda v: v[0], values[None])
    assert found == pytest.approx((values.mean().item(), values.std().item() / math.sqrt(30)))


def test_the_jackknife_of_a_ratio_knows_what_its_parts_share():
    values = torch.rand(30, generator=generator("cpu")).double()
    value, error = jackknife(lambda v: v[0] / v[1], torch.stack([3 * values, values]))
    assert value == pytest.approx(3)
    assert error < 1e-12


def test_the_slope_of_a_power_law_is_its_exponent():
    samples = (1, 4, 16)
    variances = torch.tensor([5.0 * s**-1.7 for s in samples]).double()
    assert log_log_slope(samples, variances) == pytest.approx(-1.7)


def test_requests_cover_the_stages_of_the_first_seed():
    run = Run("input_dependent", "mnist5k", 0, 1)
    asked = list(requests(run, PRESETS["default"]))
    assert [dict(r.settings)["stage"] for r in asked] == list(STAGES)
    assert all(hash(r) and r.run == run for r in asked)
    assert list(requests(run.with_(seed=1), PRESETS["default"])) == []


def test_rows_are_complete_finite_and_reproducible():
    variant = discover().variants["learned_diagonal"]
    rows, again = measured(variant), measured(variant)
    assert [str(r) for r in rows] == [str(r) for r in again]
    for row in rows:
        odd = row.settings.get("sampling") == "antithetic" and row.settings.get("S") == 1
        assert bool(row.reason) == odd == math.isnan(row.value)
    for kl in ("analytic", "sampled"):
        for sampling in SAMPLINGS:
            pair = dict(kl=kl, sampling=sampling)
            assert len(find(rows, "elbo_variance", **pair)) == 3
            assert len(find(rows, "elbo_variance_slope", **pair)) == 1
    ratio = find(rows, "sampled_to_analytic_variance", sampling="independent", S=4)[0].value
    parts = [
        find(rows, "elbo_variance", kl=kl, sampling="independent", S=4)[0].value
        for kl in ("sampled", "analytic")
    ]
    assert ratio == pytest.approx(parts[0] / parts[1])
    assert [r.value for r in find(rows, "iw_effective_sample_size", K=1)] == pytest.approx([1])
    bias = [r.value for r in find(rows, "iw_bias")]
    assert bias == sorted(bias)
    assert bias[-1] <= 0


def test_times_are_measured_at_the_best_weights_alone():
    variant = discover().variants["fixed_variance"]
    times = find(measured(variant, "best", (1, 4)), "elbo_estimate_time")
    assert len(times) == 2 * len(SAMPLINGS) * 2
    assert all(r.value > 0 or r.settings["S"] == 1 for r in times)
    assert not any(r.metric == "elbo_estimate_time" for r in measured(variant))


def test_a_plain_autoencoder_has_no_rows():
    assert measured(discover().variants["autoencoder"]) == []


def test_a_posterior_without_closed_form_kl_has_rows_that_say_so():
    rows = measured(Squashed)
    for row in find(rows, "elbo_variance", kl="analytic"):
        assert math.isnan(row.value)
        assert "TransformedDistribution" in row.reason
    assert all(r.value > 0 for r in find(rows, "elbo_variance", kl="sampled", sampling="sobol"))
    assert find(rows, "iw_bias", K=4)[0].value < 0


def test_a_posterior_that_is_no_map_of_normal_noise_has_rows_that_say_so():
    rows = measured(LaplacePosterior)
    for sampling in ("antithetic", "sobol"):
        for row in find(rows, "elbo_variance", sampling=sampling):
            assert math.isnan(row.value)
            assert "Independent" in row.reason
    assert find(rows, "elbo_variance", kl="sampled", sampling="independent", S=4)[0].value > 0


def test_a_posterior_without_density_still_has_its_iw_rows():
    rows = measured(Implicit)
    assert all(math.isnan(r.value) and "log_prob" in r.reason for r in find(rows, "iw_bias"))


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (math.nan, "64 of 384 integrands are NaN (1 images)"),
        (math.inf, "64 of 384 integrands are infinite (1 images)"),
        (1e200, "overflows"),
    ],
)
def test_a_variance_that_is_no_number_is_shown_with_its_cause(monkeypatch, number, cause):
    monkeypatch.setattr(Broken, "number", number)
    row = find(measured(Broken), "elbo_variance", kl="sampled", sampling="independent", S=1)[0]
    assert not math.isfinite(row.value)
    assert cause in row.reason


def test_no_variance_at_all_has_no_slope_and_says_why(monkeypatch):
    class Constant(discover().variants["input_dependent"]):
        def log_likelihood(self, x, z):
            return torch.zeros(z.shape[:-1])

    row = find(measured(Constant), "elbo_variance_slope", kl="analytic", sampling="sobol")[0]
    assert math.isnan(row.value)
    assert "a variance is exactly zero" in row.reason
