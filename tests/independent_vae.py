"""A variational autoencoder of 8 x 8 digits in plain PyTorch, written apart from the suite.

It imports nothing of `bench` or `vaes`. `test_independent_vae.py` trains it beside the suite's
`input_dependent` and compares their ELBOs; `python tests/independent_vae.py` trains one model.

The model, with x an image of D = 64 black or white pixels and z a code of L numbers:

    p(z)   = N(0, I)
    p(x|z) = Bernoulli(sigmoid(decoder(z)))
    q(z|x) = N(mean(x), diag(scale(x)²)), mean and log scale by the encoder

It maximizes ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)), in nats per image, a lower bound of
log p(x) (Kingma & Welling 2014, eq. 3).
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

BATCH = 100
LEARNING_RATE = 1e-3


def digits() -> tuple[Tensor, Tensor, Tensor]:
    """Grey images in [0, 1] to train, validate and test with: (1297, 64), (200, 64), (300, 64)."""
    grey = np.rint(load_digits().data * 255 / 16) / 255  # as bytes, the way files keep pixels
    shuffled = grey[np.random.RandomState(20130612).permutation(len(grey))]
    return torch.tensor(shuffled, dtype=torch.float32).split([1297, 200, 300])


def binarized(grey: Tensor) -> Tensor:
    """Each pixel white with the probability of its grey (Salakhutdinov & Murray 2008)."""
    return torch.bernoulli(grey)


class VAE(nn.Module):
    """Two networks of two hidden layers; images (B, D), codes (B, L)."""

    def __init__(self, mean_image: Tensor, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        pixels = len(mean_image)
        self.encoder = nn.Sequential(
            nn.Linear(pixels, hidden_dim),
            nn.Tanh(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.Tanh(),
            nn.Linear(hidden_dim, 2 * latent_dim),  # the mean, then the logarithm of the scale
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim),
            nn.Tanh(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.Tanh(),
            nn.Linear(hidden_dim, pixels),
        )
        # At first, whatever z is, every pixel is about as often white as in the data.
        self.decoder[-1].bias.data = torch.logit(mean_image.clamp(1e-3, 1 - 1e-3))

    def elbo(self, x: Tensor) -> Tensor:
        """The ELBO of each image, (B,), estimated from one sample of its posterior."""
        mean, log_scale = self.encoder(x).chunk(2, dim=-1)
        # Reparameterized: noise apart from the weights, so that the gradient passes through z.
        z = mean + log_scale.exp() * torch.randn_like(mean)
        log_likelihood = -binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none")
        return log_likelihood.sum(-1) - kl_to_prior(mean, log_scale)


def kl_to_prior(mean: Tensor, log_scale: Tensor) -> Tensor:
    """KL(N(mean, diag(scale²)) || N(0, I)) in closed form, (B,)."""
    return 0.5 * (mean**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(-1)


@torch.no_grad()
def mean_elbo(model: VAE, images: Tensor, samples: int) -> float:
    """The ELBO in nats per image, averaged over the images and so many samples of each."""
    return np.mean([model.elbo(images).mean().item() for _ in range(samples)])


def learning_rate(progress: float) -> float:
    """Constant, then linear down to 2 % over the last fifth; progress in [0, 1)."""
    return LEARNING_RATE * (0.02 + 0.98 * min(1.0, 5 * (1 - progress)))


def train(
    grey: Tensor, valid: Tensor, seed: int, epochs: int, latent_dim: int = 8, hidden_dim: int = 100
) -> VAE:
    """The model of the epoch whose ELBO was highest on the binary validation images."""
    torch.manual_seed(seed)
    model = VAE(grey.mean(0), latent_dim, hidden_dim)
    optimizer = torch.optim.Adam(model.parameters())
    highest, best = -np.inf, model
    for epoch in range(epochs):
        batches = torch.randperm(len(grey)).split(BATCH)
        for step, batch in enumerate(batches):
            progress = (epoch + step / len(batches)) / epochs
            optimizer.param_groups[0]["lr"] = learning_rate(progress)
            loss = -model.elbo(binarized(grey[batch])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reached = mean_elbo(model, valid, samples=5)
        if reached > highest:
            highest, best = reached, copy.deepcopy(model)
    return best


if __name__ == "__main__":
    train_images, valid_images, test_images = digits()
    torch.manual_seed(0)
    valid_images, test_images = binarized(valid_images), binarized(test_images)
    vae = train(train_images, valid_images, seed=0, epochs=300)
    print(f"test ELBO {mean_elbo(vae, test_images, samples=100):.2f} nats per image")
