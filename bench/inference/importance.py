"""Importance weights p(x, z)/q(z|x), and what is made of them: the IW bound and its diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from bench.inference.compiled import Compiled, where_it_pays
from bench.inference.native import NotCompiled
from bench.inference.reparameterize import Noise, draw, is_map_of_noise
from vaes import VAE
from vaes._shapes import Float

Weigh = Callable[[VAE, Distribution, Float[Tensor, "B D"], Noise, int], Float[Tensor, "S B"]]
"""A function like `log_weight`."""

WORTHWHILE = 3e11
"""Decoder passes × weights of an evaluation from which compiling it pays: that takes some 4 s for
a variant's first run and 1 s, from the disk, for the others, and saves a third of the time."""


def iw_bound(log_weights: Float[Tensor, "K *batch"]) -> Float[Tensor, "*batch"]:
    """log (1/K) Σ_k w_k, of which the mean is the bound L_K ≤ log p(x) (Burda et al. 2016, eq. 8).

    In nats; K = 1 gives the sampled ELBO.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def effective_sample_size(log_weights: Float[Tensor, "K *batch"]) -> Float[Tensor, "*batch"]:
    """(Σ w)² / Σ w², from 1 to K (Kong 1992): so many equal weights would be as informative."""
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


def log_weight(
    model: VAE, posterior: Distribution, x: Float[Tensor, "B D"], noise: Noise, samples: int
) -> Float[Tensor, "S B"]:
    """log p(x, z) − log q(z|x) for `samples` z from the posterior q(z|x), in nats."""
    z = draw(posterior, noise, samples)
    return model.log_likelihood(x, z) + model.prior.log_prob(z) - posterior.log_prob(z)


@torch.no_grad()
def log_weights(
    model: VAE,
    x: Float[Tensor, "B D"],
    noise: Noise,
    samples: int,
    at_once: int,
    weigh: Weigh = log_weight,
) -> Float[Tensor, "K B"]:
    """log p(x, z_k) − log q(z_k|x) for z_k from q(z|x), in float64, nats.

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
        x: images, an example.
        samples: how many at once.

    Raises NotCompiled with the reason where it cannot be had.
    """

    @torch.no_grad()
    def __init__(self, model: VAE, x: Float[Tensor, "B D"], samples: int) -> None:
        if not is_map_of_noise(model.posterior(x), x):
            raise NotCompiled("the posterior is no map of noise")
        posterior = model.posterior(x)  # another: transforms may keep what passed through them
        self.shape = samples, len(x)
        self._compiled = Compiled(
            lambda model, posterior, x, noise: [
                log_weight(model, posterior, x, lambda n: noise, samples)
            ],
            (model, posterior, x, x.new_zeros(*self.shape, model.latent_dim)),
        )

    def __call__(
        self,
        model: VAE,
        posterior: Distribution,
        x: Float[Tensor, "B D"],
        noise: Noise,
        samples: int,
    ) -> Float[Tensor, "S B"]:
        if (samples, len(x)) != self.shape:
            return log_weight(model, posterior, x, noise, samples)
        (weights,) = self._compiled(model, posterior, x, noise(samples))
        return weights


def log_weight_for(
    model: VAE, x: Float[Tensor, "B D"], samples: int, passes: int
) -> tuple[Weigh, str]:
    """`log_weight`, compiled where that pays; and why not where it would have paid.

    x and `samples` are what is decoded at once, `passes` of the decoder are to come.
    """
    compiled = partial(CompiledLogWeight, model, x, samples)
    return where_it_pays(log_weight, compiled, "the IW bound", model, x, passes, WORTHWHILE)


def passes_at_once(device: torch.device) -> int:
    """Decoder passes to make in one call: on a CPU as many as were fastest (up to 3 times faster
    than 10,000 at once), elsewhere as many as keep the device busy."""
    return 1600 if device.type == "cpu" else 100_000


def samples_at_once(x: Float[Tensor, "B D"], samples: int) -> int:
    """How many of `samples` noise samples an image to decode in one call."""
    return min(samples, max(1, passes_at_once(x.device) // len(x)))
