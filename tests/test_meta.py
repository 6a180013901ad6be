"""Placement proven without a GPU: every tensor on PyTorch's `meta` device.

There, a tensor forgotten on the CPU raises, and so does anything that waits for a value, such as
`.item()`. What runs here runs on a GPU without a hidden copy or synchronisation.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.config import Run
from bench.data.binarization import as_float
from bench.errors import BenchError
from bench.inference.elbo import elbo_terms
from bench.inference.gradient_variance import PosteriorGradient
from bench.inference.gradients import ESTIMATORS, estimator_for
from bench.inference.importance import log_weights
from bench.inference.reparameterize import Noise
from bench.questions.throughput.actions import fewest_samples
from bench.randomness import generator
from bench.training.batches import prepared, to_batch
from bench.training.loop import build
from bench.training.step import objective
from vaes import VAE, Autoencoder, discover

VARIANTS = discover().variants
VAES = [name for name, variant in VARIANTS.items() if issubclass(variant, VAE)]
D, L, B = 12, 3, 5


def on_cpu(kind: type[Autoencoder]) -> Autoencoder:
    run = Run("any", "toy", seed=0, epochs=1, latent_dim=L, hidden_dim=8)
    return build(run, kind, torch.full((D,), 0.3))


def on_meta(kind: type[Autoencoder]) -> Autoencoder:
    return on_cpu(kind).to("meta")


def bytes_on_meta() -> Tensor:
    return torch.empty(B, D, dtype=torch.uint8, device="meta")


def noise(n: int) -> Tensor:
    return torch.empty(n, B, L, device="meta")


def training_step(
    model: Autoencoder, name: str, samples: int, noise: Noise = noise, binarization="stochastic"
) -> Tensor:
    optimizer = torch.optim.Adam(model.parameters())  # fused Adam has no meta kernel
    pixels = prepared(bytes_on_meta(), binarization)
    index = torch.arange(B, device="meta")
    x = to_batch(pixels, index, binarization, generator("cpu", "pixels"))
    estimator = None
    if isinstance(model, VAE):
        estimator = estimator_for(name, model.posterior(x), model.prior)
    loss = objective(model, x, noise, estimator, samples)
    loss.backward()
    optimizer.step()
    return loss


def fewest(name: str, kind: type[Autoencoder]) -> int:
    try:
        return fewest_samples(name, on_cpu(kind), torch.zeros(1, D))
    except BenchError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("binarization", ["stochastic", "threshold"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_step_stays_on_its_device(variant, binarization):
    model = on_meta(VARIANTS[variant])
    loss = training_step(model, "auto", 1, binarization=binarization)
    assert loss.device.type == "meta"
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(g.device.type == "meta" for g in gradients)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("variant", VAES)
def test_a_training_step_of_every_estimator(variant, estimator):
    samples = fewest(estimator, VARIANTS[variant])
    loss = training_step(on_meta(VARIANTS[variant]), estimator, samples)
    assert loss.device.type == "meta"


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_evaluation(variant):
    model, x = on_meta(VARIANTS[variant]), as_float(bytes_on_meta())
    distortion, rate = elbo_terms(model, x, noise, 4)
    assert distortion.device.type == rate.device.type == "meta"
    if isinstance(model, VAE):
        weights = log_weights(model, x, noise, samples=7, at_once=3)
        assert (weights.device.type, weights.shape) == ("meta", (7, B))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("variant", VAES)
def test_a_gradient_variance_step(variant, estimator):
    """The repeated part; the gram matrix before it is checked against autograd once, in numbers."""
    samples = fewest(estimator, VARIANTS[variant])
    model = on_cpu(VARIANTS[variant])
    gradient = PosteriorGradient.from_model(model, torch.full((B, D), 0.3))
    moved, x = gradient.model.to("meta"), gradient.x.to("meta")
    gradient = replace(
        gradient,
        model=moved,
        x=x,
        template=_with_gradient(moved).posterior(x[:1]),
        parameters={path: value.to("meta") for path, value in gradient.parameters.items()},
        gram=gradient.gram.to("meta"),
        _templates={},
    )
    found = gradient.gradients(ESTIMATORS[estimator], samples, 2, generator("cpu", "noise"))
    norms = gradient.squared_norms(found)
    assert (norms.device.type, norms.shape) == ("meta", (3, 2, B))


def _with_gradient(model: VAE) -> VAE:
    """A copy whose weights take gradients, so that its posterior's parameters are told by it."""
    run = on_meta(type(model))
    return run.requires_grad_(True)


class _Forgetful(VARIANTS["input_dependent"]):
    def posterior(self, x):
        return super().posterior(x + torch.zeros(D))  # made on the CPU, whatever x is on


class _Waiting(VARIANTS["input_dependent"]):
    def posterior(self, x):
        return super().posterior(x / x.max().item())


def test_a_tensor_forgotten_on_the_cpu_is_found():
    with pytest.raises(RuntimeError, match="device"):
        training_step(on_meta(_Forgetful), "auto", 1)


def test_a_hidden_synchronisation_is_found():
    with pytest.raises(RuntimeError, match="meta"):
        training_step(on_meta(_Waiting), "auto", 1)


def test_noise_of_another_device_is_found():
    with pytest.raises(RuntimeError, match="device"):
        training_step(
            on_meta(VARIANTS["input_dependent"]), "auto", 1, lambda n: torch.ones(n, B, L)
        )
