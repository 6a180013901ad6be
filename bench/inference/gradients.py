"""Gradient estimators: one small function each, every one a surrogate.

`estimator(target, posterior, noise, samples)` returns a tensor of the posterior's batch shape
whose gradient with respect to the posterior's parameters (and, through `target`, the decoder's)
estimates the gradient of the ELBO. The same function trains a model and is measured.

- `target`: the integrand, a `Target`.
- `posterior`: q(z|x), a `torch.distributions` object of batch shape `(*B)` and event shape `(L,)`.
- `noise`: `noise(S)` gives standard normal numbers.
- `samples`: S, the number of noise samples averaged.

A new one is one such function here, `registered` with its label, colour, line and citation.
Notation: f(z) = log p(x|z) + log p(z) − log q(z|x), S noise samples an estimate.

`admit` says in one line why an estimator does not suit a posterior or an S.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Normal,
    kl_divergence,
)

from bench.errors import BenchError, nearest
from bench.inference.reparameterize import Noise, draw, reparameterize, rsample
from bench.inference.tensors import detached
from vaes._shapes import Float

Surrogate = Callable[["Target", Distribution, Noise, int], Float[Tensor, "*B"]]


@dataclass(frozen=True)
class Target:
    """The ELBO's integrand for a batch.

    Attributes:
        log_likelihood: z → log p(x|z), in nats.
        prior: p(z), event shape `(L,)`.
        kl_weight: weight of the KL, 1 for the ELBO itself (less during warm-up).
    """

    log_likelihood: Callable[[Float[Tensor, "S *B L"]], Float[Tensor, "S *B"]]
    prior: Distribution
    kl_weight: float | Float[Tensor, ""] = 1.0

    def rate(self, posterior: Distribution) -> Float[Tensor, "*B"]:
        """kl_weight · KL(q || p) in closed form.

        Raises NotImplementedError where torch knows none.
        """
        return self.kl_weight * kl_divergence(posterior, self.prior)

    def log_weight(
        self, posterior: Distribution, z: Float[Tensor, "S *B L"]
    ) -> Float[Tensor, "S *B"]:
        """f(z) = log p(x|z) + kl_weight · (log p(z) − log q(z|x))."""
        ratio = self.prior.log_prob(z) - posterior.log_prob(z)
        return self.log_likelihood(z) + self.kl_weight * ratio


@dataclass(frozen=True)
class Estimator:
    """A gradient estimator and how it is shown; called, it is its function.

    Attributes:
        name, function: what it is registered under, and what it does.
        label: its name in tables and figures.
        colour, line: in figures, `#rrggbb` and `solid`, `dashed` or `dotted`.
        citation: where it comes from.
    """

    name: str
    function: Surrogate
    label: str
    colour: str
    line: str
    citation: str

    def __call__(
        self, target: Target, posterior: Distribution, noise: Noise, samples: int
    ) -> Float[Tensor, "*B"]:
        return self.function(target, posterior, noise, samples)


ESTIMATORS: dict[str, Estimator] = {}
"""Every estimator by name, in the order they are written."""


def registered(
    label: str, colour: str, line: str, citation: str
) -> Callable[[Surrogate], Surrogate]:
    """Enter a function in `ESTIMATORS` under its own name, and leave it as it is."""

    def register(function: Surrogate) -> Surrogate:
        name = function.__name__
        ESTIMATORS[name] = Estimator(name, function, label, colour, line, citation)
        return function

    return register


@registered(
    label="pathwise",
    colour="#332288",
    line="solid",
    citation="Kingma & Welling 2014, eq. 7; Rezende et al. 2014",
)
def pathwise(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Reparameterized, analytic KL (Kingma & Welling 2014, eq. 7; Rezende et al. 2014).

    The gradient of E_q[−z²] with respect to the posterior's location is −2 loc:

    >>> from bench.inference.reparameterize import standard_normal
    >>> from vaes.base import diagonal_gaussian
    >>> loc = torch.tensor([[0.5, -1.0]], requires_grad=True)
    >>> prior = diagonal_gaussian(torch.zeros(2), torch.ones(2))
    >>> target = Target(lambda z: -z.square().sum(-1), prior, kl_weight=0.0)
    >>> posterior = diagonal_gaussian(loc, torch.full((1, 2), 0.1))
    >>> noise = standard_normal(batch=1, latent_dim=2, generator=torch.Generator())
    >>> pathwise(target, posterior, noise, samples=1000).sum().backward()
    >>> [round(value, 1) for value in loc.grad.flatten().tolist()]
    [-1.0, 2.0]
    """
    z = rsample(posterior, noise, samples)
    return target.log_likelihood(z).mean(0) - target.rate(posterior)


