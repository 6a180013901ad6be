"""q(z|x) = N(encode(x), diag(s²)) with s one learned vector, the same for every x."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaes._shapes import Float
from vaes.base import INITIAL_LOG_SCALE, VAE, diagonal_gaussian


class LearnedDiagonal(VAE):
    """Each latent has its own spread, shared by all images."""

    rank = 2

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Parameter(torch.full((self.latent_dim,), INITIAL_LOG_SCALE))

    def posterior(self, x: Float[Tensor, "B D"]) -> Distribution:
        loc = self.encode(x)
        return diagonal_gaussian(loc, self.log_scale.exp().expand_as(loc))
