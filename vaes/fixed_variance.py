"""q(z|x) = N(encode(x), s² I) with s a constant, chosen on validation ELBO."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaes._shapes import Float
from vaes.base import VAE, diagonal_gaussian


class FixedVariance(VAE):
    """The simplest posterior: one spread for every image and every latent."""

    rank = 1
    choices = {"scale": (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)}

    def __init__(self, *args, scale: float = 0.3, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def posterior(self, x: Float[Tensor, "B D"]) -> Distribution:
        loc = self.encode(x)
        return diagonal_gaussian(loc, self.scale.expand_as(loc))
