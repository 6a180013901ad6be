"""Monte Carlo estimators of the ELBO: which integrand, and which samples.

An estimate averages S values of one of two integrands,

    analytic KL:  log p(x|z) − KL(q || p)             (Kingma & Welling 2014, eq. 7)
    sampled KL:   log p(x|z) + log p(z) − log q(z|x)  (eq. 6)

over samples that are independent, antithetic pairs, or a scrambled Sobol sequence (Owen 1998;
Buchholz et al. 2018). A new one is an entry of `KLS` or `SAMPLINGS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torch.quasirandom import SobolEngine

from bench.bounds import standard_normal
from bench.config import BenchError
from bench.gradients import Noise, draw, reparameterize
from vaes import VAE

PASSES_AT_ONCE = {"cpu": 200, "cuda": 20_000}
"""Larger arrays leave the processor's cache: ten times this is half as fast on a CPU."""

Sampling = Callable[[int, int, torch.Generator], Noise]


def antithetic(batch: int, latent_dim: int, generator: torch.Generator) -> Noise:
    """Pairs ε, −ε: `noise(n)` gives `(n, batch, latent_dim)`, each pair in adjacent places.

    Hammersley & Morton (1956). Raises BenchError for an odd n.
    """
    independent = standard_normal(batch, latent_dim, generator)

    def noise(n: int) -> Tensor:
        if n % 2:
            raise BenchError(
                f"estimator 'antithetic' draws samples in pairs and S={n} is odd: use an even S"
            )
        half = independent(n // 2)
        return torch.stack([half, -half], 1).flatten(0, 1)

    return noise


def sobol(batch: int, latent_dim: int, generator: torch.Generator) -> Noise:
    """Scrambled Sobol points through the inverse normal CDF: `noise(n)`, `(n, batch, latent_dim)`.

    One random linear scramble (Matoušek 1998) a call, and an independent random digital shift an
    image: each image sees a point set of the same law as a scramble of its own, a hundred times
    cheaper. A shift carries the sequence's first n points into any aligned block of n, hence all
    such blocks have the same law. Points sit in the middle of cells of width 2⁻³⁰, so that none
    is mapped to infinity.

    Raises BenchError where latent_dim exceeds the generator's limit.
    """
    if latent_dim > SobolEngine.MAXDIM:
        raise BenchError(
            f"estimator 'sobol' has no direction numbers for L={latent_dim}: the limit is "
            f"L={SobolEngine.MAXDIM}, use 'independent' or 'antithetic'"
        )
    cells, device = 2**SobolEngine.MAXBIT, generator.device

    def noise(n: int) -> Tensor:
        seed = torch.randint(2**31, (), generator=generator, device=device).item()
        points = SobolEngine(latent_dim, scramble=True, seed=seed).draw(n, dtype=torch.float64)
        shape = (batch, latent_dim)
        shift = torch.randint(cells, shape, generator=generator, device=device)
        # the engine rounds its first point to single precision, possibly up to 1
        cell = (points * cells).long() & (cells - 1)
        shifted = cell.to(device).unsqueeze(1) ^ shift
        return torch.special.ndtri((shifted.double() + 0.5) / cells)

    return noise


SAMPLINGS: dict[str, Sampling] = {
    "independent": standard_normal,
    "antithetic": antithetic,
    "sobol": sobol,
}


def sample(
    posterior: Distribution, sampling: str, samples: int, generator: torch.Generator, like: Tensor
) -> Tensor:
    """S samples of q(z|x), `(S, B, L)`, without gradient, of the type of `like`.

    Raises BenchError where the sampling does not admit S or L, and for `antithetic` and `sobol`
    where the posterior is not a map of standard normal noise.
    """
    batch, latent_dim = *posterior.batch_shape, *posterior.event_shape
    noise = SAMPLINGS[sampling](batch, latent_dim, generator)
    if sampling == "independent":
        return draw(posterior, lambda n: noise(n).to(like.dtype), samples)
    normal = noise(samples).to(like.dtype)
    try:
        return reparameterize(posterior, normal)
    except BenchError:
        raise BenchError(
            f"estimator '{sampling}' needs a map of standard normal noise to samples of "
            f"{type(posterior).__name__}: use 'independent'"
        ) from None


def _analytic_kl(model: VAE, posterior: Distribution, z: Tensor) -> Tensor:
    """−KL(q || p), `(B,)`."""
    try:
        return -kl_divergence(posterior, model.prior)
    except NotImplementedError:
        raise BenchError(
            f"estimator 'analytic KL' needs KL(q || p) in closed form, unknown for "
            f"{type(posterior).__name__}: use 'sampled KL'"
        ) from None


def _sampled_kl(model: VAE, posterior: Distribution, z: Tensor) -> Tensor:
    """log p(z) − log q(z|x), `(S, B)`."""
    try:
        return model.prior.log_prob(z) - posterior.log_prob(z)
    except NotImplementedError:
        raise BenchError(
            f"estimator 'sampled KL' needs log q(z|x), but {type(posterior).__name__} has no "
            "log_prob: use 'analytic KL'"
        ) from None


KLS = {"analytic": _analytic_kl, "sampled": _sampled_kl}


@torch.no_grad()
def elbo_estimate(
    model: VAE, x: Tensor, kl: str, sampling: str, samples: int, generator: torch.Generator
) -> Tensor:
    """One S-sample estimate of the ELBO of each image, `(B,)` in nats, unbiased.

    x `(B, D)`; `kl` is a key of `KLS`, `sampling` one of `SAMPLINGS`.
    Raises BenchError naming the estimator and the setting it does not admit.
    """
    posterior = model.posterior(x)
    z = sample(posterior, sampling, samples, generator, x)
    return (_log_likelihood(model, x, z) + KLS[kl](model, posterior, z)).mean(0)


def _log_likelihood(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z), `(S, B)`, decoded in parts of a size the device likes."""
    parts = z.split(max(1, PASSES_AT_ONCE[x.device.type] // len(x)))
    return torch.cat([model.log_likelihood(x, part) for part in parts])


@torch.no_grad()
def integrands(
    model: VAE,
    x: Tensor,
    sampling: str,
    samples: int,
    replicates: int,
    generator: torch.Generator,
) -> dict[str, Tensor | str]:
    """kl → values `(R, S, B)` in float64 of its integrand at the same z, or why there are none.

    Each of the R replicates is one call of the sampling scheme for S samples.
    """
    posterior = model.posterior(x)
    pools: dict[str, list[Tensor] | str] = {kl: [] for kl in KLS}
    for _ in range(replicates):
        try:
            z = sample(posterior, sampling, samples, generator, x)
        except BenchError as error:
            return dict.fromkeys(KLS, str(error))
        log_likelihood = _log_likelihood(model, x, z)
        for kl, correction in KLS.items():
            if isinstance(pools[kl], list):
                try:
                    value = log_likelihood + correction(model, posterior, z)
                    pools[kl].append(value.double())
                except BenchError as error:
                    pools[kl] = str(error)
    return {kl: torch.stack(p) if isinstance(p, list) else p for kl, p in pools.items()}
