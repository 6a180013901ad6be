"""log p(x) by importance sampling from a mixture whose widest parts are alike for every variant.

A posterior fitted by its ELBO is narrower than the truth, so that samples of it alone miss some of
p(x), the more the poorer its family: differences between variants would be those of the bias. The
mixture adds Gaussians with the curvature of log p(x, z), one as wide as that says and wider ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from bench.inference.importance import iw_bound, samples_at_once
from bench.inference.reparameterize import Noise, draw, standard_normal
from vaes import VAE
from vaes._shapes import Float

SPREADS = (1.0, 1.5, 2.25)
"""Covariances of the Gaussians, relative to what the curvature says."""
CENTRE_DRAWS = 256
CURVATURE_DRAWS = 4
DISTANCE = 0.05
"""From z to the gradients whose difference is a curvature; posteriors' σ are some 0.1 to 1."""


@dataclass(frozen=True)
class Weighed:
    """S samples of each of J proposals q_j for each image.

    Attributes:
        joint: log p(x, z), nats.
        proposals: log q_i(z), by i first.
    """

    joint: Float[Tensor, "J S B"]
    proposals: Float[Tensor, "J J S B"]

    def elbo(self, j: int) -> Float[Tensor, "B"]:
        """Of the proposal j, from its own samples."""
        return (self.joint[j] - self.proposals[j, j]).mean(0)

    def log_weights(self) -> Float[Tensor, "J S B"]:
        """log p(x, z) − log (1/J) Σ_i q_i(z), the balance heuristic (Veach & Guibas 1995).

        Their `iw_bound` over all samples is a lower bound of log p(x), never worse by more than
        log J than that of the best proposal.
        """
        return self.joint - self.proposals.logsumexp(0) + math.log(len(self.joint))


@torch.no_grad()
def weighed(
    model: VAE,
    x: Float[Tensor, "B D"],
    proposals: Sequence[Distribution],
    generator: torch.Generator,
    samples: int,
) -> Weighed:
    """`samples` of each proposal, of batch shape `(B,)`; densities in float64."""
    noise = noise_for(model, x, generator)
    z = torch.stack([draw(q, noise, samples) for q in proposals])
    return Weighed(*_densities(model, x, proposals, z))


def _densities(
    model: VAE, x: Float[Tensor, "B D"], proposals: Sequence[Distribution], z: Tensor
) -> tuple[Tensor, Tensor]:
    """log p(x, z) and each log q_i(z) for z `(…, B, L)`, in float64."""
    every = z.flatten(0, -3)
    parts = every.split(samples_at_once(x, len(every)))
    joint = model.prior.log_prob(every) + torch.cat([model.log_likelihood(x, p) for p in parts])
    own = torch.stack([q.log_prob(every) for q in proposals])
    return joint.double().view(z.shape[:-1]), own.double().view(len(own), *z.shape[:-1])


@torch.no_grad()
def sandwich(
    model: VAE,
    x: Float[Tensor, "B D"],
    code: Float[Tensor, "B L"],
    proposals: Sequence[Distribution],
    generator: torch.Generator,
    samples: int,
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """L_K and U_K of x simulated from the model with this code: E L_K ≤ E log p(x) ≤ E U_K.

    K = J · `samples`. The code is an exact draw of p(z|x). It takes the place of one sample of the
    proposal j, drawn in proportion to q_j(code); then E[1/ŵ] = 1/p(x) for the mean weight ŵ, so
    that log ŵ is above log p(x) on average (Grosse, Ghahramani & Adams 2015).
    """
    found = weighed(model, x, proposals, generator, samples)
    log_weights = found.log_weights()
    joint, own = _densities(model, x, proposals, code.unsqueeze(0))
    of_code = joint[0] - own[:, 0].logsumexp(0) + math.log(len(own))
    place = torch.multinomial(own[:, 0].softmax(0).T, 1, generator=generator)
    replaced = log_weights.clone()
    replaced[place[:, 0], 0, torch.arange(len(x), device=x.device)] = of_code
    lower, upper = (iw_bound(w.flatten(0, 1)) for w in (log_weights, replaced))
    return lower, upper


def around(
    model: VAE,
    x: Float[Tensor, "B D"],
    posterior: Distribution,
    generator: torch.Generator,
) -> list[MultivariateNormal]:
    """Gaussians around the posterior's mean, with covariances `SPREADS` · (−E_q ∇²log p(x, z))⁻¹.

    Of all Gaussians of its mean, the one of spread 1 has the highest ELBO up to the difference
    between its expectation and the posterior's (Opper & Archambeau 2009, eq. 8). Curvatures are
    differences of gradients, since a likelihood need not be differentiable twice. Before their
    spread no direction is wider than N(0, I), which for another prior is a choice and no bound.
    """
    noise = noise_for(model, x, generator)
    centre = draw(posterior, noise, CENTRE_DRAWS).mean(0)
    z = draw(posterior, noise, CURVATURE_DRAWS)

    def slope(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            joint = model.log_likelihood(x, z) + model.prior.log_prob(z)
            return torch.autograd.grad(joint.sum(), z)[0]

    shifts = DISTANCE * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    columns = [(slope(z - shift) - slope(z + shift)).mean(0) for shift in shifts]
    precision = torch.stack(columns, -1) / (2 * DISTANCE)
    values, directions = torch.linalg.eigh(0.5 * (precision + precision.mT))
    # whatever the noise of the differences
    root = directions * values.clamp_min(1).rsqrt().unsqueeze(-2)
    covariance = root @ root.mT
    return [
        MultivariateNormal(centre, spread * covariance, validate_args=False) for spread in SPREADS
    ]


def noise_for(model: VAE, x: Float[Tensor, "B D"], generator: torch.Generator) -> Noise:
    """Standard normal noise for these images, of their type."""
    noise = standard_normal(len(x), model.latent_dim, generator)
    return lambda n: noise(n).to(x.dtype)