@registered(
    label="pathwise, sampled KL",
    colour="#6699CC",
    line="solid",
    citation="Kingma & Welling 2014, eq. 6",
)
def pathwise_sampled_kl(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Reparameterized, KL sampled (Kingma & Welling 2014, eq. 6)."""
    z = rsample(posterior, noise, samples)
    return target.log_weight(posterior, z).mean(0)


@registered(
    label="pathwise, antithetic",
    colour="#44AA99",
    line="solid",
    citation="Hammersley & Morton 1956",
)
def pathwise_antithetic(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Pathwise with analytic KL over S/2 pairs of noise ±ε (Hammersley & Morton 1956)."""
    if samples % 2:
        raise BenchError(
            f"pathwise_antithetic with S = {samples}: noise comes in pairs, so S must be even"
        )
    half = noise(samples // 2)
    z = reparameterize(posterior, torch.cat([half, -half]))
    return target.log_likelihood(z).mean(0) - target.rate(posterior)


@registered(
    label="sticking the landing",
    colour="#117733",
    line="solid",
    citation="Roeder et al. 2017",
)
def sticking_the_landing(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Pathwise through z alone: the score term, of mean 0, is dropped (Roeder et al. 2017)."""
    z = rsample(posterior, noise, samples)
    return target.log_weight(detached(posterior), z).mean(0)


@registered(
    label="score function",
    colour="#CC6677",
    line="dashed",
    citation="Williams 1992; Ranganath et al. 2014",
)
def score_function(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """f · ∇ log q, no baseline (Williams 1992; Ranganath et al. 2014)."""
    z = draw(posterior, noise, samples)
    log_q = posterior.log_prob(z)
    joint = target.log_likelihood(z) + target.kl_weight * target.prior.log_prob(z)
    f = (joint - target.kl_weight * log_q).detach()
    return (f * log_q + joint).mean(0)


@registered(
    label="score function, analytic KL",
    colour="#999933",
    line="dashed",
    citation="Paisley et al. 2012",
)
def score_function_analytic_kl(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """log p(x|z) · ∇ log q − ∇ KL, no baseline (Paisley et al. 2012)."""
    z = draw(posterior, noise, samples)
    log_p = target.log_likelihood(z)
    score_term = log_p.detach() * posterior.log_prob(z)
    return (score_term + log_p).mean(0) - target.rate(posterior)


_BASELINE_SAMPLES = 16
"""Decoder passes an image spent on the baseline of `score_function_baseline`."""


@registered(
    label="score function, baseline",
    colour="#AA4499",
    line="dashed",
    citation="after Mnih & Gregor 2014",
)
def score_function_baseline(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """(f − b) · ∇ log q with b an estimate of E[f] for each image.

    b is the mean of f over 16 samples independent of the S it is subtracted from, so that the
    estimate stays unbiased (after Mnih & Gregor 2014, whose b is a network's).
    """
    with torch.no_grad():
        apart = draw(posterior, noise, _BASELINE_SAMPLES)
        baseline = target.log_weight(posterior, apart).mean(0)
    shifted = replace(target, log_likelihood=lambda z: target.log_likelihood(z) - baseline)
    return score_function(shifted, posterior, noise, samples)


@registered(
    label="leave-one-out",
    colour="#882255",
    line="dashed",
    citation="Kool et al. 2019",
)
def rloo(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Each sample's baseline is the mean of f over the other S − 1 (Kool et al. 2019)."""
    if samples < 2:
        raise BenchError(f"rloo with S = {samples}: its baseline is the other samples, so S ≥ 2")

    def shifted(z: Float[Tensor, "S *B L"]) -> Float[Tensor, "S *B"]:
        log_p = target.log_likelihood(z)
        ratio = target.prior.log_prob(z) - posterior.log_prob(z)
        f = (log_p + target.kl_weight * ratio).detach()
        return log_p - (f.sum(0) - f) / (samples - 1)

    return score_function(replace(target, log_likelihood=shifted), posterior, noise, samples)


@registered(
    label="measure-valued",
    colour="#7F7F7F",
    line="dotted",
    citation="Mohamed et al. 2020, sec. 6",
)
def measure_valued(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
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

    def with_one_replaced(by: Float[Tensor, "S *B L"]) -> Float[Tensor, "S *B L"]:
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


def _independent_gaussians(
    posterior: Distribution,
) -> tuple[Float[Tensor, "*B L"], Float[Tensor, "*B L"]]:
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


def admit(name: str, posterior: Distribution, prior: Distribution, samples: int) -> Passes:
    """Whether the posterior admits the estimator of that name, and what an estimate costs.

    Raises BenchError naming the estimator, S and the reason where it does not.
    """
    decoded = {True: 0, False: 0}

    def log_likelihood(z: Float[Tensor, "*S L"]) -> Float[Tensor, "*S"]:
        decoded[torch.is_grad_enabled()] += z.shape[:-1].numel() // posterior.batch_shape.numel()
        return z.sum(-1)

    def noise(n: int) -> Float[Tensor, "S *B L"]:
        return prior.mean.new_ones(n, *posterior.batch_shape, *posterior.event_shape)

    try:
        with torch.enable_grad():
            ESTIMATORS[name](Target(log_likelihood, prior), posterior, noise, samples)
    except (BenchError, NotImplementedError) as error:
        asked = traceback.extract_tb(error.__traceback__)[-1].name
        reason = str(error) or f"{type(posterior).__name__} has no {asked}"
        known = "" if reason.startswith(name) else f"{name} with S = {samples}: "
        raise BenchError(known + reason) from error
    return Passes(decoded[True], decoded[False])


def estimator_for(name: str, posterior: Distribution, prior: Distribution) -> Surrogate:
    """The estimator of that name; `auto` takes the quietest family the posterior admits.

    `pathwise` where samples are reparameterized and the KL is known in closed form,
    `pathwise_sampled_kl` where only the first holds, else `score_function`.
    """
    if name != "auto":
        if name not in ESTIMATORS:
            raise nearest("estimator", name, ESTIMATORS)
        return ESTIMATORS[name].function
    if not posterior.has_rsample:
        return score_function
    try:
        kl_divergence(posterior, prior)
    except NotImplementedError:
        return pathwise_sampled_kl
    return pathwise
