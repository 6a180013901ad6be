"""Unusual VAEs: posteriors and likelihoods that an estimator may not admit."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Transform,
    TransformedDistribution,
    constraints,
)
from torch.distributions.transforms import TanhTransform

from vaes import VAE, discover
from vaes.base import diagonal_gaussian


class Correlated(VAE):
    """Full covariance; the Cholesky factor of a covariance it computes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.root = nn.Linear(self.hidden_dim, self.latent_dim**2)

    def posterior(self, x):
        features = self.encoder(x)
        root = self.root(features).unflatten(-1, (self.latent_dim, self.latent_dim))
        eye = torch.eye(self.latent_dim, dtype=x.dtype)
        return MultivariateNormal(
            self.location(features), root @ root.mT + eye, validate_args=False
        )


class Shift(Transform):
    """z + net(x-free constant direction): a transform that is made of a module."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, net, along):
        super().__init__()
        self.net, self.along = net, along

    def _call(self, z):
        return z + self.net(self.along)

    def _inverse(self, z):
        return z - self.net(self.along)

    def log_abs_det_jacobian(self, z, _):
        return z.new_zeros(z.shape[:-1])


class ModuleFlow(VAE):
    """A flow whose transform holds a module with weights of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.net = nn.Sequential(
            nn.Linear(self.latent_dim, 4), nn.Tanh(), nn.Linear(4, self.latent_dim)
        )

    def posterior(self, x):
        loc = self.encode(x)
        base = diagonal_gaussian(loc, torch.full_like(loc, 0.5))
        return TransformedDistribution(base, [Shift(self.net, loc.detach())], validate_args=False)


class Reused(VAE):
    """A posterior whose scale uses the location's weights once more, outside of their layer."""

    def posterior(self, x):
        loc = self.encode(x)
        norm = self.location.weight.square().sum(1).add(0.1).sqrt()
        return diagonal_gaussian(loc, norm.expand_as(loc))


class Mixture(VAE):
    """Two Gaussians: no `rsample`, no closed-form KL."""

    def posterior(self, x):
        loc = self.encode(x)
        both = torch.stack([loc, loc + 1], -2)
        weights = Categorical(torch.full((len(x), 2), 0.5, dtype=x.dtype), validate_args=False)
        parts = Independent(Normal(both, torch.full_like(both, 0.5), validate_args=False), 1)
        return MixtureSameFamily(weights, parts, validate_args=False)


class Overflowing(discover().variants["input_dependent"]):
    """A likelihood whose gradient is infinite."""

    def log_likelihood(self, x, z):
        return super().log_likelihood(x, z) / (0 * z.sum(-1))


class OneScale(VAE):
    """One learned number for every image and latent: a weight without an axis."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def posterior(self, x):
        loc = self.encode(x)
        return diagonal_gaussian(loc, self.log_scale.exp().expand_as(loc))


class Squashed(VAE):
    """Has samples and a density, but no closed-form KL."""

    def posterior(self, x):
        loc = self.encode(x)
        base = diagonal_gaussian(loc, torch.full_like(loc, 0.5))
        return TransformedDistribution(base, [TanhTransform(cache_size=1)])


class LaplacePosterior(VAE):
    """Is no map of standard normal noise."""

    def posterior(self, x):
        loc = self.encode(x)
        return Independent(Laplace(loc, torch.ones_like(loc)), 1)


class Sampler(Distribution):
    """A posterior that can only be sampled."""

    def __init__(self, loc):
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)
        self.loc = loc

    def sample(self, sample_shape=()):
        return self.loc + torch.rand(*sample_shape, *self.loc.shape)


class Implicit(VAE):
    """Has no density."""

    def posterior(self, x):
        return Sampler(self.encode(x))


class Broken(discover().variants["input_dependent"]):
    """A likelihood that is the given number for the first image."""

    number = math.nan

    def log_likelihood(self, x, z):
        value = super().log_likelihood(x, z).double().clone()
        value[:, 0] = z[:, 0, 0].double() * self.number
        return value


def perturbed(variant, data_dim=12, latent_dim=3, scale=0.2):
    """A model of that variant whose weights are its first ones and Gaussian noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = variant(data_dim, latent_dim, 6)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += scale * torch.randn_like(parameter)
    return model.eval()
