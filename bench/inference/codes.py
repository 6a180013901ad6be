"""The code of an image under any variant: an autoencoder's code, a VAE's posterior mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from bench.inference.elbo import chunks
from bench.inference.reparameterize import Noise, draw
from vaes import VAE, Autoencoder
from vaes._shapes import Float

SAMPLES = 500
"""For posteriors whose moments torch does not know."""
AT_ONCE = 500


@torch.no_grad()
def codes(
    model: Autoencoder,
    images: Float[Tensor, "N D"],
    generator: torch.Generator,
    samples: int = SAMPLES,
) -> Float[Tensor, "N L"]:
    """E_q[z | x], or an autoencoder's encode(x).

    Where torch knows no mean, that of `samples` whose noise is the same for each image, so that
    sampling adds no differences between images.
    """
    if not isinstance(model, VAE):
        return torch.cat([model.encode(x) for x in chunks(images, AT_ONCE)])
    noise = whitened(model.latent_dim, generator, samples)
    return torch.cat([_mean(model, x, noise) for x in chunks(images, AT_ONCE)])


def _mean(model: VAE, x: Float[Tensor, "B D"], noise: Float[Tensor, "S L"]) -> Float[Tensor, "B L"]:
    posterior = model.posterior(x)
    try:
        return posterior.mean
    except NotImplementedError:
        return draw(posterior, shared(noise, len(x)), len(noise)).mean(0)


@torch.no_grad()
def covariances(
    model: VAE, x: Float[Tensor, "B D"], generator: torch.Generator
) -> Float[Tensor, "B L L"]:
    """Cov_q[z | x] from samples; exact where z is affine in Gaussian noise."""
    noise = shared(whitened(model.latent_dim, generator), len(x))
    z = draw(model.posterior(x), noise, SAMPLES)
    z = z - z.mean(0)
    return torch.einsum("sbi,sbj->bij", z, z) / len(z)


@torch.no_grad()
def unit_variances(
    model: VAE, images: Float[Tensor, "N D"], generator: torch.Generator
) -> Float[Tensor, "L"]:
    """Var_x(E_q[z_l | x]) of each latent (Burda et al. 2016, sec. 5.2)."""
    return codes(model, images, generator).var(0)


@torch.no_grad()
def direction_variances(
    model: VAE, images: Float[Tensor, "N D"], generator: torch.Generator
) -> Float[Tensor, "L"]:
    """Eigenvalues of Cov_x(E_q[z | x]), falling: variances of the codes along their own axes.

    Rotating the latents changes none of them, where it may spread one direction over all
    `unit_variances`.
    """
    covariance = torch.atleast_2d(torch.cov(codes(model, images, generator).double().mT))
    return torch.linalg.eigvalsh(covariance).flip(0).clamp_min(0)


def has_axes(posterior: Distribution) -> bool:
    """Whether the posterior tells the latents' axes from other directions: a Gaussian whose
    covariance is diagonal and no multiple of I.

    Families that are closed under rotation do not, as their prior N(0, I) does not either: one
    direction without information may then lie across all axes.
    """
    if not (isinstance(posterior, Independent) and isinstance(posterior.base_dist, Normal)):
        return False
    scale = posterior.base_dist.scale
    return not torch.allclose(scale, scale[..., :1].expand_as(scale))


def whitened(
    latent_dim: int, generator: torch.Generator, samples: int = SAMPLES
) -> Float[Tensor, "S L"]:
    """`samples` of Gaussian noise of mean 0 and covariance I, to rounding; more than L of them."""
    drawn = torch.randn((samples, latent_dim), generator=generator, device=generator.device)
    drawn = drawn - drawn.mean(0)
    root = torch.linalg.cholesky(drawn.mT @ drawn / samples)
    return torch.linalg.solve_triangular(root, drawn.mT, upper=False).mT


def shared(noise: Float[Tensor, "S L"], batch: int) -> Noise:
    """Noise for a batch in which every image has the same."""
    return lambda n: noise[:n].unsqueeze(1).expand(n, batch, noise.shape[-1])
