"""log p(x) by annealed importance sampling (Neal 2001), as Wu et al. (2017) evaluate decoders.

A chain starts at a draw of a known density s(z) and passes through π_t ∝ s^(1 − β_t) p(x, z)^β_t
with β rising from 0 to 1; at each temperature a Hamiltonian Monte Carlo transition leaves π_t as it
is. The weight

    log w = Σ_t (β_t − β_{t−1}) [log p(x, z_{t−1}) − log s(z_{t−1})]

has E[w] = p(x), so that log w is on average, and the log of a mean of weights too, a lower bound.
Steps are of a fixed size: one that follows the chain would make E[w] another number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from bench.inference.reparameterize import draw, standard_normal
from vaes._shapes import Float

Density = Callable[[Float[Tensor, "S B L"]], Float[Tensor, "S B"]]
"""z → a log density in nats, differentiable."""

LEAPFROG_STEPS = 4
JITTER = 0.2
"""Steps are longer or shorter by up to this share, so that no trajectory closes on itself."""
STEEPNESS = 4.0
"""Of the sigmoid along which β rises: slowly at both ends (Wu et al. 2017, sec. 5)."""


@dataclass(frozen=True)
class Annealed:
    """What a run of annealed importance sampling found.

    Attributes:
        log_weights: of each chain, float64, nats; `iw_bound` of them estimates log p(x).
        acceptance: share of proposals accepted, by image.
    """

    log_weights: Float[Tensor, "S B"]
    acceptance: Float[Tensor, "B"]


def annealed_importance(
    log_joint: Density,
    start: Distribution,
    generator: torch.Generator,
    chains: int,
    temperatures: int,
    scale: Float[Tensor, "B L"],
    step_size: float,
) -> Annealed:
    """S `chains` an image from `start`, of batch shape `(B,)` and event shape `(L,)`, to p(z|x).

    Arguments:
        log_joint: z → log p(x, z) for the B images.
        temperatures: T, how many β after 0.
        scale: of each coordinate of z; the inverse square roots of a diagonal mass matrix.
        step_size: of a leapfrog step, in units of `scale`.
    """
    noise = standard_normal(*scale.shape, generator)

    def place(z: Float[Tensor, "S B L"]) -> _Place:
        return _evaluated(start.log_prob, log_joint, z)

    at = place(draw(start, lambda n: noise(n).to(scale.dtype), chains))
    log_weights = torch.zeros_like(at.start, dtype=torch.float64)
    accepted = torch.zeros_like(log_weights)
    betas = schedule(temperatures)
    for before, beta in pairwise(betas):
        log_weights += (beta - before) * (at.joint.double() - at.start.double())
        if beta < 1:
            longer = 2 * torch.rand((), generator=generator, device=scale.device) - 1
            step = step_size * (1 + JITTER * longer) * scale
            momentum = noise(chains).to(scale.dtype)
            uniform = torch.rand(at.start.shape, generator=generator, device=scale.device)
            at, moved = _transition(place, at, beta, momentum, uniform, step)
            accepted += moved
    return Annealed(log_weights, accepted.mean(0) / max(1, temperatures - 1))


def evaluations(chains: int, temperatures: int) -> int:
    """How often `annealed_importance` evaluates p(x, z) for each image."""
    return chains * (1 + (temperatures - 1) * LEAPFROG_STEPS)


def schedule(temperatures: int) -> list[float]:
    """β_0 = 0 < … < β_T = 1, a sigmoid of equal steps stretched to both ends."""
    rising = torch.linspace(-STEEPNESS, STEEPNESS, temperatures + 1, dtype=torch.float64).sigmoid()
    return ((rising - rising[0]) / (rising[-1] - rising[0])).tolist()


class _Place(NamedTuple):
    """Where the chains are: z `(S, B, L)`, both log densities `(S, B)` there, their gradients."""

    z: Tensor
    start: Tensor
    joint: Tensor
    start_slope: Tensor
    joint_slope: Tensor

    def slope(self, beta: float) -> Float[Tensor, "S B L"]:
        """The gradient of log π at β."""
        return torch.lerp(self.start_slope, self.joint_slope, beta)

    def density(self, beta: float) -> Float[Tensor, "S B"]:
        """log π at β, up to a constant."""
        return torch.lerp(self.start.double(), self.joint.double(), beta)


def _evaluated(start: Density, log_joint: Density, z: Float[Tensor, "S B L"]) -> _Place:
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        values = start(z), log_joint(z)
    slopes = (torch.autograd.grad(value.sum(), z)[0] for value in values)
    return _Place(z.detach(), *(value.detach() for value in values), *slopes)


def _transition(
    place: Callable[[Tensor], _Place],
    at: _Place,
    beta: float,
    momentum: Float[Tensor, "S B L"],
    uniform: Float[Tensor, "S B"],
    step: Float[Tensor, "B L"],
) -> tuple[_Place, Tensor]:
    """One transition of Hamiltonian Monte Carlo at β (Neal 2011, sec. 3), and which chains moved.

    A momentum is standard normal where its coordinate is in units of `step`.
    """
    there, moving = at, momentum
    for _ in range(LEAPFROG_STEPS):
        moving = moving + 0.5 * step * there.slope(beta)
        there = place(there.z + step * moving)
        moving = moving + 0.5 * step * there.slope(beta)
    kinetic = 0.5 * (momentum.double().square() - moving.double().square()).sum(-1)
    # a trajectory that left the finite numbers compares as false
    moved = uniform.log() < there.density(beta) - at.density(beta) + kinetic
    chosen = (moved if new.dim() == 2 else moved.unsqueeze(-1) for new in there)
    return _Place(*map(torch.where, chosen, there, at)), moved
