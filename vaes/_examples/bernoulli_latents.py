"""Independent Bernoulli latents, z in {0, 1}^L, under a fair prior.

To compare it: `python -m bench run --variants vaes/_examples/bernoulli_latents.py`. There is no
path from the noise to z, so that it is trained by the score function with a baseline.
"""

import torch
from torch.distributions import Bernoulli, Independent

from vaes.base import VAE


class BernoulliLatents(VAE):
    def __init__(self, data_dim, latent_dim=20, hidden_dim=200):
        super().__init__(data_dim, latent_dim, hidden_dim)
        self.register_buffer("prior_logits", torch.zeros(latent_dim), persistent=False)

    @property
    def prior(self):
        return Independent(Bernoulli(logits=self.prior_logits, validate_args=False), 1)

    def posterior(self, x):
        logits = self.location(self.encoder(x)).to(x.dtype)
        return Independent(Bernoulli(logits=logits, validate_args=False), 1)

    def encode(self, x):
        """The posterior mean, a probability of each latent."""
        return self.posterior(x).mean
