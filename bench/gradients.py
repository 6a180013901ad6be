"""Gradient estimators: one small function each, every one a surrogate.

`estimator(target, posterior, noise, samples)` returns a tensor of the posterior's batch shape
whose gradient with respect to the posterior's parameters (and, through `target`, the decoder's)
estimates the gradient of the ELBO. The same function trains a model and is measured.

- `target`: the integrand, a `Target`.
- `posterior`: q(z|x), a `torch.distributions` object of batch shape `(*B)` and event shape `(L,)`.
- `noise`: `noise(n)` gives standard normal numbers `(n, *B, L)`.
- `samples`: S, the number of noise samples averaged.

Every public function of this module with that signature is an estimator: a new one is one
function. Notation: f(z) = log p(x|z) + log p(z) − log q(z|x), S noise samples an estimate.

`admit` says in one line why an estimator does not suit a posterior or an S.
"""

from __future__ import annotations

import inspect
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from bench.posterior import detached

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
        """kl_weight · KL(q || p) in closed form, `(*B)`.

        Raises NotImplementedError where torch knows none.
        """
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


def is_map_of_noise(posterior: Distribution, like: Tensor) -> bool:
    """Whether `reparameterize` knows the posterior; `like` has the noise's type and device."""
    noise = like.new_zeros(1, *posterior.batch_shape, *posterior.event_shape)
    with torch.no_grad():
        try:
            reparameterize(posterior, noise)
        except BenchError:
            return False
    return True


