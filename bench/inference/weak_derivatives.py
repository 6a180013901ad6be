"""The measure-valued gradient, from weak derivatives of a Gaussian."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from bench.errors import BenchError
from bench.inference.gradients import registered
from bench.inference.reparameterize import Noise
from bench.inference.target import Target
from vaes._shapes import Float


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
            f"measure_valued needs independent Gaussian latents, not {type(base).__name__}: "
            "take another estimator, such as pathwise"
        )
    return base.loc, base.scale
