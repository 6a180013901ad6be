"""Decoders a variant can be combined with, instead of the two hidden layers of `Autoencoder`.

Mixed in behind the variant's own class, like the likelihoods.
"""

from __future__ import annotations

from torch import nn

from vaes.base import Autoencoder


class LinearDecoder(Autoencoder):
    """decode(z) = W z + b; with a Gaussian likelihood, probabilistic PCA."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.decoder = nn.Sequential(nn.Linear(self.latent_dim, self.data_dim))


DECODERS: dict[str, tuple[type[Autoencoder], ...]] = {"mlp": (), "linear": (LinearDecoder,)}
