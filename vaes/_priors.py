"""Priors a VAE can be combined with, instead of the standard normal.

Mixed in behind the variant's own class, like the likelihoods. Their parameters are learned with the
others; their KL has no closed form and is sampled.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from vaes._likelihoods import GaussianLikelihood
from vaes.base import VAE, diagonal_gaussian

COMPONENTS = 50
"""Of a mixture."""


class MixturePrior(VAE):
    """p(z) = Σ_k π_k N(z; μ_k, diag(s_k²)), all of it learned."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.prior_logits = nn.Parameter(torch.zeros(COMPONENTS))
        self.prior_locations = nn.Parameter(torch.randn(COMPONENTS, self.latent_dim))
        self.prior_log_scales = nn.Parameter(torch.zeros(COMPONENTS, self.latent_dim))

    @property
    def prior(self) -> Distribution:
        components = diagonal_gaussian(self.prior_locations, self.prior_log_scales.exp())
        return _mixture(self.prior_logits, components)


class VampPrior(VAE):
    """p(z) = mean over k of q(z|u_k), at learned inputs u_k (Tomczak & Welling 2018).

    Images in (0, 1), or any real values where the likelihood is Gaussian.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.pseudo_inputs = nn.Parameter(torch.randn(COMPONENTS, self.data_dim))
        self.register_buffer("prior_logits", torch.zeros(COMPONENTS), persistent=False)

    @property
    def prior(self) -> Distribution:
        real = isinstance(self, GaussianLikelihood)
        inputs = self.pseudo_inputs if real else self.pseudo_inputs.sigmoid()
        return _mixture(self.prior_logits, self.posterior(inputs))


def _mixture(logits: torch.Tensor, components: Distribution) -> MixtureSameFamily:
    weights = Categorical(logits=logits, validate_args=False)
    return MixtureSameFamily(weights, components, validate_args=False)


PRIORS: dict[str, tuple[type[VAE], ...]] = {
    "standard_normal": (),
    "mixture": (MixturePrior,),
    "vamp": (VampPrior,),
}
