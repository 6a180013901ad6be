"""An input-dependent posterior with convolutions in place of every network of `Autoencoder`.

To compare it: `python -m bench run --variants vaes/_examples/convolutional.py`. Images must be
square, of a side that 4 divides: it knows the number of pixels alone, and would take 8 x 32 for
16 x 16.
"""

import math

import torch
from torch import nn

from vaes.base import INITIAL_LOG_SCALE, VAE, diagonal_gaussian


class Convolutional(VAE):
    def __init__(self, data_dim, latent_dim=20, hidden_dim=200):
        super().__init__(data_dim, latent_dim, hidden_dim)
        del self.location
        side = math.isqrt(data_dim)
        if side * side != data_dim or side % 4:
            raise ValueError(f"images of {data_dim} pixels are no squares of a side that 4 divides")
        small = 32 * (side // 4) ** 2
        self.encoder = nn.Sequential(
            nn.Unflatten(-1, (1, side, side)),
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(small, 2 * latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, small),
            nn.SiLU(),
            nn.Unflatten(-1, (32, side // 4, side // 4)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
            nn.Flatten(),
        )
        with torch.no_grad():
            self.encoder[-1].bias[latent_dim:] = INITIAL_LOG_SCALE

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=-1)[0]

    def decode(self, z):
        return self.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1])

    def posterior(self, x):
        loc, log_scale = self.encoder(x).chunk(2, dim=-1)
        return diagonal_gaussian(loc, log_scale.exp())

    def initialise_output(self, mean):
        """One bias serves all pixels: that of their mean."""
        self.decoder[-2].bias.data.copy_(torch.logit(mean.mean().clamp(1e-3, 1 - 1e-3)))
