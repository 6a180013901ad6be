"""Lower bounds of log p(x): the ELBO's terms and the importance weights behind every bound."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from bench.gradients import Noise, draw
from vaes import VAE, Autoencoder


def standard_normal(batch: int, latent_dim: int, generator: torch.Generator) -> Noise:
    """Noise for a batch: `noise(n)` draws `(n, batch, latent_dim)` from the generator."""
    device = generator.device
    return lambda n: torch.randn((n, batch, latent_dim), generator=generator, device=device)


@torch.no_grad()
def elbo_terms(model: Autoencoder, x: Tensor, noise: Noise, samples: int) -> tuple[Tensor, Tensor]:
    """Distortion and rate of each noise sample, both `(S, B)`, in nats; ELBO = −(sum).

    x `(B, D)`. The rate is the closed-form KL where torch knows it (then equal over S), else the
    sampled log q(z|x) − log p(z). A plain autoencoder has S = 1 and rate NaN: it has no ELBO.
    """
    if not isinstance(model, VAE):
        distortion = -model.log_likelihood(x, model.encode(x)).unsqueeze(0)
        return distortion, torch.full_like(distortion, torch.nan)
    posterior = model.posterior(x)
    z = draw(posterior, noise, samples)
    distortion = -model.log_likelihood(x, z)
    try:
        rate = kl_divergence(posterior, model.prior).expand_as(distortion)
    except NotImplementedError:
        rate = posterior.log_prob(z) - model.prior.log_prob(z)
    return distortion, rate


def chunks(images: Tensor, size: int) -> Iterator[Tensor]:
    """Consecutive slices of at most `size` images."""
    yield from torch.split(images, size)


@torch.no_grad()
def log_weights(model: VAE, x: Tensor, noise: Noise, samples: int, at_once: int) -> Tensor:
    """log p(x, z_k) − log q(z_k|x) for z_k from q(z|x), `(K, B)` in float64, nats.

    `at_once` samples are decoded together, so that memory does not grow with K.
    """
    posterior, prior = model.posterior(x), model.prior
    # allocated first: small results kept between large scratch arrays would fragment the heap
    weights = torch.empty(samples, len(x), dtype=torch.float64, device=x.device)
    for part in weights.split(at_once):
        z = draw(posterior, noise, len(part))
        part.copy_(model.log_likelihood(x, z) + prior.log_prob(z) - posterior.log_prob(z))
    return weights


def passes_at_once(device: torch.device) -> int:
    """Decoder passes to make in one call: on a CPU as many as stay in its cache (up to three times
    faster than ten thousand at once), elsewhere as many as keep the device busy."""
    return 1600 if device.type == "cpu" else 100_000
