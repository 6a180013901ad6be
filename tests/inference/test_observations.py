"""Draws of p(x|z): their moments are the likelihood's, and no other is drawn from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import ContinuousBernoulli

from bench.data.dataset import in_its_unit
from bench.data.unit import Unit
from bench.errors import BenchError
from bench.inference.observations import observations
from vaes import LIKELIHOODS, discover, with_options

D, L, N = 6, 2, 20_000
LOG_NOISE = -0.7
VARIANT = discover().variants["input_dependent"]


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def moments(likelihood: str, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if likelihood == "gaussian":
        return logits, torch.full((D,), math.exp(2 * LOG_NOISE))
    if likelihood == "bernoulli":
        return logits.sigmoid(), logits.sigmoid() * (1 - logits.sigmoid())
    pixels = ContinuousBernoulli(logits=logits)
    return pixels.mean, pixels.variance


@pytest.mark.parametrize("in_a_unit", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_draws_have_the_likelihood_s_moments(likelihood, in_a_unit):
    """20,000 draws of one code: means within 5 standard errors, P(false alarm) < 1e-5."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unit = Unit(np.zeros(D), np.full(D, 3.0)) if in_a_unit else None
        model = in_its_unit(with_options(VARIANT, likelihood, "linear"), unit)(D, L, 5).double()
    if likelihood == "gaussian":
        model.log_noise.data.fill_(LOG_NOISE)
    z = torch.tensor([[0.5, -1.0]]).double().expand(N, L)
    found, x = observations(model, z, draws())
    mean, variance = (m.double() for m in moments(likelihood, model.decode(z[:1])[0].detach()))
    assert torch.allclose(found, mean.expand(N, D))
    assert ((x.mean(0) - mean).abs() < 5 * (variance / N).sqrt()).all()
    assert torch.allclose(x.var(0), variance, rtol=0.06)


def test_a_likelihood_of_one_s_own_is_not_drawn_from():
    class Own(VARIANT):
        def log_likelihood(self, x, z):
            return 2 * super().log_likelihood(x, z)

    with pytest.raises(BenchError, match="log-likelihood of its own"):
        observations(Own(D, L, 5), torch.zeros(2, L), draws())
