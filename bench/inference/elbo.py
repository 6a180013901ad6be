"""The ELBO: its two terms for each noise sample, and Monte Carlo estimators of it.

ELBO = −(distortion + rate) with distortion −E_q log p(x|z) and rate KL(q || p). An estimator
averages S values of one of two integrands,

    analytic KL:  log p(x|z) − KL(q || p)             (Kingma & Welling 2014, eq. 7)
    sampled KL:   log p(x|z) + log p(z) − log q(z|x)  (eq. 6)

over samples that are independent, antithetic pairs, or a scrambled Sobol sequence (Matoušek 1998;
Buchholz et al. 2018). A new one is an entry of `KLS` or `SAMPLINGS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.quasirandom import SobolEngine

from bench.errors import BenchError
from bench.inference.compiled import Compiled, where_it_pays
from bench.inference.divergence import divergence
from bench.inference.native import NotCompiled
from bench.inference.reparameterize import (
    Noise,
    draw,
    is_map_of_noise,
    reparameterize,
    standard_normal,
)
from bench.inference.sobol import CELLS, MOST_LATENTS, cells_of, shifted_normals
from vaes import VAE, Autoencoder
from vaes._shapes import Float

Terms = Callable[
    [Autoencoder, Float[Tensor, "B D"], Noise, int],
    tuple[Float[Tensor, "S B"], Float[Tensor, "S B"]],
]
"""A function like `elbo_terms`."""

WORTHWHILE = 3e11
"""Decoder passes × weights of all evaluations to come from which compiling them pays: that takes
some 4 s for a variant's first run and 1 s, from the disk, for the others, and saves a third."""

PASSES_AT_ONCE = {"cpu": 200, "cuda": 20_000}
"""What was fastest: ten times this is half as fast on a CPU."""


@torch.no_grad()
def elbo_terms(
    model: Autoencoder, x: Float[Tensor, "B D"], noise: Noise, samples: int
) -> tuple[Float[Tensor, "S B"], Float[Tensor, "S B"]]:
    """Distortion and rate of each noise sample, in nats; ELBO = −(their sum).

    The rate is the closed-form KL where torch knows it (then equal over S), else the sampled
    log q(z|x) − log p(z). A plain autoencoder has S = 1 and rate NaN: it has no ELBO.

    >>> from vaes import discover
    >>> model = discover().variants["input_dependent"](data_dim=6, latent_dim=2, hidden_dim=4)
    >>> noise = standard_normal(batch=3, latent_dim=2, generator=torch.Generator())
    >>> distortion, rate = elbo_terms(model, torch.ones(3, 6), noise, samples=5)
    >>> elbo = -(distortion + rate).mean(0)
    >>> elbo.shape
    torch.Size([3])
    """
    if not isinstance(model, VAE):
        distortion = -model.log_likelihood(x, model.encode(x)).unsqueeze(0)
        return distortion, torch.full_like(distortion, torch.nan)
    posterior = model.posterior(x)
    z = draw(posterior, noise, samples)
    distortion = -model.log_likelihood(x, z)
    try:
        rate = divergence(posterior, model.prior).expand_as(distortion)
    except NotImplementedError:
        rate = posterior.log_prob(z) - model.prior.log_prob(z)
    return distortion, rate


class CompiledTerms:
    """`elbo_terms` as one native function for one number of samples and images.

    Others take the function itself. Arguments:
        model: float32, on a CPU.
        x: images, an example.
        samples: S.

    Raises NotCompiled with the reason where it cannot be had.
    """

    @torch.no_grad()
    def __init__(self, model: Autoencoder, x: Float[Tensor, "B D"], samples: int) -> None:
        if isinstance(model, VAE) and not is_map_of_noise(model.posterior(x), x):
            raise NotCompiled("the posterior is no map of noise")
        self.shape = samples, len(x)
        self._compiled = Compiled(
            lambda model, x, noise: elbo_terms(model, x, lambda n: noise, samples),
            (model, x, x.new_zeros(*self.shape, model.latent_dim)),
        )

    def __call__(
        self, model: Autoencoder, x: Float[Tensor, "B D"], noise: Noise, samples: int
    ) -> tuple[Float[Tensor, "S B"], Float[Tensor, "S B"]]:
        if (samples, len(x)) != self.shape:
            return elbo_terms(model, x, noise, samples)
        distortion, rate = self._compiled(model, x, noise(samples))
        return distortion, rate


def terms_for(
    model: Autoencoder, x: Float[Tensor, "B D"], samples: int, passes: int
) -> tuple[Terms, str]:
    """`elbo_terms`, compiled where that pays; and why not where it would have paid.

    x and `samples` are what is evaluated at once, `passes` of the decoder are to come.
    """
    compiled = partial(CompiledTerms, model, x, samples)
    what = "the ELBO's evaluation"
    return where_it_pays(elbo_terms, compiled, what, model, x, passes, WORTHWHILE)


def chunks(images: Tensor, size: int) -> Iterator[Tensor]:
    """Consecutive slices of at most `size` images."""
    yield from torch.split(images, size)


