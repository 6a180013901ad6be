"""Gradient estimators: one small function each, every one a surrogate.

`estimator(target, posterior, noise, samples)` returns a tensor of the posterior's batch shape
whose gradient with respect to the posterior's parameters (and, through `target`, the decoder's)
estimates the gradient of the ELBO, or of another bound, which its registration then names. The
same function trains a model and is measured.

- `target`: the integrand, a `bench.inference.target.Target`.
- `posterior`: q(z|x), a `torch.distributions` object of batch shape `(*B)` and event shape `(L,)`.
- `noise`: `noise(S)` gives standard normal numbers.
- `samples`: S, the number of noise samples averaged.

A new one is one such function, `registered` with its label, colour, line and citation: here, or
in a module that `bench.inference` imports.
Notation: f(z) = log p(x|z) + log p(z) − log q(z|x), S noise samples an estimate.

`admit` says in one line why an estimator does not suit a posterior or an S.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from bench.errors import BenchError, nearest
from bench.inference.divergence import divergence
from bench.inference.reparameterize import Noise, draw, reparameterize, rsample
from bench.inference.sobol import MOST_LATENTS, first_cells, shift_from, shifted_normals
from bench.inference.target import Target
from bench.inference.tensors import detached, tensors
from vaes._shapes import Float

Surrogate = Callable[[Target, Distribution, Noise, int], Float[Tensor, "*B"]]


@dataclass(frozen=True)
class Estimator:
    """A gradient estimator and how it is shown; called, it is its function.

    Attributes:
        name, function: what it is registered under, and what it does.
        label: its name in tables and figures.
        colour, line: in figures, `#rrggbb` and `solid`, `dashed` or `dotted`.
        citation: where it comes from.
        bound: what it estimates the gradient of, one of `BOUNDS`.
        biased: whether its mean is another than that gradient.
    """

    name: str
    function: Surrogate
    label: str
    colour: str
    line: str
    citation: str
    bound: str = "elbo"
    biased: bool = False

    def __call__(
        self, target: Target, posterior: Distribution, noise: Noise, samples: int
    ) -> Float[Tensor, "*B"]:
        return self.function(target, posterior, noise, samples)


ESTIMATORS: dict[str, Estimator] = {}
"""Every estimator by name, in the order they are written."""
BOUNDS = ("elbo", "iw_bound")
"""What is differentiated: the ELBO, whatever S; or L_K with K = S (Burda et al. 2016)."""


def registered(
    label: str,
    colour: str,
    line: str,
    citation: str,
    bound: str = "elbo",
    biased: bool = False,
) -> Callable[[Surrogate], Surrogate]:
    """Enter a function in `ESTIMATORS` under its own name, and leave it as it is."""

    def register(function: Surrogate) -> Surrogate:
        name = function.__name__
        looks = label, colour, line, citation
        ESTIMATORS[name] = Estimator(name, function, *looks, bound, biased)
        return function

    return register


def of_bound(bound: str) -> tuple[str, ...]:
    """The names of the estimators of that bound's gradient: only they compare with each other."""
    return tuple(name for name, estimator in ESTIMATORS.items() if estimator.bound == bound)


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
    """Pathwise with analytic KL over S/2 pairs of noise ±ε (Hammersley & Morton 1956).

    Raises BenchError where S is odd, or the posterior no map of noise.
    """
    if samples % 2:
        raise BenchError(
            f"pathwise_antithetic with S = {samples}: noise comes in pairs, so S must be even"
        )
    half = noise(samples // 2)
    z = reparameterize(posterior, torch.cat([half, -half]))
    return target.log_likelihood(z).mean(0) - target.rate(posterior)


@registered(
    label="pathwise, Sobol",
    colour="#DDCC77",
    line="solid",
    citation="Buchholz et al. 2018",
)
def pathwise_sobol(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Pathwise with analytic KL at the first S Sobol points (Buchholz et al. 2018).

    Each image has an independent uniform digital shift of its own, made of one normal number a
    latent: each point is then a standard normal sample, and the estimate unbiased.

    Raises BenchError where L exceeds the direction numbers, or the posterior is no map of noise.
    """
    normal = noise(1)
    latents = normal.shape[-1]
    if latents > MOST_LATENTS:
        raise BenchError(
            f"pathwise_sobol has no direction numbers for L = {latents}, only to {MOST_LATENTS}: "
            "take fewer latents or another estimator, such as pathwise"
        )
    cells = first_cells(samples, latents, normal.device)
    cells = cells.view(samples, *[1] * (normal.dim() - 2), latents)
    points = shifted_normals(cells, shift_from(normal)).to(normal.dtype)
    z = reparameterize(posterior, points)
    return target.log_likelihood(z).mean(0) - target.rate(posterior)


_STEP = 0.1
"""Of the differences in `pathwise_control_variate`, in standard deviations of the noise."""


@registered(
    label="pathwise, control variate",
    colour="#EE3377",
    line="solid",
    citation="after Miller et al. 2017",
)
def pathwise_control_variate(
    target: Target, posterior: Distribution, noise: Noise, samples: int
) -> Float[Tensor, "*B"]:
    """Pathwise less what is linear in the noise, by central differences (Miller et al. 2017).

    With z = μ + σε the subtracted (log p(x|μ + hσε) − log p(x|μ − hσε)) / 2h has, as h → 0, the
    gradients H σε with respect to μ, for H the Hessian at μ, and ∇log p(x|μ) ε with respect to σ:
    Miller's control variates. It is odd in ε, so that its mean is 0 whatever h and posterior; h = 1
    gives antithetic pairs. Costs 3 decoder passes a sample.
    """
    epsilon = noise(samples)
    z = reparameterize(posterior, torch.cat([epsilon, _STEP * epsilon, -_STEP * epsilon]))
    plain, above, below = target.log_likelihood(z).unflatten(0, (3, samples))
    return (plain - (above - below) / (2 * _STEP)).mean(0) - target.rate(posterior)


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
    joint = target.log_likelihood(z) + target.kl_weight * target.log_prior(z)
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
    """Each sample's baseline is the mean of f over the other S − 1 (Kool et al. 2019).

    Raises BenchError where S < 2.
    """
    if samples < 2:
        raise BenchError(f"rloo with S = {samples}: its baseline is the other samples, so S ≥ 2")

    def shifted(z: Float[Tensor, "S *B L"]) -> Float[Tensor, "S *B"]:
        log_p = target.log_likelihood(z)
        ratio = target.log_prior(z) - posterior.log_prob(z)
        f = (log_p + target.kl_weight * ratio).detach()
        return log_p - (f.sum(0) - f) / (samples - 1)

    return score_function(replace(target, log_likelihood=shifted), posterior, noise, samples)


@dataclass(frozen=True)
class Passes:
    """Decoder passes an image and estimate: those a gradient is followed through, and others."""

    followed: int
    others: int

    @property
    def total(self) -> int:
        return self.followed + self.others


def admit(
    name: str, posterior: Distribution, prior: Distribution, samples: int, free_bits: float = 0.0
) -> Passes:
    """Whether the posterior admits the estimator of that name, and what an estimate costs.

    Raises BenchError naming the estimator, S and the reason where it does not.
    """
    decoded = {True: 0, False: 0}
    like = next(iter((*tensors(posterior).values(), *tensors(prior).values())))

    def log_likelihood(z: Float[Tensor, "*S L"]) -> Float[Tensor, "*S"]:
        decoded[torch.is_grad_enabled()] += z.shape[:-1].numel() // posterior.batch_shape.numel()
        return z.sum(-1)

    def noise(n: int) -> Float[Tensor, "S *B L"]:
        return like.new_ones(n, *posterior.batch_shape, *posterior.event_shape)

    try:
        with torch.enable_grad():
            target = Target(log_likelihood, prior, free_bits=free_bits)
            ESTIMATORS[name](target, posterior, noise, samples)
    except (BenchError, NotImplementedError) as error:
        asked = traceback.extract_tb(error.__traceback__)[-1].name
        reason = str(error) or f"{type(posterior).__name__} has no {asked}"
        known = "" if reason.startswith(name) else f"{name} with S = {samples}: "
        raise BenchError(known + reason) from error
    return Passes(decoded[True], decoded[False])


def estimator_for(name: str, posterior: Distribution, prior: Distribution) -> Surrogate:
    """The estimator of that name; `auto` takes the quietest family the posterior admits.

    `pathwise` where samples are reparameterized and the KL is known in closed form,
    `pathwise_sampled_kl` where only the first holds, else `score_function_baseline`.
    Raises BenchError, with the nearest name, where there is none of that name.
    """
    if name != "auto":
        if name not in ESTIMATORS:
            raise nearest("estimator", name, ESTIMATORS)
        return ESTIMATORS[name].function
    if not posterior.has_rsample:
        return score_function_baseline
    try:
        divergence(posterior, prior)
    except NotImplementedError:
        return pathwise_sampled_kl
    return pathwise
