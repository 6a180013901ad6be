"""Sampling schemes of the ELBO's estimators, and what estimators refuse.

That they are unbiased is shown in `tests/exact/test_elbo_truths.py`. Statistical comparisons allow
4 standard errors: a correct program fails one with probability under 1e-4. Seeds are fixed.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.quasirandom import SobolEngine

from bench.errors import BenchError
from bench.inference.elbo import SAMPLINGS, antithetic, elbo_estimate, elbo_terms, sobol
from bench.inference.reparameterize import standard_normal
from bench.randomness import generator
from tests.posteriors import Implicit, LaplacePosterior, Squashed, perturbed
from vaes import discover

ERRORS = 4
PIXELS, LATENT = 12, 3


def images(count):
    return torch.bernoulli(torch.full((count, PIXELS), 0.4), generator=generator("cpu", "images"))


def test_antithetic_noise_is_adjacent_opposite_pairs():
    noise = antithetic(5, LATENT, generator("cpu"))(8)
    assert noise.shape == (8, 5, LATENT)
    assert (noise[::2] == -noise[1::2]).all()
    assert noise[::2].unique().numel() == 4 * 5 * LATENT


def test_sobol_points_put_one_sample_in_each_of_s_equally_probable_cells():
    noise = sobol(5, 20, generator("cpu"))(64)
    assert noise.shape == (64, 5, 20)
    cell, _ = (torch.special.ndtr(noise) * 64).long().sort(0)
    assert (cell == torch.arange(64).view(64, 1, 1)).all()
    assert not torch.equal(noise[:, 0], noise[:, 1])


def test_sobol_noise_is_standard_normal_and_finite():
    """A coordinate of one image is exactly N(0, 1): moments over 40,000 images."""
    z = sobol(40_000, 2, generator("cpu"))(1)[0]
    assert z.isfinite().all()
    error = 1 / math.sqrt(len(z))
    assert (z.mean(0).abs() < ERRORS * error).all()
    assert ((z.square().mean(0) - 1).abs() < ERRORS * math.sqrt(2) * error).all()


@pytest.mark.parametrize("end", [0.0, 1 - 2**-30, 1.0])  # 1.0 is what the engine may round to
def test_the_cells_at_the_ends_map_to_finite_numbers(monkeypatch, end):
    monkeypatch.setattr(
        SobolEngine, "draw", lambda self, n, dtype: torch.full((n, 2), end, dtype=dtype)
    )
    monkeypatch.setattr(torch, "randint", lambda high, size, **_: torch.zeros(size).long())
    assert sobol(3, 2, generator("cpu"))(4).isfinite().all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_scheme_follows_its_generator(sampling):
    draws = [SAMPLINGS[sampling](3, 2, generator("cpu", seed))(4) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("variant", "kl", "sampling", "samples", "words"),
    [
        (None, "analytic", "antithetic", 5, ("antithetic", "S=5", "even")),
        (Squashed, "analytic", "independent", 4, ("analytic KL", "TransformedDistribution")),
        (Implicit, "sampled", "independent", 4, ("sampled KL", "Sampler", "log_prob")),
        (LaplacePosterior, "sampled", "antithetic", 4, ("antithetic", "Independent")),
        (LaplacePosterior, "sampled", "sobol", 4, ("sobol", "Independent")),
    ],
)
def test_what_an_estimator_does_not_admit_is_one_line(variant, kl, sampling, samples, words):
    model = perturbed(variant or discover().variants["input_dependent"], PIXELS, LATENT)
    with pytest.raises(BenchError) as raised:
        elbo_estimate(model, images(2), kl, sampling, samples, generator("cpu"))
    text = str(raised.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_a_dimension_over_the_sobol_limit_is_one_line():
    with pytest.raises(BenchError, match=r"'sobol'.*L=21202.*limit is L=21201"):
        sobol(1, SobolEngine.MAXDIM + 1, generator("cpu"))(4)


def test_a_plain_autoencoder_has_a_distortion_and_no_rate():
    model = perturbed(discover().variants["autoencoder"], PIXELS, LATENT)
    noise = standard_normal(5, LATENT, generator("cpu"))
    distortion, rate = elbo_terms(model, images(5), noise, samples=7)
    assert distortion.shape == rate.shape == (1, 5)
    assert distortion.isfinite().all()
    assert rate.isnan().all()
