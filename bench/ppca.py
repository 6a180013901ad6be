"""Probabilistic PCA, the model whose every quantity is known (Tipping & Bishop 1999).

x = W z + b + s ε with z and ε standard normal: log p(x) is a Gaussian's, and the posterior of z is
Gaussian with a covariance that is the same for every x. A VAE with a linear decoder and a Gaussian
likelihood is this model (Lucas et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from vaes import VAE
from vaes._options import GaussianLikelihood, LinearDecoder

DATA_DIM = 20
COLUMN_NORMS = (1.5, 0.9, 0.6, 0.45)
NOISE = 0.3
"""The columns of W are orthogonal; posterior scales run from 0.2 to 0.55."""
SEED = 19990301


def generating_model() -> LowRankMultivariateNormal:
    """The p(x) that the data set `ppca` is drawn from; event shape `(D,)`, float64."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (DATA_DIM, len(COLUMN_NORMS))
    directions, _ = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    weight = directions * torch.tensor(COLUMN_NORMS, dtype=torch.float64)
    mean = 0.3 * torch.randn(DATA_DIM, generator=generator, dtype=torch.float64)
    return LowRankMultivariateNormal(mean, weight, torch.full_like(mean, NOISE**2))


def draw_images(count: int) -> Tensor:
    """The draws that the data set is made of, `(count, D)` in float64, the same each time."""
    model, generator = generating_model(), torch.Generator().manual_seed(SEED + 1)
    numbers = torch.randn(
        (count, DATA_DIM + len(COLUMN_NORMS)), generator=generator, dtype=torch.float64
    )
    noise, z = numbers[:, :DATA_DIM], numbers[:, DATA_DIM:]
    return model.loc + z @ model.cov_factor.T + noise * model.cov_diag.sqrt()


def is_ppca(model: VAE) -> bool:
    """Whether the model's p(x) is known exactly: a linear decoder, Gaussian likelihood."""
    return isinstance(model, LinearDecoder) and isinstance(model, GaussianLikelihood)


@torch.no_grad()
def marginal(model: VAE) -> LowRankMultivariateNormal:
    """p(x) = N(b, W Wᵀ + s² I) of a model that `is_ppca`; event shape `(D,)`, float64."""
    layer = model.decoder[0]
    weight, bias = layer.weight.double(), layer.bias.double()
    variance = (2 * model.log_noise.double()).exp()
    return LowRankMultivariateNormal(bias, weight, variance.expand_as(bias))


@torch.no_grad()
def exact_posterior(model: VAE, x: Tensor) -> MultivariateNormal:
    """p(z|x) = N(M⁻¹ Wᵀ(x − b), s² M⁻¹), M = WᵀW + s² I, of a model that `is_ppca`.

    x `(B, D)`; batch shape `(B,)`, event shape `(L,)`, float64.
    """
    p = marginal(model)
    weight, variance = p.cov_factor, p.cov_diag[0]
    precision = weight.T @ weight / variance + torch.eye(weight.shape[1]).to(weight)
    loc = torch.linalg.solve(precision, ((x.double() - p.loc) @ weight / variance).T).T
    return MultivariateNormal(loc, precision_matrix=precision.expand(len(x), -1, -1))