def draw(posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """S samples of the posterior without gradient, `(S, *B, L)`.

    From `noise` where the posterior is a map of it; otherwise from its own `sample`.
    """
    with torch.no_grad():
        try:
            return reparameterize(posterior, noise(samples))
        except BenchError:
            return posterior.sample((samples,))


def rsample(posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """S reparameterized samples, `(S, *B, L)`, from `noise` where the posterior is a map of it.

    Others take their own `rsample`, from torch's global generator; raises BenchError where they
    have none.
    """
    try:
        return reparameterize(posterior, noise(samples))
    except BenchError:
        if not posterior.has_rsample:
            raise
        return posterior.rsample((samples,))


def pathwise(target: Target, posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """Reparameterized, analytic KL (Kingma & Welling 2014, eq. 7; Rezende et al. 2014)."""
    z = rsample(posterior, noise, samples)
    return target.log_likelihood(z).mean(0) - target.rate(posterior)


def pathwise_sampled_kl(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Tensor:
    """Reparameterized, KL sampled (Kingma & Welling 2014, eq. 6)."""
    z = rsample(posterior, noise, samples)
    return target.log_weight(posterior, z).mean(0)


def pathwise_antithetic(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Tensor:
    """Pathwise with analytic KL over S/2 pairs of noise ±ε (Hammersley & Morton 1956)."""
    if samples % 2:
        raise BenchError(
            f"pathwise_antithetic with S = {samples}: noise comes in pairs, so S must be even"
        )
    half = noise(samples // 2)
    z = reparameterize(posterior, torch.cat([half, -half]))
    return target.log_likelihood(z).mean(0) - target.rate(posterior)


def sticking_the_landing(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Tensor:
    """Pathwise through z alone: the score term, of mean 0, is dropped (Roeder et al. 2017)."""
    z = rsample(posterior, noise, samples)
    return target.log_weight(detached(posterior), z).mean(0)


def score_function(target: Target, posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """f · ∇ log q, no baseline (Williams 1992; Ranganath et al. 2014)."""
    z = draw(posterior, noise, samples)
    log_q = posterior.log_prob(z)
    joint = target.log_likelihood(z) + target.kl_weight * target.prior.log_prob(z)
    f = (joint - target.kl_weight * log_q).detach()
    return (f * log_q + joint).mean(0)


def score_function_analytic_kl(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Tensor:
    """log p(x|z) · ∇ log q − ∇ KL, no baseline (Paisley et al. 2012)."""
    z = draw(posterior, noise, samples)
    log_p = target.log_likelihood(z)
    score_term = log_p.detach() * posterior.log_prob(z)
    return (score_term + log_p).mean(0) - target.rate(posterior)


_BASELINE_SAMPLES = 16
"""Decoder passes an image spent on the baseline of `score_function_baseline`."""


def score_function_baseline(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Tensor:
    """(f − b) · ∇ log q with b an estimate of E[f] for each image.

    b is the mean of f over 16 samples independent of the S it is subtracted from, so that the
    estimate stays unbiased (after Mnih & Gregor 2014, whose b is a network's).
    """
    with torch.no_grad():
        apart = draw(posterior, noise, _BASELINE_SAMPLES)
        baseline = target.log_weight(posterior, apart).mean(0)
    shifted = replace(target, log_likelihood=lambda z: target.log_likelihood(z) - baseline)
    return score_function(shifted, posterior, noise, samples)


def rloo(target: Target, posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """Each sample's baseline is the mean of f over the other S − 1 (Kool et al. 2019)."""
    if samples < 2:
        raise BenchError(f"rloo with S = {samples}: its baseline is the other samples, so S ≥ 2")

    def shifted(z: Tensor) -> Tensor:
        log_p = target.log_likelihood(z)
        ratio = target.prior.log_prob(z) - posterior.log_prob(z)
        f = (log_p + target.kl_weight * ratio).detach()
        return log_p - (f.sum(0) - f) / (samples - 1)

    return score_function(replace(target, log_likelihood=shifted), posterior, noise, samples)


def measure_valued(target: Target, posterior: Distribution, noise: Noise, samples: int) -> Tensor:
    """Weak derivatives, one latent at a time, analytic KL (Mohamed et al. 2020, sec. 6).

    For z = μ + σε, with latent i's ε replaced and the others kept,
        ∂/∂μ E f = (E f(μ + σw) − E f(μ − σw)) / (σ √2π), w Weibull of density w exp(−w²/2);
        ∂/∂σ E f = (E f(μ + σm) − E f(μ + σn)) / σ, m double-sided Maxwell, n normal.
    Coupled: ±w share w, and n = m · uniform. A standard normal 3-vector gives both: its first
    coordinate is n, its length with the sign of n is m. Costs 4L + 1 decoder passes a sample
    (2L + 1 where σ is a constant).

    Raises BenchError unless the latents are independent Gaussians.
    """
    loc, scale = _independent_gaussians(posterior)
    epsilon = noise(samples)
    latents = epsilon.shape[-1]
    one_latent = torch.eye(latents, dtype=torch.bool, device=loc.device)
    one_latent = one_latent.view(latents, *[1] * (loc.dim() - 1), latents)

    def with_one_replaced(by: Tensor) -> Tensor:
        replaced = torch.where(one_latent, by.unsqueeze(1), epsilon.unsqueeze(1))
        return target.log_likelihood(loc + scale * replaced).movedim(1, -1)

    with torch.no_grad():
        weibull = noise(2 * samples).unflatten(0, (2, samples)).norm(dim=0)
        difference = with_one_replaced(weibull) - with_one_replaced(-weibull)
        to_loc = difference / (scale * math.sqrt(2 * math.pi))
        z = loc + scale * epsilon
    weak = to_loc * loc
    if scale.requires_grad:
        with torch.no_grad():
            point = noise(3 * samples).unflatten(0, (3, samples))
            normal, maxwell = point[0], point.norm(dim=0).copysign(point[0])
            to_scale = (with_one_replaced(maxwell) - with_one_replaced(normal)) / scale
        weak = weak + to_scale * scale
    return (weak.sum(-1) + target.log_likelihood(z)).mean(0) - target.rate(posterior)


def _independent_gaussians(posterior: Distribution) -> tuple[Tensor, Tensor]:
    base = posterior
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Normal):
        raise BenchError(
            f"measure_valued needs independent Gaussian latents, not {type(base).__name__}"
        )
    return base.loc, base.scale


@dataclass(frozen=True)
class Passes:
    """Decoder passes an image and estimate: those a gradient is followed through, and others."""

    followed: int
    others: int

    @property
    def total(self) -> int:
        return self.followed + self.others


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


def admit(name: str, posterior: Distribution, prior: Distribution, samples: int) -> Passes:
    """Whether the posterior admits the estimator of that name, and what an estimate costs.

    Raises BenchError naming the estimator, S and the reason where it does not.
    """
    decoded = {True: 0, False: 0}

    def log_likelihood(z: Tensor) -> Tensor:
        decoded[torch.is_grad_enabled()] += z.shape[:-1].numel() // posterior.batch_shape.numel()
        return z.sum(-1)

    def noise(n: int) -> Tensor:
        return prior.mean.new_ones(n, *posterior.batch_shape, *posterior.event_shape)

    try:
        with torch.enable_grad():
            estimators()[name](Target(log_likelihood, prior), posterior, noise, samples)
    except (BenchError, NotImplementedError) as error:
        asked = traceback.extract_tb(error.__traceback__)[-1].name
        reason = str(error) or f"{type(posterior).__name__} has no {asked}"
        known = "" if reason.startswith(name) else f"{name} with S = {samples}: "
        raise BenchError(known + reason) from error
    return Passes(decoded[True], decoded[False])


def estimator_for(name: str, posterior: Distribution, prior: Distribution) -> Estimator:
    """The estimator of that name; `auto` takes the quietest family the posterior admits.

    `pathwise` where samples are reparameterized and the KL is known in closed form,
    `pathwise_sampled_kl` where only the first holds, else `score_function`.
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
