"""An input-dependent posterior whose scale is a softplus, as Davidson et al. (2018) have it."""

from torch import nn
from torch.nn.functional import softplus

from vaes.base import VAE, diagonal_gaussian


class SoftplusScale(VAE):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.raw_scale = nn.Linear(self.hidden_dim, self.latent_dim)

    def posterior(self, x):
        features = self.encoder(x)
        loc, scale = self.location(features), softplus(self.raw_scale(features))
        return diagonal_gaussian(loc.to(x.dtype), scale.to(x.dtype))
