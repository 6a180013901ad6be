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


def best_of_scale(
    x: Float[Tensor, "N D"], latent_dim: int, scale: float
) -> tuple[LowRankMultivariateNormal, float]:
    """The p(x) that maximises the mean ELBO of x where q(z|x) = N(E[z|x], scale² I), and its KL.

    The columns of W lie along the data's first principal axes, and with lengths w the posterior's
    precisions are p = 1 + w² / s²; KL = ½ Σ (scale² p − 1 − log(scale² p)), the same for every x.
    p(x) has event shape `(D,)`, float64; the KL is in nats. With a covariance of its own the best q
    leaves no KL, and the best p(x) is that of maximum likelihood (Tipping & Bishop 1999, eq. 7-8).
    """
    x = x.double()
    variances, axes = torch.linalg.eigh(x.T.cov(correction=0))
    variances, axes = variances.flip(0), axes.flip(1)[:, :latent_dim]
    first, rest = variances[:latent_dim], variances[latent_dim:]
    likeliest = [(first - rest.mean()).clamp_min(1e-3), rest.mean().unsqueeze(0)]
    logs = (torch.cat(likeliest).log() / 2).requires_grad_()

    def parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lengths, noise = logs[:-1].exp(), (2 * logs[-1]).exp()
        whole = lengths.square() + noise
        terms = whole.log() + first / whole
        likelihood = -0.5 * (terms.sum() + len(rest) * noise.log() + rest.sum() / noise)
        even = scale**2 * whole / noise
        return likelihood, 0.5 * (even - 1 - even.log()).sum(), lengths, noise

    optimizer = torch.optim.LBFGS([logs], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        likelihood, divergence, *_ = parts()
        value = divergence - likelihood
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        _, divergence, lengths, noise = parts()
        p = LowRankMultivariateNormal(x.mean(0), axes * lengths, noise.expand(x.shape[1]))
        return p, divergence.item()
