"""Richer posteriors and the locally optimised one, against closed forms and quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, TransformedDistribution, kl_divergence

from bench.config import Run
from bench.inference.probabilistic_pca import exact_posterior, marginal
from bench.inference.refit import fit_posterior
from bench.questions.flexibility.measure import gaps
from bench.randomness import generator
from bench.training.loop import build
from vaes import VAE, discover, with_options

VARIANTS = discover().variants
D, L, B = 6, 2, 4


def ppca_model(name: str) -> VAE:
    """A probabilistic PCA model with correlated posteriors and an untrained encoder, float64."""
    variant = with_options(VARIANTS[name], "gaussian", "linear")
    run = Run(name, "toy", seed=0, epochs=1, latent_dim=L, hidden_dim=8)
    model = build(run, variant, torch.linspace(-0.3, 0.3, D)).double()
    weight = torch.randn(D, L, generator=generator("cpu", "weight"), dtype=torch.float64)
    weight[:, 1] += weight[:, 0]
    with torch.no_grad():
        model.decoder[0].weight.copy_(weight)
        model.log_noise.fill_(math.log(0.8))
    return model


def bent(name: str) -> VAE:
    """A variant whose every parameter is away from its start."""
    run = Run(name, "toy", seed=0, epochs=1, latent_dim=L, hidden_dim=8)
    model = build(run, VARIANTS[name], torch.full((D,), 0.5)).double()
    noise = generator("cpu", "bend")
    with torch.no_grad():
        for parameter in model.parameters():
            bend = torch.randn(parameter.shape, generator=noise, dtype=torch.float64)
            parameter.add_(0.4 * bend)
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(B, D, generator=generator("cpu", "x"), dtype=torch.float64)


@pytest.mark.parametrize("name", ["full_covariance", "flow"])
def test_training_starts_from_the_diagonal_posterior(name, x):
    run = Run(name, "toy", seed=0, epochs=1, latent_dim=L, hidden_dim=8)
    ours, diagonal = (
        build(run, VARIANTS[n], torch.full((D,), 0.5)).double().posterior(x)
        for n in (name, "input_dependent")
    )
    z = torch.randn(5, B, L, generator=generator("cpu", "z"), dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(z), diagonal.log_prob(z))


def test_kl_of_the_full_covariance_to_the_prior_is_that_between_gaussians(x):
    model = bent("full_covariance")
    posterior = model.posterior(x)
    eye = torch.eye(L, dtype=torch.float64)
    expected = kl_divergence(posterior, MultivariateNormal(torch.zeros_like(posterior.loc), eye))
    torch.testing.assert_close(kl_divergence(posterior, model.prior), expected)
    assert posterior.covariance_matrix[:, 0, 1].abs().min() > 1e-3


@pytest.mark.parametrize("name", ["full_covariance", "flow"])
def test_the_density_integrates_to_one(name, x):
    """Trapezoid rule on 1201² points, to twenty standard deviations: a flow has tails."""
    posterior = bent(name).posterior(x[:1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sample = posterior.sample((2000,))[:, 0]
    axes = [
        torch.linspace(m - 20 * s, m + 20 * s, 1201, dtype=torch.float64)
        for m, s in zip(sample.mean(0), sample.std(0))
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 1, L)
    density = posterior.log_prob(grid).exp().reshape(1201, 1201)
    cell = torch.stack([axis[1] - axis[0] for axis in axes]).prod()
    assert (density.sum() * cell).item() == pytest.approx(1, abs=1e-3)


def test_coupling_layers_invert_and_know_their_jacobian(x):
    posterior = bent("flow").posterior(x)
    z = torch.randn(B, L, generator=generator("cpu", "z"), dtype=torch.float64)
    for layer in posterior.transforms:
        y = layer(z)
        torch.testing.assert_close(layer.inv(y), z)
        jacobian = torch.autograd.functional.jacobian(lambda v, f=layer: f(v).sum(0), z)
        expected = jacobian.movedim(0, 1).slogdet().logabsdet
        torch.testing.assert_close(layer.log_abs_det_jacobian(z, y), expected)
        z = y


def test_the_one_pass_log_density_is_the_generic_one(x):
    posterior = bent("flow").posterior(x)
    z = posterior.rsample((3,))
    generic = TransformedDistribution(posterior.base_dist, posterior.transforms)
    torch.testing.assert_close(posterior.log_prob(z), generic.log_prob(z))


def test_marginal_and_posterior_of_probabilistic_pca_agree(x):
    """log p(x, z) − log p(z|x) = log p(x) at any z."""
    model = ppca_model("full_covariance")
    z = torch.randn(3, B, L, generator=generator("cpu", "z"), dtype=torch.float64)
    joint = model.log_likelihood(x, z) + model.prior.log_prob(z)
    evidence = joint - exact_posterior(model, x).log_prob(z)
    torch.testing.assert_close(evidence, marginal(model).log_prob(x).expand(3, B))


def test_full_covariance_is_fitted_to_the_exact_posterior(x):
    model = ppca_model("full_covariance")
    fitted = fit_posterior(model, x, generator("cpu", "fit"), steps=1500, samples=8)
    exact = exact_posterior(model, x)
    torch.testing.assert_close(fitted.loc, exact.loc, atol=0.02, rtol=0)
    torch.testing.assert_close(fitted.covariance_matrix, exact.covariance_matrix, atol=0.02, rtol=0)


def test_the_diagonal_is_fitted_to_the_mean_field_optimum(x):
    """Mean of the exact posterior, variances 1 / Λ_ll of its precision Λ (Bishop 2006, 10.1.2)."""
    model = ppca_model("input_dependent")
    fitted = fit_posterior(model, x, generator("cpu", "fit"), steps=1000, samples=64)
    exact = exact_posterior(model, x)
    torch.testing.assert_close(fitted.mean, exact.mean, atol=0.05, rtol=0)
    variances = 1 / exact.precision_matrix.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(fitted.variance, variances, atol=0.05, rtol=0)


def test_a_code_far_from_the_encoders_is_reached_at_a_larger_rate(x):
    """300 steps at 0.03, falling linearly, cannot go further than 4.5; at 0.3 45."""
    model = ppca_model("full_covariance")
    far = 10 * x
    exact, start = exact_posterior(model, far).loc, model.posterior(far).mean
    assert (exact - start).abs().max() > 6
    fits = [
        fit_posterior(model, far, generator("cpu", "fit"), 300, samples=2, vector_rate=rate)
        for rate in (0.03, 0.3)
    ]
    errors = [(fitted.loc - exact).abs().max() for fitted in fits]
    assert errors[0] > 1
    assert errors[1] < 0.1


@pytest.mark.parametrize("name", ["fixed_variance", "learned_diagonal"])
def test_what_images_share_is_not_fitted(name, x):
    model = ppca_model(name)
    fitted = fit_posterior(model, x, generator("cpu", "fit"), steps=600, samples=32)
    torch.testing.assert_close(fitted.stddev, model.posterior(x).stddev)
    torch.testing.assert_close(fitted.mean, exact_posterior(model, x).mean, atol=0.1, rtol=0)


def test_gaps_of_probabilistic_pca(x):
    """The mean-field family misses ½(Σ log Λ_ll − log |Λ|) and the encoder the rest.

    With 4,000 samples of each proposal the standard errors are below 0.03 nats, tolerance 0.15; of
    log p(x), whose proposals have the exact curvature, below 0.006, tolerance 0.03.
    """
    model = ppca_model("input_dependent")
    fitted = fit_posterior(model, x, generator("cpu", "fit"), steps=600, samples=8)
    found = gaps(model, x, fitted, generator("cpu", "gaps"), draws=4000)
    precision = exact_posterior(model, x).precision_matrix
    family = 0.5 * (precision.diagonal(dim1=-2, dim2=-1).log().sum(-1) - precision.logdet())
    assert family.min() > 0.3
    evidence = marginal(model).log_prob(x)
    torch.testing.assert_close(found["log_likelihood"][0], evidence, atol=0.03, rtol=0)
    torch.testing.assert_close(found["approximation_gap"][0], family, atol=0.15, rtol=0)
    q = model.posterior(x)
    as_full = MultivariateNormal(q.mean, scale_tril=q.stddev.diag_embed())
    missed = kl_divergence(as_full, exact_posterior(model, x))
    torch.testing.assert_close(found["inference_gap"][0], missed, atol=0.15, rtol=0.05)
