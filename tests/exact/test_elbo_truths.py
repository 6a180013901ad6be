"""Bounds of log p(x) against models whose log p(x) is known.

Linear-Gaussian model: p(z) = N(0, I), p(x|z) = N(Wz + b, s² I), so that p(x) = N(b, WWᵀ + s² I)
and p(z|x) = N(μ*, Σ*) with Σ* = (I + WᵀW/s²)⁻¹ and μ* = Σ* Wᵀ(x − b)/s².
Bernoulli model: L = 1 or 2, log p(x) by Gauss–Hermite quadrature.

Statistical tests allow 4 standard errors: a correct estimator fails one comparison with
probability under 1e-4 (6e-5 if its error is normal), and the seeds are fixed.
"""

import math

import numpy as np
import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    kl_divergence,
)

from bench.inference.elbo import elbo_estimate, elbo_terms, integrands, mean_elbo
from bench.inference.importance import log_weights
from bench.inference.reparameterize import standard_normal
from bench.questions.averages import monte_carlo_mean
from bench.questions.headline.measure import iw_bounds
from bench.questions.loss_noise.measure import jackknife, variance_over_noise
from bench.randomness import generator
from vaes import VAE, discover
from vaes.base import diagonal_gaussian

LATENT, PIXELS, SCALE = 3, 6, 0.7
ERRORS = 4


class LinearGaussian(VAE):
    """The linear-Gaussian model with its exact posterior, in float64.

    The posterior is a Gaussian behind no transform, of which torch knows no KL, so that every
    bound samples it.
    """

    def __init__(self) -> None:
        super().__init__(PIXELS, LATENT, hidden_dim=2)
        rng = generator("cpu", "linear-Gaussian")
        self.weight = torch.randn(PIXELS, LATENT, generator=rng, dtype=torch.float64)
        self.bias = torch.randn(PIXELS, generator=rng, dtype=torch.float64)
        self.precision = torch.eye(LATENT) + self.weight.T @ self.weight / SCALE**2
        self.covariance = torch.linalg.inv(self.precision)
        self.double()

    def decode(self, z):
        return z @ self.weight.T + self.bias

    def log_likelihood(self, x, z):
        return Normal(self.decode(z), SCALE).log_prob(x).sum(-1)

    def mean(self, x):
        return (x - self.bias) @ self.weight @ self.covariance / SCALE**2

    def posterior(self, x):
        return TransformedDistribution(MultivariateNormal(self.mean(x), self.covariance), [])

    def log_evidence(self, x):
        covariance = self.weight @ self.weight.T + SCALE**2 * torch.eye(PIXELS, dtype=torch.float64)
        return MultivariateNormal(self.bias, covariance).log_prob(x)


class ClosedForm(LinearGaussian):
    """The same with posterior and prior of one family, so that torch knows the KL."""

    @property
    def prior(self):
        return MultivariateNormal(self.prior_loc, torch.eye(LATENT, dtype=torch.float64))

    def posterior(self, x):
        return super().posterior(x).base_dist


class BestDiagonal(LinearGaussian):
    """The diagonal posterior of highest ELBO: variances 1 / (Σ*⁻¹)_jj, stretched by a factor."""

    stretch = 1.0

    def posterior(self, x):
        scale = self.stretch / self.precision.diagonal().sqrt()
        return diagonal_gaussian(self.mean(x), scale.expand(len(x), LATENT))


def observations(count):
    rng = generator("cpu", "observations")
    return 2 * torch.randn(count, PIXELS, generator=rng, dtype=torch.float64)


def double_normal(batch, seed=0):
    noise = standard_normal(batch, LATENT, generator("cpu", "noise", seed))
    return lambda n: noise(n).double()


def exact_noise(batch):
    """±√L e_j: their mean and covariance are those of N(0, I), so a quadratic's mean is exact."""
    points = math.sqrt(LATENT) * torch.eye(LATENT, dtype=torch.float64)
    points = torch.cat([points, -points]).unsqueeze(1).expand(-1, batch, -1)
    return lambda n: points


def test_sampled_elbo_at_the_exact_posterior_is_log_evidence_without_variance():
    model, x = LinearGaussian(), observations(5)
    distortion, rate = elbo_terms(model, x, double_normal(5), samples=100)
    elbo = -(distortion + rate)
    assert distortion.std(0).min() > 0.1  # the parts do vary, only their sum does not
    torch.testing.assert_close(elbo, model.log_evidence(x).expand(100, 5), atol=1e-9, rtol=0)


def test_analytic_elbo_at_the_exact_posterior_is_log_evidence():
    model, x = ClosedForm(), observations(5)
    distortion, rate = elbo_terms(model, x, exact_noise(5), samples=2 * LATENT)
    assert (rate == rate[0]).all()
    elbo = -(distortion + rate).mean(0)
    torch.testing.assert_close(elbo, model.log_evidence(x), atol=1e-6, rtol=0)


