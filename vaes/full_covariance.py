"""q(z|x) = N(encode(x), T(x) T(x)ᵀ): latents may be correlated given the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, register_kl

from vaes._shapes import Float
from vaes.base import INITIAL_LOG_SCALE, VAE


class FullCovariance(VAE):
    """A Gaussian with a Cholesky factor from the encoder (Kingma & Welling 2019, sec. 2.5.1)."""

    rank = 4

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        size = self.latent_dim
        self.log_scale = nn.Linear(self.hidden_dim, size)
        nn.init.constant_(self.log_scale.bias, INITIAL_LOG_SCALE)
        self.below_diagonal = nn.Linear(self.hidden_dim, size * (size - 1) // 2)
        # the diagonal posterior is where training starts
        nn.init.zeros_(self.below_diagonal.weight)
        nn.init.zeros_(self.below_diagonal.bias)
        place = torch.zeros(size, size, dtype=torch.long)
        place.diagonal().copy_(torch.arange(1, size + 1))
        row, column = torch.tril_indices(size, size, offset=-1)
        place[row, column] = torch.arange(size + 1, size + 1 + len(row))
        self.register_buffer("_place", place.flatten(), persistent=False)

    def posterior(self, x: Float[Tensor, "B D"]) -> Distribution:
        features = self.encoder(x)
        loc, log_scale = self.location(features), self.log_scale(features)
        zero = features.new_zeros(len(x), 1)
        entries = torch.cat([zero, log_scale.exp(), self.below_diagonal(features)], -1)
        scale_tril = entries.index_select(-1, self._place).unflatten(-1, loc.shape[-1:] * 2)
        return MultivariateNormal(
            loc.to(x.dtype), scale_tril=scale_tril.to(x.dtype), validate_args=False
        )


@register_kl(MultivariateNormal, Independent)
def _kl_to_diagonal(q: MultivariateNormal, p: Independent) -> Float[Tensor, "*B"]:
    """KL(q || p) of a Gaussian to one with independent components, in nats."""
    if not isinstance(p.base_dist, torch.distributions.Normal):
        raise NotImplementedError
    scale = p.base_dist.scale
    spread = (q.scale_tril / scale.unsqueeze(-1)).square().sum((-2, -1))
    shift = ((q.loc - p.base_dist.loc) / scale).square().sum(-1)
    log_ratio = (q.scale_tril.diagonal(dim1=-2, dim2=-1).log() - scale.log()).sum(-1)
    return 0.5 * (spread + shift - scale.shape[-1]) - log_ratio
