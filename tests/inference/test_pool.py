"""Estimates from a pool of samples, and what independent ones tell of signal and variance."""

from __future__ import annotations

import pytest
import torch

from bench.errors import BenchError
from bench.inference.gradient_variance import Moments, PosteriorGradient, gradients_of, signal
from bench.inference.gradients import ESTIMATORS, of_bound
from bench.inference.pool import Pool
from bench.inference.reparameterize import reparameterize
from bench.inference.target import Target
from tests.posteriors import Mixture, perturbed
from vaes import discover

IMAGES, N = 3, 24


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["input_dependent", "full_covariance"])
def gradient(request):
    model = perturbed(discover().variants[request.param]).double()
    x = torch.bernoulli(torch.full((IMAGES, model.data_dim), 0.4).double(), generator=seeded(1))
    return PosteriorGradient.from_model(model, x)


def noise_of(gradient):
    """What a pool from the same seed draws."""
    shape = N, IMAGES, gradient.model.latent_dim
    return torch.randn(shape, generator=seeded(), dtype=torch.float64)


def test_signal_is_the_mean_product_of_two_estimates_and_variance_the_trace(gradient):
    """Every pair of different estimates, and tr(C G), whether added at once or in parts."""
    g = Pool(gradient, N).draw(seeded()).gradients(ESTIMATORS["iwae"], 4)
    moments = Moments(gradient)
    for part in (slice(0, 1), slice(1, None)):
        moments.add({path: v[part] for path, v in g.items()})
    found = moments.variance()
    flat = torch.cat([*gradient.bound(g).values()], -1)[..., gradient.places]
    for image, gram in enumerate(gradient.gram):
        own = flat[:, image]
        products = own @ gram @ own.T
        pairs = len(own) * (len(own) - 1)
        expected = (products.sum() - products.trace()) / pairs
        its = signal(gradient, found)[image]
        torch.testing.assert_close(its, expected, rtol=1e-9, atol=1e-9)
        trace = (torch.cov(own.T) @ gram).trace()
        torch.testing.assert_close(found.per_image[0, image], trace)


@pytest.mark.parametrize("samples", [1, 4, 24])
@pytest.mark.parametrize("name", of_bound("iw_bound"))
def test_estimates_of_a_pool_are_those_of_its_samples(gradient, name, samples):
    """The k-th sample of estimate r is the pool's of place k R + r, decoded by the model itself."""
    pool, replicates = Pool(gradient, N).draw(seeded()), N // samples
    found = pool.gradients(ESTIMATORS[name], samples)
    noise = noise_of(gradient)
    for r in range(replicates):
        posterior, parameters = gradient.repeated_posterior(1)
        own = noise[r::replicates]
        model, x = gradient.model, gradient.x
        target = Target(lambda z, model=model, x=x: model.log_likelihood(x, z), model.prior)
        surrogate = ESTIMATORS[name](target, posterior, lambda n, own=own: own, samples)
        for path, expected in gradients_of(surrogate, parameters).items():
            torch.testing.assert_close(found[path][r], expected.reshape(IMAGES, -1))


def test_the_weights_of_a_pool_are_those_of_the_elbo(gradient):
    model, x = gradient.model, gradient.x
    posterior = model.posterior(x)
    target = Target(lambda z: model.log_likelihood(x, z), model.prior)
    expected = target.log_weight(posterior, reparameterize(posterior, noise_of(gradient)))
    torch.testing.assert_close(Pool(gradient, N).draw(seeded()).log_weights, expected)


def test_a_posterior_that_is_no_map_of_noise_has_no_pool():
    model = perturbed(Mixture)
    gradient = PosteriorGradient.from_model(model, torch.ones(2, model.data_dim))
    with pytest.raises(BenchError, match="not a map of standard normal noise"):
        Pool(gradient, 4).draw(seeded())
