"""The contract every variant fulfils.

A variant is one file with one class. A `VAE` must provide

    posterior(x) -> q(z|x), a `torch.distributions` object, of the parameters it adds in __init__;

loss, ELBO, samples, gradient estimators and evaluation follow from that object. A plain
`Autoencoder` provides nothing: it is complete. What either may replace stands in `Autoencoder`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaes._ops import Tanh, bernoulli_log_likelihood
from vaes._shapes import Float

INITIAL_LOG_SCALE = math.log(0.3)
"""log s of a posterior N(loc, s²) when training starts: the same for every variant that learns s,
since Adam moves a number by no more than its rate a step."""


class Autoencoder(nn.Module):
    """Encoder D-H-H-L and decoder L-H-H-D with tanh units, shared by every variant.

    Arguments:
        data_dim: D, pixels per image.
        latent_dim: L.
        hidden_dim: units in each of the two hidden layers, or in each of as many layers as there
            are numbers, from the image on (the decoder has them in reverse).

    Attributes:
        hidden_dim: H, units in the encoder's last hidden layer.
    """

    rank: ClassVar[int] = 100
    """Place in tables and colours, from simple to flexible; a newcomer goes last."""

    activation: ClassVar[Callable[[], nn.Module]] = Tanh
    """Makes what follows each hidden layer."""

    choices: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Hyperparameters (keyword arguments) to be chosen by validation ELBO, with candidates."""

    def __init__(
        self, data_dim: int, latent_dim: int = 20, hidden_dim: int | Sequence[int] = 200
    ) -> None:
        super().__init__()
        widths = (hidden_dim, hidden_dim) if isinstance(hidden_dim, int) else tuple(hidden_dim)
        self.data_dim, self.latent_dim, self.hidden_dim = data_dim, latent_dim, widths[-1]
        self.encoder = nn.Sequential(*self.hidden_layers(data_dim, *widths))
        self.location = nn.Linear(widths[-1], latent_dim)
        self.decoder = nn.Sequential(
            *self.hidden_layers(latent_dim, *reversed(widths)), nn.Linear(widths[0], data_dim)
        )

    def hidden_layers(self, *widths: int) -> Iterator[nn.Module]:
        """Between these widths, a linear layer and its activation each."""
        for inputs, outputs in pairwise(widths):
            yield nn.Linear(inputs, outputs)
            yield self.activation()

    def encode(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B L"]:
        """The code (a VAE's posterior location) of x."""
        return self.location(self.encoder(x)).to(x.dtype)

    def decode(self, z: Float[Tensor, "*B L"]) -> Float[Tensor, "*B D"]:
        """Logits of the pixels."""
        return self.decoder(z)

    def log_likelihood(
        self, x: Float[Tensor, "B D"], z: Float[Tensor, "*S B L"]
    ) -> Float[Tensor, "*S B"]:
        """log p(x|z), in nats."""
        return bernoulli_log_likelihood(x, self.decode(z).to(x.dtype))

    @torch.no_grad()
    def initialise_output(self, mean: Float[Tensor, "D"]) -> None:
        """Set the output bias to the logit of the training mean, in [0, 1]."""
        self.decoder[-1].bias.copy_(torch.logit(mean.clamp(1e-3, 1 - 1e-3)))


class VAE(Autoencoder, ABC):
    """An autoencoder whose code is a random variable: prior p(z), posterior q(z|x)."""

    def __init__(
        self, data_dim: int, latent_dim: int = 20, hidden_dim: int | Sequence[int] = 200
    ) -> None:
        super().__init__(data_dim, latent_dim, hidden_dim)
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(latent_dim), persistent=False)

    @property
    def prior(self) -> Distribution:
        """p(z) = N(0, I_L); a variant may return another, of event shape `(L,)`."""
        return diagonal_gaussian(self.prior_loc, self.prior_scale)

    @abstractmethod
    def posterior(self, x: Float[Tensor, "B D"]) -> Distribution:
        """q(z|x), a distribution of batch shape `(B,)` and event shape `(L,)`.

        >>> class OneScale(VAE):
        ...     def __init__(self, *args, **kwargs):
        ...         super().__init__(*args, **kwargs)
        ...         self.log_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))
        ...
        ...     def posterior(self, x):
        ...         loc = self.encode(x)
        ...         return diagonal_gaussian(loc, self.log_scale.exp().expand_as(loc))
        >>> q = OneScale(data_dim=6, latent_dim=2).posterior(torch.ones(3, 6))
        >>> q.batch_shape, q.event_shape
        (torch.Size([3]), torch.Size([2]))
        """


def diagonal_gaussian(loc: Float[Tensor, "*B L"], scale: Float[Tensor, "*B L"]) -> Independent:
    """N(loc, diag(scale²)) over the last axis."""
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)
