"""Likelihoods a variant can be combined with, instead of the Bernoulli of `Autoencoder`.

Mixed in behind the variant's own class, so that they replace what `Autoencoder` gives to every
variant but nothing a variant defines itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import ContinuousBernoulli, Independent

from vaes._shapes import Float
from vaes.base import Autoencoder


class GaussianLikelihood(Autoencoder):
    """p(x|z) = N(x; decode(z), s² I) for real-valued x, with s one learned number."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.log_noise = nn.Parameter(torch.zeros(()))

    def log_likelihood(
        self, x: Float[Tensor, "B D"], z: Float[Tensor, "*S B L"]
    ) -> Float[Tensor, "*S B"]:
        """log p(x|z), a log density, in nats."""
        squares = (x - self.decode(z).to(x.dtype)).square().sum(-1)
        log_normalizer = self.data_dim * (self.log_noise + 0.5 * math.log(2 * math.pi))
        return -0.5 * squares * (-2 * self.log_noise).exp() - log_normalizer

    @torch.no_grad()
    def initialise_output(self, mean: Float[Tensor, "D"]) -> None:
        """Set the output bias to the training mean."""
        self.decoder[-1].bias.copy_(mean)


class ContinuousBernoulliLikelihood(Autoencoder):
    """p(x|z) = Π_d CB(x_d; sigmoid(decode(z)_d)), a density of grey values in [0, 1].

    Loaiza-Ganem & Cunningham (2019): the Bernoulli's with its normalizer, 1 for no λ.
    """

    def log_likelihood(
        self, x: Float[Tensor, "B D"], z: Float[Tensor, "*S B L"]
    ) -> Float[Tensor, "*S B"]:
        """log p(x|z), a log density, in nats."""
        logits = self.decode(z).to(x.dtype)
        pixels = ContinuousBernoulli(logits=logits, validate_args=False)
        return Independent(pixels, 1, validate_args=False).log_prob(x.expand_as(logits))


LIKELIHOODS: dict[str, tuple[type[Autoencoder], ...]] = {
    "bernoulli": (),
    "gaussian": (GaussianLikelihood,),
    "continuous_bernoulli": (ContinuousBernoulliLikelihood,),
}
