"""The shared networks and the contract every variant fulfils.

A variant is one class: it builds its extra parameters and returns q(z|x) as a
`torch.distributions` object from `posterior(x)`. Loss, ELBO, samples, gradient estimators and
evaluation follow from that object.

Shapes: x `(B, D)`, z `(..., B, L)`, logits `(..., B, D)`; log-probabilities `(..., B)` in nats.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal


def diagonal_gaussian(loc: Tensor, scale: Tensor) -> Independent:
    """N(loc, diag(scale²)) over the last axis; loc and scale `(..., L)`."""
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


def _value(x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_d [x_d l_d − softplus(l_d)], `(..., B)`, and sigmoid(|l|), `(..., B, D)`.

    softplus(l) = (l + |l|)/2 − log sigmoid(|l|). The logarithm is the dearest function here, so it
    is taken of products of some factors; none is below ½, hence no product underflows.
    """
    magnitudes = logits.abs()
    linear = torch.linalg.vecdot(x - 0.5, logits) - 0.5 * magnitudes.sum(-1)
    sigmoids = magnitudes.sigmoid_()
    together = next(n for n in range(64, 0, -1) if logits.shape[-1] % n == 0)
    products = sigmoids.unflatten(-1, (-1, together)).prod(-1)
    return linear + products.log_().sum(-1), sigmoids


class _BernoulliLogLikelihood(torch.autograd.Function):
    """`_value`, keeping only its derivative x − sigmoid(l) for backward.

    sigmoid(l) is ½ + sign(l) (sigmoid(|l|) − ½), so that each pixel takes one exponential.

    Autograd's own version keeps the logits and recomputes the sigmoid in several passes over
    the largest array of the training step.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        value, sigmoids = _value(x, logits)
        return value, x - 0.5 - (sigmoids - 0.5).copysign(logits)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        residual = output[1]
        ctx.mark_non_differentiable(residual)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(residual)

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
        (residual,) = ctx.saved_tensors
        return residual * grad.unsqueeze(-1), None


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x|z) = Σ_d log Bernoulli(x_d; sigmoid(logits_d)), `(..., B)`, in nats.

    x `(B, D)` in [0, 1]; logits `(..., B, D)`. For grey x this is minus the cross-entropy, not
    a density of x (Loaiza-Ganem & Cunningham, 2019).
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        return _BernoulliLogLikelihood.apply(logits, x)[0]
    return _value(x, logits)[0]


class Tanh(nn.Tanh):
    """tanh x; where no gradient is asked for as 2 sigmoid(2x) − 1, which takes half the time."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        return (2 * x).sigmoid_().mul_(2).sub_(1)


class Autoencoder(nn.Module):
    """Encoder D-H-H-L and decoder L-H-H-D with tanh units, shared by every variant.

    Arguments:
        data_dim: D, pixels per image.
        latent_dim: L.
        hidden_dim: H, units in each of the two hidden layers.
    """

    rank: ClassVar[int] = 100
    """Place in tables and colours, from simple to flexible; a newcomer goes last."""

    choices: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Hyperparameters (keyword arguments) to be chosen by validation ELBO, with candidates."""

    def __init__(self, data_dim: int, latent_dim: int = 20, hidden_dim: int = 200) -> None:
        super().__init__()
        self.data_dim, self.latent_dim, self.hidden_dim = data_dim, latent_dim, hidden_dim
        self.encoder = nn.Sequential(
            nn.Linear(data_dim, hidden_dim), Tanh(), nn.Linear(hidden_dim, hidden_dim), Tanh()
        )
        self.location = nn.Linear(hidden_dim, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim),
            Tanh(),
            nn.Linear(hidden_dim, hidden_dim),
            Tanh(),
            nn.Linear(hidden_dim, data_dim),
        )

    def encode(self, x: Tensor) -> Tensor:
        """The code (a VAE's posterior location) of x: `(B, D)` → `(B, L)`."""
        return self.location(self.encoder(x)).to(x.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """Logits of the pixels: `(..., L)` → `(..., D)`."""
        return self.decoder(z)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z): x `(B, D)`, z `(..., B, L)` → `(..., B)`, in nats."""
        return bernoulli_log_likelihood(x, self.decode(z).to(x.dtype))

    @torch.no_grad()
    def initialise_output(self, mean: Tensor) -> None:
        """Set the output bias to the logit of the training mean; mean `(D,)` in [0, 1]."""
        self.decoder[-1].bias.copy_(torch.logit(mean.clamp(1e-3, 1 - 1e-3)))


class VAE(Autoencoder, ABC):
    """An autoencoder whose code is a random variable: prior N(0, I), posterior q(z|x)."""

    def __init__(self, data_dim: int, latent_dim: int = 20, hidden_dim: int = 200) -> None:
        super().__init__(data_dim, latent_dim, hidden_dim)
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(latent_dim), persistent=False)

    @property
    def prior(self) -> Independent:
        """p(z) = N(0, I_L)."""
        return diagonal_gaussian(self.prior_loc, self.prior_scale)

    @abstractmethod
    def posterior(self, x: Tensor) -> Distribution:
        """q(z|x): x `(B, D)` → a distribution of batch shape `(B,)` and event shape `(L,)`."""