def test_every_weight_at_the_exact_posterior_is_the_evidence():
    model, x = LinearGaussian(), observations(5)
    w = log_weights(model, x, double_normal(5), samples=7, at_once=3)
    assert w.shape == (7, 5)
    torch.testing.assert_close(w, model.log_evidence(x).expand(7, 5), atol=1e-9, rtol=0)


def test_the_best_diagonal_posterior_misses_by_half_the_log_ratio_of_volumes():
    """log p(x) − ELBO = KL(q || p*) = ½[Σ log(Σ*⁻¹)_jj + log|Σ*|] where means agree."""
    model, x = BestDiagonal(), observations(5)
    gap = 0.5 * (model.precision.diagonal().log().sum() + torch.logdet(model.covariance))
    assert gap > 0.01

    def elbo():
        distortion, rate = elbo_terms(model, x, exact_noise(5), samples=2 * LATENT)
        return -(distortion + rate).mean(0)

    torch.testing.assert_close(model.log_evidence(x) - elbo(), gap.expand(5), atol=1e-9, rtol=0)
    best = elbo()
    for stretch in (0.9, 1.1):
        model.stretch = stretch
        assert (elbo() < best - 1e-3).all()


def bound_rows(model, x, ks):
    """L_K of each K; the error of the largest is found from all images once more."""
    bounds, _ = iw_bounds(model, x, generator("cpu", "iw"), ks, torch.arange(len(x)))
    return [monte_carlo_mean("iw_bound", *bounds[k][:2], {"K": k}) for k in ks]


@pytest.mark.parametrize("stretch", [1.0, 1.3])
def test_iw_bounds_rise_to_the_evidence_of_the_linear_gaussian_model(stretch):
    model, x = BestDiagonal(), observations(4)
    model.stretch = stretch
    rows = bound_rows(model, x, (1, 10, 1000))
    exact = model.log_evidence(x).mean().item()
    values = [row.value for row in rows]
    assert values == sorted(values)
    assert all(row.value < exact + ERRORS * row.standard_error for row in rows)
    # the bias at K is some Var(w) / 2K, below 0.002 here
    assert abs(values[-1] - exact) < ERRORS * rows[-1].standard_error + 0.002
    assert exact - values[0] > 0.05


def quadratic_form(model, x):
    """log p(x|z) at z = μ* + Cε, CCᵀ = Σ*, is c + gᵀε − ½ εᵀAε; g `(B, L)` and A `(L, L)`."""
    root = torch.linalg.cholesky(model.covariance)
    residual = x - model.decode(model.mean(x))
    g = residual @ model.weight @ root / SCALE**2
    return g, root.T @ model.weight.T @ model.weight @ root / SCALE**2


@pytest.mark.parametrize(
    ("sampling", "samples"),
    [
        ("independent", 1),
        ("independent", 4),
        ("independent", 16),
        ("antithetic", 2),
        ("antithetic", 16),
    ],
)
def test_variance_of_the_analytic_kl_elbo_is_that_of_its_quadratic_form(sampling, samples):
    """Var[gᵀε − ½ εᵀAε] = ‖g‖² + ½ tr A²: odd and even parts of ε are uncorrelated, and
    Var[εᵀAε] = 2 tr A². S independent samples divide it by S; in S/2 antithetic pairs the odd
    part cancels and ½ tr A² is divided by S/2.
    """
    model, x = ClosedForm(), observations(1).expand(200, -1)  # copies: 200 independent batches
    g, a = quadratic_form(model, x[:1])
    linear, quadratic = g.square().sum().item(), 0.5 * a.square().sum().item()
    exact = {
        "independent": (linear + quadratic) / samples,
        "antithetic": 2 * quadratic / samples,
    }[sampling]
    rng = generator("cpu", "quadratic", sampling)
    pool = integrands(model, x, sampling, 16, 40, rng)["analytic"]
    value, error = jackknife(lambda v: v[0], variance_over_noise(pool, samples)[None])
    assert error < 0.05 * exact
    assert abs(value - exact) < ERRORS * error


@pytest.mark.parametrize("sampling", ["independent", "antithetic", "sobol"])
def test_sampled_kl_elbo_has_no_variance_at_the_exact_posterior(sampling):
    model, x = LinearGaussian(), observations(3)
    rng = generator("cpu", "zero", sampling)
    pool = integrands(model, x, sampling, 16, 8, rng)["sampled"]
    assert variance_over_noise(pool, 4).max() < 1e-20
    estimate = elbo_estimate(model, x, "sampled", sampling, 16, rng)
    torch.testing.assert_close(estimate, model.log_evidence(x), atol=1e-9, rtol=0)