@torch.no_grad()
def mean_elbo(
    model: Autoencoder,
    images: Float[Tensor, "N D"],
    generator: torch.Generator,
    samples: int,
    at_once: int,
) -> dict[str, Float[Tensor, "2 N"]]:
    """Of `elbo`, `distortion` and `rate` the mean over noise and its standard error.

    In float64 on the CPU, nats; a plain autoencoder's distortion has no error. Noise is drawn for
    `at_once` images at a time.
    """
    parts: dict[str, list[Tensor]] = {"elbo": [], "distortion": [], "rate": []}
    for x in chunks(images, at_once):
        noise = standard_normal(len(x), model.latent_dim, generator)
        distortion, rate = elbo_terms(model, x, noise, samples)
        for name, sampled in zip(parts, (-(distortion + rate), distortion, rate), strict=True):
            sampled = sampled.double()
            deviation = sampled.std(0) if len(sampled) > 1 else torch.zeros_like(sampled[0])
            error = deviation / math.sqrt(len(sampled))
            parts[name].append(torch.stack([sampled.mean(0), error]).cpu())
    return {name: torch.cat(part, 1) for name, part in parts.items()}


def antithetic(batch: int, latent_dim: int, generator: torch.Generator) -> Noise:
    """Pairs ε, −ε in adjacent places (Hammersley & Morton 1956).

    The noise raises BenchError for an odd number of samples.
    """
    independent = standard_normal(batch, latent_dim, generator)

    def noise(n: int) -> Float[Tensor, "n B L"]:
        if n % 2:
            raise BenchError(
                f"estimator 'antithetic' draws samples in pairs and S={n} is odd: use an even S"
            )
        half = independent(n // 2)
        return torch.stack([half, -half], 1).flatten(0, 1)

    return noise


def sobol(batch: int, latent_dim: int, generator: torch.Generator) -> Noise:
    """Scrambled Sobol points through the inverse normal CDF, in float64.

    One random linear scramble (Matoušek 1998) a call, and an independent random digital shift an
    image: each image sees a point set of the same law as a scramble of its own, a hundred times
    cheaper. A shift carries the sequence's first n points into any aligned block of n, hence all
    such blocks have the same law, n being a power of 2.

    Raises BenchError where latent_dim exceeds the generator's limit.
    """
    if latent_dim > MOST_LATENTS:
        raise BenchError(
            f"estimator 'sobol' has no direction numbers for L={latent_dim}: the limit is "
            f"L={MOST_LATENTS}, use 'independent' or 'antithetic'"
        )
    device = generator.device

    def noise(n: int) -> Float[Tensor, "n B L"]:
        seed = torch.randint(2**31, (), generator=generator, device=device).item()
        points = SobolEngine(latent_dim, scramble=True, seed=seed).draw(n, dtype=torch.float64)
        shift = torch.randint(CELLS, (batch, latent_dim), generator=generator, device=device)
        return shifted_normals(cells_of(points).to(device).unsqueeze(1), shift)

    return noise


@dataclass(frozen=True)
class Sampling:
    """A way to draw noise: called with (batch, latent_dim, generator), it gives the `Noise`."""

    label: str
    noise: Callable[[int, int, torch.Generator], Noise]

    def __call__(self, batch: int, latent_dim: int, generator: torch.Generator) -> Noise:
        return self.noise(batch, latent_dim, generator)


SAMPLINGS = {
    "independent": Sampling("independent", standard_normal),
    "antithetic": Sampling("antithetic pairs", antithetic),
    "sobol": Sampling("Sobol points", sobol),
}


def sample(
    posterior: Distribution, sampling: str, samples: int, generator: torch.Generator, like: Tensor
) -> Float[Tensor, "S B L"]:
    """S samples of q(z|x), without gradient, of the type of `like`.

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


def _analytic_kl(
    model: VAE, posterior: Distribution, z: Float[Tensor, "S B L"]
) -> Float[Tensor, "B"]:
    """−KL(q || p)."""
    try:
        return -divergence(posterior, model.prior)
    except NotImplementedError:
        raise BenchError(
            f"estimator 'analytic KL' needs KL(q || p) in closed form, unknown for "
            f"{type(posterior).__name__}: use 'sampled KL'"
        ) from None


def _sampled_kl(
    model: VAE, posterior: Distribution, z: Float[Tensor, "S B L"]
) -> Float[Tensor, "S B"]:
    """log p(z) − log q(z|x)."""
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
    model: VAE,
    x: Float[Tensor, "B D"],
    kl: str,
    sampling: str,
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "B"]:
    """One S-sample estimate of the ELBO of each image, in nats, unbiased.

    `kl` is a key of `KLS`, `sampling` one of `SAMPLINGS`.
    Raises BenchError naming the estimator and the setting it does not admit.
    """
    posterior = model.posterior(x)
    z = sample(posterior, sampling, samples, generator, x)
    return (_log_likelihood(model, x, z) + KLS[kl](model, posterior, z)).mean(0)


def _log_likelihood(
    model: VAE, x: Float[Tensor, "B D"], z: Float[Tensor, "S B L"]
) -> Float[Tensor, "S B"]:
    """log p(x|z), decoded in parts of a size the device likes."""
    parts = z.split(max(1, PASSES_AT_ONCE[x.device.type] // len(x)))
    return torch.cat([model.log_likelihood(x, part) for part in parts])


@torch.no_grad()
def integrands(
    model: VAE,
    x: Float[Tensor, "B D"],
    sampling: str,
    samples: int,
    replicates: int,
    generator: torch.Generator,
) -> dict[str, Float[Tensor, "R S B"] | str]:
    """kl → values of its integrand at the same z, in float64, or why there are none.

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
