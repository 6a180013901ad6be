"""Real-valued data: the data set `ppca`, the Gaussian likelihood, the linear decoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import load
from bench.data.synthetic import generating_model
from bench.errors import BenchError
from bench.grid.runner import key_of
from bench.grid.tasks import Task
from bench.inference.probabilistic_pca import best_of_scale, exact_posterior, marginal
from bench.questions.exact_likelihood.measure import measure
from bench.training.loop import build
from tests.subjects import subject
from vaes import VAE, discover, with_options
from vaes._likelihoods import GaussianLikelihood
from vaes._networks import LinearDecoder

VARIANTS = discover().variants


def test_the_data_are_draws_of_the_generating_model():
    """Mahalanobis distances have mean D and variance 2D: 10,000 of them, 5 s.e. (P < 1e-6)."""
    data, model = load("ppca"), generating_model()
    assert data.binarization == "real"
    x = as_float(data.train).double()
    centred = x - model.loc
    distances = (centred @ model.precision_matrix * centred).sum(1)
    d = x.shape[1]
    assert abs(distances.mean().item() - d) < 5 * (2 * d / len(x)) ** 0.5
    entropy = model.entropy().item()
    assert -model.log_prob(x).mean().item() == pytest.approx(entropy, abs=5 * (d / 2 / 1e4) ** 0.5)


def test_the_data_are_the_same_each_time():
    first, second = load("ppca"), load("ppca")
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first.test, second.test)


def test_real_data_have_no_binarization():
    with pytest.raises(BenchError, match=r"real-valued.*--binarize"):
        load("ppca", binarize="threshold")


def made(name: str, likelihood: str = "gaussian", decoder: str = "linear"):
    run = Run(name, "toy", 0, 1, latent_dim=3, hidden_dim=8)
    mean = torch.linspace(-2, 2, 7)
    return build(run, with_options(VARIANTS[name], likelihood, decoder), mean), mean


@pytest.mark.parametrize("name", VARIANTS)
def test_gaussian_likelihood_is_that_of_torch(name):
    model, mean = made(name)
    with torch.no_grad():
        model.log_noise.fill_(-0.7)
    x, z = torch.randn(5, 7), torch.randn(2, 5, 3)
    expected = Normal(model.decode(z), model.log_noise.exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(model.log_likelihood(x, z), expected)
    assert torch.equal(model.decoder[-1].bias, mean)
    model.log_likelihood(x, z).sum().backward()
    assert model.log_noise.grad.abs() > 0


@pytest.mark.parametrize("name", VARIANTS)
def test_options_keep_the_variant_and_its_shared_start(name):
    model, _ = made(name)
    assert isinstance(model, VARIANTS[name])
    assert isinstance(model, VAE) == issubclass(VARIANTS[name], VAE)
    assert isinstance(model, GaussianLikelihood)
    assert isinstance(model, LinearDecoder)
    reference, _ = made("autoencoder")
    for key, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_the_defaults_are_the_variant_itself():
    assert with_options(VARIANTS["flow"], "bernoulli", "mlp") is VARIANTS["flow"]


def test_options_are_part_of_the_cache_key():
    run = Run("flow", "toy", 0, 1)
    runs = [run, run.with_(likelihood="gaussian"), run.with_(decoder="linear")]
    assert len({key_of(Task(r), VARIANTS["flow"], "data") for r in runs}) == 3


def test_the_best_model_of_a_constant_variance_is_that_of_its_elbo():
    """No lengths, axes or noise beside it have a higher one; and it is log p(x) less the KL of q
    from the exact posterior, as a model of these weights has it."""
    x, scale = as_float(load("ppca").train[:2000]), 0.3
    p, divergence = best_of_scale(x, 4, scale)

    def elbo(weight, noise):
        model = with_options(VARIANTS["input_dependent"], "gaussian", "linear")(20, 4, 5).double()
        with torch.no_grad():
            model.decoder[0].weight.copy_(weight)
            model.decoder[0].bias.copy_(p.loc)
            model.log_noise.copy_(noise.log())
        exact = exact_posterior(model, x)
        q = MultivariateNormal(exact.mean, scale**2 * torch.eye(4).double())
        kl = kl_divergence(q, exact)
        return (marginal(model).log_prob(x.double()) - kl).mean().item(), kl.mean().item()

    weight, noise = p.cov_factor, p.cov_diag[0].sqrt()
    best, kl = elbo(weight, noise)
    assert kl == pytest.approx(divergence, rel=1e-6)
    assert best == pytest.approx(p.log_prob(x.double()).mean().item() - divergence, rel=1e-9)
    turned, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    for other in (0.97 * weight, 1.03 * weight, weight @ turned.double()):
        assert elbo(other, noise)[0] < best
    for factor in (0.98, 1.02):
        assert elbo(weight, factor * noise)[0] < best


@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if issubclass(v, VAE)])
def test_every_variant_is_measured_and_theory_predicts_of_a_constant_variance_alone(name):
    data = load("ppca")
    scale = (("scale", 0.3),) if name == "fixed_variance" else ()
    torch.manual_seed(0)
    variant = with_options(VARIANTS[name], "gaussian", "linear")
    found = subject(name, data=data, likelihood="gaussian", decoder="linear", hyperparameters=scale)
    weights = variant(20, found.run.latent_dim, found.run.hidden_dim, **dict(scale)).state_dict()
    found.trained.checkpoints.update(dict.fromkeys(found.trained.checkpoints, weights))
    rows = measure(replace(found, variant=variant), samples=2).rows
    metrics = {row.metric for row in rows}
    assert {"elbo", "exact_gap", "maximum_likelihood"} <= metrics
    assert ("predicted_elbo_difference" in metrics) == (name == "fixed_variance")