def bernoulli_model(latent_dim):
    """A small input-dependent VAE whose posterior is deliberately not p(z|x)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(latent_dim)
        model = discover().variants["input_dependent"](8, latent_dim, 16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
        model.log_scale.bias.zero_()  # too narrow a proposal has importance weights without end
    return model.double().eval()


def binary_images(count):
    return torch.bernoulli(
        torch.full((count, 8), 0.5, dtype=torch.float64), generator=generator("cpu", "binary")
    )


def normal_quadrature(latent_dim, nodes=60):
    """Points `(n, L)` and log weights `(n,)` of E over N(0, I_L)."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    points, weights = torch.tensor(points), torch.tensor(weights / weights.sum()).log()
    grid = torch.cartesian_prod(*[points] * latent_dim).view(-1, latent_dim)
    return grid, torch.cartesian_prod(*[weights] * latent_dim).view(len(grid), -1).sum(1)


def exact_log_likelihood(model, x, z):
    return Bernoulli(logits=model.decode(z), validate_args=False).log_prob(x).sum(-1)


@torch.no_grad()
def exact_log_evidence(model, x):
    z, log_weight = normal_quadrature(model.latent_dim)
    z = z.unsqueeze(1).expand(-1, len(x), -1)
    return (exact_log_likelihood(model, x, z) + log_weight.unsqueeze(1)).logsumexp(0)


@torch.no_grad()
def exact_elbo(model, x):
    noise, log_weight = normal_quadrature(model.latent_dim)
    posterior = model.posterior(x)
    q = posterior.base_dist
    z = q.loc + q.scale * noise.unsqueeze(1)
    mean = (log_weight.exp().unsqueeze(1) * exact_log_likelihood(model, x, z)).sum(0)
    kl = 0.5 * (q.scale.square() + q.loc.square() - 1 - 2 * q.scale.log()).sum(-1)
    return mean - kl


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_elbo_and_iw_bounds_of_a_bernoulli_model_against_quadrature(latent_dim):
    model, x = bernoulli_model(latent_dim), binary_images(6)
    evidence = exact_log_evidence(model, x).mean().item()
    elbo = exact_elbo(model, x).mean().item()
    assert evidence - elbo > 0.05

    found, errors = mean_elbo(model, x, generator("cpu", "elbo"), 5000, at_once=1)["elbo"]
    error = errors.square().sum().sqrt().item() / len(x)
    assert abs(found.mean().item() - elbo) < ERRORS * error

    rows = bound_rows(model, x, (1, 10, 100, 5000))
    for row in rows:
        assert elbo - ERRORS * row.standard_error <= row.value
        assert row.value <= evidence + ERRORS * row.standard_error
    assert rows[0].value < rows[1].value < rows[2].value
    assert abs(rows[-1].value - evidence) < ERRORS * rows[-1].standard_error + 1e-3
    assert rows[-1].standard_error < 0.02


@pytest.mark.parametrize("sampling", ["independent", "antithetic", "sobol"])
@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("samples", [2, 16])
def test_every_elbo_estimator_is_unbiased(kl, sampling, samples):
    model, image = bernoulli_model(2), binary_images(1)
    x = image.expand(4000, -1)  # copies: each has noise of its own
    rng = generator("cpu", "unbiased", kl, sampling)
    estimates = torch.cat([elbo_estimate(model, x, kl, sampling, samples, rng) for _ in range(5)])
    error = estimates.std() / math.sqrt(len(estimates))
    assert error < 0.05
    assert (estimates.mean() - exact_elbo(model, image)).abs() < ERRORS * error


def variants_with_closed_form_kl():
    return [name for name, variant in discover().variants.items() if issubclass(variant, VAE)]


@pytest.mark.parametrize("name", variants_with_closed_form_kl())
def test_sampled_kl_agrees_with_the_analytic_one(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = discover().variants[name](8, 3, 16).double().eval()
    x = binary_images(5)
    posterior = model.posterior(x)
    try:
        analytic = kl_divergence(posterior, model.prior)
    except NotImplementedError:
        pytest.skip(f"torch knows no KL of {type(posterior).__name__}")
    pool = integrands(model, x, "independent", 5000, 4, generator("cpu", "kl"))
    rate = (pool["analytic"] - pool["sampled"]).flatten(0, 1) + analytic
    error = rate.std(0) / math.sqrt(len(rate))
    assert ((rate.mean(0) - analytic).abs() < ERRORS * error).all()
    if isinstance(posterior, Independent):
        q = posterior.base_dist
        by_hand = 0.5 * (q.scale.square() + q.loc.square() - 1 - 2 * q.scale.log()).sum(-1)
        torch.testing.assert_close(analytic, by_hand)


def test_the_rate_of_elbo_terms_is_the_kl():
    model, x = bernoulli_model(2), binary_images(5)
    noise = standard_normal(5, 2, generator("cpu", "rate"))
    _, rate = elbo_terms(model, x, noise, samples=3)
    analytic = kl_divergence(model.posterior(x), model.prior)
    torch.testing.assert_close(rate, analytic.detach().expand(3, 5))
