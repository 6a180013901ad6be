"""Observations x drawn from p(x|z), of each of our likelihoods."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.distributions import ContinuousBernoulli

from bench.errors import BenchError
from vaes import Autoencoder
from vaes._likelihoods import ContinuousBernoulliLikelihood, GaussianLikelihood
from vaes._shapes import Float


@torch.no_grad()
def observations(
    model: Autoencoder, z: Float[Tensor, "B L"], generator: torch.Generator
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
    """E[x|z], and x drawn from p(x|z).

    Raises BenchError where the variant has a log-likelihood of its own.
    """
    parameters = model.decode(z)
    if _has_likelihood_of(Autoencoder, model):
        mean = parameters.sigmoid()
        return mean, torch.bernoulli(mean, generator=generator)
    if _has_likelihood_of(GaussianLikelihood, model):
        noise = torch.randn(parameters.shape, generator=generator, device=z.device)
        return parameters, parameters + model.log_noise.exp() * noise
    if _has_likelihood_of(ContinuousBernoulliLikelihood, model):
        pixels = ContinuousBernoulli(logits=parameters)
        uniform = torch.rand(parameters.shape, generator=generator, device=z.device)
        return pixels.mean, pixels.icdf(uniform)
    raise BenchError(
        f"{type(model).__name__} has a log-likelihood of its own, and how x is drawn is not "
        "known: no samples, and no check by simulated images"
    )


def _has_likelihood_of(likelihood: type[Autoencoder], model: Autoencoder) -> bool:
    """Whether the model's is this one, wrapped (as in another unit) or not."""
    found, wanted = type(model).log_likelihood, likelihood.log_likelihood
    return inspect.unwrap(found) is inspect.unwrap(wanted)
