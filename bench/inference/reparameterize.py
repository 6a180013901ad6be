"""Samples z of q(z|x) as a map of standard normal noise (Kingma & Welling 2014, sec. 2.4).

A posterior family of one's own registers its map with `reparameterize.register`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from bench.errors import BenchError
from vaes import VAE
from vaes._shapes import Float

Noise = Callable[[int], Float[Tensor, "S *B L"]]
"""`noise(S)` gives standard normal numbers for S samples of a batch."""


def standard_normal(batch: int, latent_dim: int, generator: torch.Generator) -> Noise:
    """Noise for a batch, independent at each call, drawn from the generator."""
    device = generator.device
    return lambda n: torch.randn((n, batch, latent_dim), generator=generator, device=device)


@singledispatch
def reparameterize(
    posterior: Distribution, noise: Float[Tensor, "S *B L"]
) -> Float[Tensor, "S *B L"]:
    """z(noise) for standard normal noise; gradients flow to the posterior's parameters.

    Raises BenchError where the posterior is not a map of standard normal noise.
    """
    raise BenchError(
        f"{type(posterior).__name__} is not a map of standard normal noise: register one with "
        "`reparameterize.register`, or use a score-function estimator"
    )


@reparameterize.register
def _(posterior: Normal, noise: Float[Tensor, "S *B L"]) -> Float[Tensor, "S *B L"]:
    return posterior.loc + posterior.scale * noise


@reparameterize.register
def _(posterior: Independent, noise: Float[Tensor, "S *B L"]) -> Float[Tensor, "S *B L"]:
    return reparameterize(posterior.base_dist, noise)


@reparameterize.register
def _(posterior: MultivariateNormal, noise: Float[Tensor, "S *B L"]) -> Float[Tensor, "S *B L"]:
    return posterior.loc + (posterior.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)


@reparameterize.register
def _(
    posterior: TransformedDistribution, noise: Float[Tensor, "S *B L"]
) -> Float[Tensor, "S *B L"]:
    z = reparameterize(posterior.base_dist, noise)
    for transform in posterior.transforms:
        z = transform(z)
    return z


def is_map_of_noise(posterior: Distribution, like: Tensor) -> bool:
    """Whether `reparameterize` knows the posterior; `like` has the noise's type and device."""
    noise = like.new_zeros(1, *posterior.batch_shape, *posterior.event_shape)
    with torch.no_grad():
        try:
            reparameterize(posterior, noise)
        except BenchError:
            return False
    return True


def draw(posterior: Distribution, noise: Noise, samples: int) -> Float[Tensor, "S *B L"]:
    """S samples of the posterior without gradient.

    From `noise` where the posterior is a map of it; otherwise from its own `sample`.
    """
    with torch.no_grad():
        try:
            return reparameterize(posterior, noise(samples))
        except BenchError:
            return posterior.sample((samples,))


def prior_sample(model: VAE, samples: int, generator: torch.Generator) -> Float[Tensor, "S L"]:
    """S samples of p(z), from the generator where the prior is a map of standard normal noise."""
    noise = standard_normal(samples, model.latent_dim, generator)
    return draw(model.prior, lambda n: noise(1)[0], samples)


def rsample(posterior: Distribution, noise: Noise, samples: int) -> Float[Tensor, "S *B L"]:
    """S reparameterized samples, from `noise` where the posterior is a map of it.

    Others take their own `rsample`, from torch's global generator; raises BenchError where they
    have none.
    """
    try:
        return reparameterize(posterior, noise(samples))
    except BenchError:
        if not posterior.has_rsample:
            raise
        return posterior.rsample((samples,))
