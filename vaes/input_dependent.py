"""q(z|x) = N(encode(x), diag(s(x)²)): the encoder says how sure it is of each latent."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from vaes._shapes import Float
from vaes.base import INITIAL_LOG_SCALE, VAE, diagonal_gaussian


class InputDependent(VAE):
    """The posterior of Kingma & Welling (2014): location and scale from one shared trunk."""

    rank = 3

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Linear(self.hidden_dim, self.latent_dim)
        nn.init.constant_(self.log_scale.bias, INITIAL_LOG_SCALE)

    def posterior(self, x: Float[Tensor, "B D"]) -> Distribution:
        features = self.encoder(x)
        loc, log_scale = self.location(features), self.log_scale(features)
        return diagonal_gaussian(loc.to(x.dtype), log_scale.to(x.dtype).exp())
