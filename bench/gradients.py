"""Gradient estimators: one small function each, every one a surrogate.

`estimator(target, posterior, noise, samples)` returns a tensor of the posterior's batch shape
whose gradient with respect to the posterior's parameters (and, through `target`, the decoder's)
estimates the gradient of the ELBO. The same function trains a model and is measured.

- `target`: the integrand, a `Target`.
- `posterior`: q(z|x), a `torch.distributions` object of batch shape `(*B)` and event shape `(L,)`.
- `noise`: `noise(n)` gives standard normal numbers `(n, *B, L)`.
- `samples`: S, the number of noise samples averaged.

Every public function of this module with that signature is an estimator: a new one is one
function. Notation: f(z) = log p(x|z) + log p(z) − log q(z|x).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    kl_divergence,
)

from bench.config import BenchError, nearest

Noise = Callable[[int], Tensor]
Estimator = Callable[["Target", Distribution, Noise, int], Tensor]


@dataclass(frozen=True)
class Target:
    """The ELBO's integrand for a batch.

    Attributes:
        log_likelihood: z `(S, *B, L)` → log p(x|z) `(S, *B)`, in nats.
        prior: p(z), event shape `(L,)`.
        kl_weight: weight of the KL, 1 for the ELBO itself (less during warm-up).
    """

    log_likelihood: Callable[[Tensor], Tensor]
    prior: Distribution
    kl_weight: float | Tensor = 1.0

    def rate(self, posterior: Distribution) -> Tensor:
        """kl_weight · KL(q || p) in closed form, `(*B)`; NotImplementedError where there is none."""
        return self.kl_weight * kl_divergence(posterior, self.prior)

    def log_weight(self, posterior: Distribution, z: Tensor) -> Tensor:
        """f(z) = log p(x|z) + kl_weight · (log p(z) − log q(z|x)), `(S, *B)`."""
        ratio = self.prior.log_prob(z) - posterior.log_prob(z)
        return self.log_likelihood(z) + self.kl_weight * ratio


@singledispatch
def reparameterize(posterior: Distribution, noise: Tensor) -> Tensor:
    """z(noise) for standard normal noise `(S, *B, L)`; gradients flow to the parameters.

    Raises BenchError where the posterior is not a map of standard normal noise.
    """
    raise BenchError(
        f"{type(posterior).__name__} is not a map of standard normal noise: register it with "
        "bench.gradients.reparameterize, or use a score-function estimator"
    )


@reparameterize.register
def _(posterior: Normal, noise: Tensor) -> Tensor:
    return posterior.loc + posterior.scale * noise


@reparameterize.register
def _(posterior: Independent, noise: Tensor) -> Tensor:
    return reparameterize(posterior.base_dist, noise)


@reparameterize.register
def _(posterior: MultivariateNormal, noise: Tensor) -> Tensor:
    return posterior.loc + (posterior.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)


@reparameterize.register
def _(posterior: TransformedDistribution, noise: Tensor) -> Tensor:
    z = reparameterize(posterior.base_dist, noise)
    for transform in posterior.transforms:
        z = transform(z)
    return z


def draw(posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """S samples of the posterior without gradient, `(S, *B, L)`.

    From `noise` where the posterior is a map of it; otherwise from its own `sample`.
    """
    with torch.no_grad():
        try:
            return reparameterize(posterior, noise(samples))
        except BenchError:
            return posterior.sample((samples,))


def pathwise(target: Target, posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """Reparameterized, analytic KL (Kingma & Welling 2014, eq. 7; Rezende et al. 2014)."""
    z = reparameterize(posterior, noise(samples))
    return target.log_likelihood(z).mean(0) - target.rate(posterior)


def pathwise_sampled_kl(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Tensor:
    """Reparameterized, KL sampled (Kingma & Welling 2014, eq. 6)."""
    z = reparameterize(posterior, noise(samples))
    return target.log_weight(posterior, z).mean(0)


def score_function(target: Target, posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """f · ∇ log q, no baseline (Williams 1992; Ranganath et al. 2014)."""
    z = draw(posterior, noise, samples)
    log_q = posterior.log_prob(z)
    joint = target.log_likelihood(z) + target.kl_weight * target.prior.log_prob(z)
    f = (joint - target.kl_weight * log_q).detach()
    return (f * log_q + joint).mean(0)


def _is_estimator(function: object) -> bool:
    return (
        inspect.isfunction(function)
        and function.__module__ == __name__
        and not function.__name__.startswith("_")
        and list(inspect.signature(function).parameters)
        == ["target", "posterior", "noise", "samples"]
    )


def estimators() -> dict[str, Estimator]:
    """Every estimator of this module by name, in the order they are written."""
    return {name: f for name, f in vars(sys.modules[__name__]).items() if _is_estimator(f)}


def estimator_for(name: str, posterior: Distribution, prior: Distribution) -> Estimator:
    """The estimator of that name; `auto` takes the quietest family the posterior admits.

    `pathwise` where samples are reparameterized and the KL is known in closed form,
    `pathwise_sampled_kl` where only the first holds, else the score function with a baseline.
    """
    if name != "auto":
        known = estimators()
        if name not in known:
            raise nearest("estimator", name, known)
        return known[name]
    if not posterior.has_rsample:
        return score_function
    try:
        kl_divergence(posterior, prior)
    except NotImplementedError:
        return pathwise_sampled_kl
    return pathwise
