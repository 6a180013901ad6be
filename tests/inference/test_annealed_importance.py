"""Annealed importance sampling where log p(x) is known: probabilistic PCA."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from bench.inference import annealed_importance
from bench.inference.annealed_importance import annealed_importance as run
from bench.inference.annealed_importance import schedule
from bench.inference.importance import iw_bound
from bench.inference.probabilistic_pca import exact_posterior, marginal
from vaes import discover, with_options

B, D, L = 4, 6, 3


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def known():
    """A linear-Gaussian model, images of it, and z → log p(x, z); its posteriors have σ ≈ ½."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        variant = with_options(discover().variants["input_dependent"], "gaussian", "linear")
        model = variant(D, L, 5).double()
        model.requires_grad_(False)
        model.decoder[0].weight.mul_(3)
        x = marginal(model).sample((B,)) + 0.5
    return model, x, lambda z: model.prior.log_prob(z) + model.log_likelihood(x, z)


def anneal(known, chains: int, temperatures: int, seed: int = 0, step_size: float = 0.3):
    model, _, log_joint = known
    prior = model.prior.expand((B,))
    scale = torch.ones(B, L, dtype=torch.float64)
    return run(log_joint, prior, draws(seed), chains, temperatures, scale, step_size)


def test_from_the_prior_it_finds_the_exact_log_likelihood(known):
    """By 400 chains an image, each within 5 of its standard errors: P(false alarm) < 1e-5."""
    model, x, _ = known
    found = anneal(known, 400, 60)
    weights = (found.log_weights - marginal(model).log_prob(x)).exp()
    error = weights.std(0) / math.sqrt(len(weights))
    assert ((weights.mean(0) - 1).abs() < 5 * error).all()
    assert error.max() < 0.05
    assert (found.acceptance > 0.6).all()


def test_on_average_its_logarithm_is_below(known):
    """Few temperatures, 2,000 chains: the mean of log w is below by more than 10 standard errors,
    and the log of a mean of ten of them by less than that of one."""
    model, x, _ = known
    exact = marginal(model).log_prob(x)
    log_weights = anneal(known, 2000, 4).log_weights
    slack = exact - log_weights.mean(0)
    assert (slack > 10 * log_weights.std(0) / math.sqrt(2000)).all()
    of_ten = exact - iw_bound(log_weights.view(10, 200, B)).mean(0)
    assert (of_ten < slack).all()


def test_from_the_exact_posterior_every_weight_is_exact(known):
    model, x, log_joint = known
    q = exact_posterior(model, x)
    scale = q.stddev
    found = run(log_joint, q, draws(), 3, 5, scale, 0.3)
    exact = marginal(model).log_prob(x)
    torch.testing.assert_close(found.log_weights, exact.expand(3, -1), rtol=0, atol=1e-9)


def test_transitions_bring_the_chains_to_the_posterior(known, monkeypatch):
    """More temperatures narrow the weights only if chains follow: without a move they would not."""
    model, x, _ = known
    slack = [
        (marginal(model).log_prob(x) - anneal(known, 200, t).log_weights.mean(0)).mean()
        for t in (5, 50)
    ]
    assert slack[1] < 0.2 * slack[0]
    monkeypatch.setattr(annealed_importance, "LEAPFROG_STEPS", 0)
    still = anneal(known, 200, 50).log_weights.mean(0)
    assert (marginal(model).log_prob(x) - still).mean() > slack[0]


def test_a_trajectory_that_diverges_is_refused(known):
    found = anneal(known, 5, 10, step_size=1e6)
    assert found.log_weights.isfinite().all()
    assert (found.acceptance == 0).all()


def test_it_starts_at_one_density_and_ends_at_the_other():
    betas = schedule(150)
    assert (betas[0], betas[-1], len(betas)) == (0, 1, 151)
    assert all(low < high for low, high in pairwise(betas))
