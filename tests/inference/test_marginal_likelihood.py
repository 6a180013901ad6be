"""log p(x) by importance sampling from a mixture, where it is known: probabilistic PCA."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal

from bench.inference.marginal_likelihood import SPREADS, around, sandwich, weighed
from bench.inference.observations import observations
from bench.inference.probabilistic_pca import exact_posterior, marginal
from vaes import VAE, discover, with_options

D, L = 6, 2
VARIANT = discover().variants["input_dependent"]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(likelihood: str = "gaussian", decoder: str = "linear") -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = with_options(VARIANT, likelihood, decoder)(D, L, 5).double()
    model.requires_grad_(False)
    model.decoder[0].weight.mul_(3)
    return model


@pytest.fixture(scope="module")
def known() -> VAE:
    return made()


def mean_is(values: torch.Tensor, expected: float) -> bool:
    """Within 5 standard errors over independent values: P(false alarm) < 1e-6."""
    return abs(values.mean() - expected) < 5 * values.std() / len(values) ** 0.5


def images(model: VAE, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(count, L, generator=draws(1), dtype=torch.float64)
    return z, observations(model, z, draws(2))[1]


def test_the_curvature_is_the_exact_posterior_s_whatever_the_encoder_says(known):
    _, x = images(known, 3)
    exact = exact_posterior(known, x)
    found = around(known, x, known.posterior(x), draws())
    for spread, gaussian in zip(SPREADS, found, strict=True):
        torch.testing.assert_close(gaussian.covariance_matrix, spread * exact.covariance_matrix)
    off_centre = (found[0].mean - known.posterior(x).mean) / known.posterior(x).stddev
    assert off_centre.abs().max() < 5 / 256**0.5


def test_no_gaussian_is_wider_than_the_prior():
    """A likelihood that rises with distance would make it so."""

    class Rising(VARIANT):
        def log_likelihood(self, x, z):
            return 0.4 * z.square().sum(-1)

    model = Rising(D, L, 5).double()
    first, *_ = around(model, torch.zeros(2, D).double(), model.prior.expand((2,)), draws())
    torch.testing.assert_close(first.covariance_matrix, torch.eye(L).double().expand(2, L, L))


def test_the_mean_weight_is_the_likelihood(known):
    """20,000 images' worth of weights of one image; and each is at most J × that of the best."""
    _, x = images(known, 1)
    x = x.expand(20_000, D)
    proposals = [known.posterior(x), *around(known, x, exact_posterior(known, x), draws())]
    found = weighed(known, x, proposals, draws(3), 1)
    ratios = (found.log_weights() - marginal(known).log_prob(x)).exp().mean((0, 1))
    assert mean_is(ratios, 1)
    q = proposals[0]
    assert found.joint.shape == (4, 1, 20_000)
    exact = exact_posterior(known, x[:1])
    kl = torch.distributions.kl_divergence(
        MultivariateNormal(q.mean[:1], torch.diag_embed(q.variance[:1])), exact
    )
    assert mean_is(found.elbo(0), (marginal(known).log_prob(x[:1]) - kl).item())


def test_proposals_that_hold_the_posterior_bound_the_weights(known):
    _, x = images(known, 50)
    found = weighed(known, x, [known.posterior(x), exact_posterior(known, x)], draws(), 40)
    excess = found.log_weights() - marginal(known).log_prob(x)
    assert (excess <= torch.tensor(2.0).log() + 1e-9).all()


def test_the_sandwich_holds_the_exact_likelihood(known):
    """20,000 simulated images, K = 6: E[1/ŵ] = 1/p(x) with the code among the samples, hence the
    upper bound; without, E[ŵ] = p(x), hence the lower; both are far from tight."""
    code, x = images(known, 20_000)
    exact = exact_posterior(known, x)
    narrow = MultivariateNormal(exact.loc, 0.1 * exact.covariance_matrix)
    proposals = [known.posterior(x), narrow, known.prior.expand((len(x),))]
    lower, upper = sandwich(known, x, code, proposals, draws(4), 2)
    exact = marginal(known).log_prob(x)
    assert mean_is((lower - exact).exp(), 1)
    assert mean_is((exact - upper).exp(), 1)
    assert (exact - lower).mean() > 0.05
    assert (upper - exact).mean() > 0.05


def test_more_samples_close_the_sandwich(known):
    code, x = images(known, 500)
    proposals = [known.posterior(x), *around(known, x, exact_posterior(known, x), draws())]
    lower, upper = sandwich(known, x, code, proposals, draws(), 200)
    assert 0 < (upper - lower).mean() < 0.02
