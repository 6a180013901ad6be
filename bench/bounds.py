"""Lower bounds of log p(x): the ELBO's terms and the importance weights behind every bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from bench.gradients import Noise, draw, is_map_of_noise
from bench.native import NotCompiled, native
from bench.posterior import substitute, tensors
from vaes import VAE, Autoencoder

Weigh = Callable[[VAE, Distribution, Tensor, Noise, int], Tensor]
"""A function like `log_weight`."""

WORTHWHILE = 1e12
"""Decoder passes × weights of an evaluation from which compiling it pays: that takes 3 to 15 s for
a variant's first run and 1 s, from the disk, for the others, and saves a third of the time."""


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


def log_weight(
    model: VAE, posterior: Distribution, x: Tensor, noise: Noise, samples: int
) -> Tensor:
    """log p(x, z) − log q(z|x) for `samples` z from the posterior q(z|x) of x `(B, D)`.

    Shape `(samples, B)`, in nats.
    """
    z = draw(posterior, noise, samples)
    return model.log_likelihood(x, z) + model.prior.log_prob(z) - posterior.log_prob(z)


@torch.no_grad()
def log_weights(
    model: VAE, x: Tensor, noise: Noise, samples: int, at_once: int, weigh: Weigh = log_weight
) -> Tensor:
    """log p(x, z_k) − log q(z_k|x) for z_k from q(z|x), `(K, B)` in float64, nats.

    `at_once` samples are decoded together, so that memory does not grow with K.
    """
    posterior = model.posterior(x)
    # allocated first: small results kept between large scratch arrays would fragment the heap
    weights = torch.empty(samples, len(x), dtype=torch.float64, device=x.device)
    for part in weights.split(at_once):
        part.copy_(weigh(model, posterior, x, noise, len(part)))
    return weights


class CompiledLogWeight:
    """`log_weight` as one native function for one number of samples and images.

    Others take the function itself. Arguments:
        model: float32, on a CPU.
        x: images `(B, D)`, an example.
        samples: how many at once.

    Raises NotCompiled with the reason where it cannot be had.
    """

    @torch.no_grad()
    def __init__(self, model: VAE, x: Tensor, samples: int) -> None:
        posterior = model.posterior(x)
        if not is_map_of_noise(posterior, x):
            raise NotCompiled("the posterior is no map of noise")
        self.shape = samples, len(x)
        whole = model, posterior, x, x.new_zeros(*self.shape, model.latent_dim)
        held = list(tensors(whole).values())

        def of_tensors(*given: Tensor) -> list[Tensor]:
            model, posterior, x, noise = substitute(whole, held, given)
            return [log_weight(model, posterior, x, lambda n: noise, samples)]

        self._native = native(of_tensors, held)

    def __call__(
        self, model: VAE, posterior: Distribution, x: Tensor, noise: Noise, samples: int
    ) -> Tensor:
        if (samples, len(x)) != self.shape:
            return log_weight(model, posterior, x, noise, samples)
        given = tensors((model, posterior, x, noise(samples))).values()
        (weights,) = self._native(*(tensor.contiguous() for tensor in given))
        return weights


def log_weight_for(model: VAE, x: Tensor, samples: int, passes: int) -> tuple[Weigh, str]:
    """`log_weight`, compiled where that pays; and why not where it would have paid.

    x `(B, D)` and `samples` are what is decoded at once, `passes` of the decoder are to come.
    """
    weights = sum(w.numel() for w in model.parameters())
    if passes * weights < WORTHWHILE or x.device.type != "cpu":
        return log_weight, ""
    try:
        return CompiledLogWeight(model, x, samples), ""
    except NotCompiled as reason:
        return log_weight, f"the IW bound was not compiled: {reason}"


def passes_at_once(device: torch.device) -> int:
    """Decoder passes to make in one call: on a CPU as many as stay in its cache (up to three times
    faster than ten thousand at once), elsewhere as many as keep the device busy."""
    return 1600 if device.type == "cpu" else 100_000


def samples_at_once(x: Tensor, samples: int) -> int:
    """How many of `samples` noise samples an image of x `(B, D)` to decode in one call."""
    return min(samples, max(1, passes_at_once(x.device) // len(x)))
