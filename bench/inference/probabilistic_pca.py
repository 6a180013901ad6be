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
from vaes._likelihoods import GaussianLikelihood
from vaes._networks import LinearDecoder
from vaes._shapes import Float


def is_probabilistic_pca(model: VAE) -> bool:
    """Whether the model's p(x) is known exactly: linear decoder, Gaussian likelihood, and prior
    N(0, I)."""
    linear = isinstance(model, LinearDecoder) and isinstance(model, GaussianLikelihood)
    return linear and type(model).prior is VAE.prior


@torch.no_grad()
def marginal(model: VAE) -> LowRankMultivariateNormal:
    """p(x) = N(b, W Wᵀ + s² I) of a model that `is_probabilistic_pca`.

    Event shape `(D,)`, float64.
    """
    layer = model.decoder[0]
    weight, bias = layer.weight.double(), layer.bias.double()
    variance = (2 * model.log_noise.double()).exp()
    return LowRankMultivariateNormal(bias, weight, variance.expand_as(bias))


@torch.no_grad()
def exact_posterior(model: VAE, x: Float[Tensor, "B D"]) -> MultivariateNormal:
    """p(z|x) = N(M⁻¹ Wᵀ(x − b), s² M⁻¹), M = WᵀW + s² I, of a model that `is_probabilistic_pca`.

    Batch shape `(B,)`, event shape `(L,)`, float64.
    """
    p = marginal(model)
    weight, variance = p.cov_factor, p.cov_diag[0]
    precision = weight.T @ weight / variance + torch.eye(weight.shape[1]).to(weight)
    loc = torch.linalg.solve(precision, ((x.double() - p.loc) @ weight / variance).T).T
    return MultivariateNormal(loc, precision_matrix=precision.expand(len(x), -1, -1))
