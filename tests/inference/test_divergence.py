"""KL(q || p): torch's formulas whatever the shapes, latent by latent, and with bits for free."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Independent, MultivariateNormal

from bench.errors import BenchError
from bench.inference.divergence import divergence, divergence_by_latent
from bench.inference.gradients import ESTIMATORS
from bench.inference.reparameterize import standard_normal
from bench.inference.target import Target
from vaes.base import diagonal_gaussian

PRIOR = diagonal_gaussian(torch.zeros(3), torch.ones(3))


def gaussian(scale: torch.Tensor | float = 0.5):
    loc = torch.tensor([[0.0, 1.0, 2.0], [0.0, -1.0, 0.5]])
    return diagonal_gaussian(loc, torch.full((2, 3), 0.5) * scale / 0.5)


def test_of_a_gaussian_it_is_kingma_and_wellings_formula():
    """Appendix B: ½ Σ (μ² + σ² − 1 − log σ²)."""
    q = gaussian()
    loc, variance = q.mean, q.variance
    expected = 0.5 * (loc.square() + variance - 1 - variance.log())
    torch.testing.assert_close(divergence_by_latent(q, PRIOR), expected)
    torch.testing.assert_close(divergence(q, PRIOR), expected.sum(-1))


def test_of_bernoulli_latents_it_is_log_two_less_their_entropy():
    q = Independent(Bernoulli(torch.tensor([[0.1, 0.5], [0.0, 1.0]])), 1)
    p = Independent(Bernoulli(torch.tensor([0.5, 0.5])), 1)
    expected = 2 * torch.tensor(2.0).log() - q.entropy()
    torch.testing.assert_close(divergence(q, p), expected)


def objective(free_bits: float, scale: torch.Tensor, name: str = "pathwise") -> torch.Tensor:
    target = Target(lambda z: 0 * z.sum(-1), PRIOR, free_bits=free_bits)
    noise = standard_normal(2, 3, torch.Generator())
    return -ESTIMATORS[name](target, gaussian(scale), noise, 2)


def test_free_bits_are_a_floor_of_each_latents_mean_kl():
    """Σ_l max(λ, mean_b KL_bl), as a mean over the batch (Kingma et al. 2016, eq. 15)."""
    scale = torch.tensor(0.5)
    by_latent = divergence_by_latent(gaussian(scale), PRIOR).mean(0)
    for free_bits in (0.0, 0.4, 0.9, 10.0):
        expected = by_latent.clamp(min=free_bits).sum()
        torch.testing.assert_close(objective(free_bits, scale).mean(), expected)


def test_free_bits_have_no_gradient_where_they_are_free():
    scale = torch.tensor(0.5, requires_grad=True)
    (all_free,) = torch.autograd.grad(objective(10.0, scale).mean(), scale, allow_unused=True)
    assert all_free is None or all_free == 0
    (none_free,) = torch.autograd.grad(objective(0.01, scale).mean(), scale)
    (plain,) = torch.autograd.grad(objective(0.0, scale).mean(), scale)
    torch.testing.assert_close(none_free, plain)


@pytest.mark.parametrize("name", ["pathwise_sampled_kl", "score_function", "rloo", "iwae"])
def test_free_bits_of_a_sampled_kl_are_refused(name):
    with pytest.raises(BenchError, match="leave out --free-bits"):
        objective(0.5, torch.tensor(0.5), name)


def test_free_bits_of_dependent_latents_are_refused():
    q = MultivariateNormal(torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3))
    with pytest.raises(BenchError, match="MultivariateNormal are not independent"):
        divergence_by_latent(q, PRIOR)
