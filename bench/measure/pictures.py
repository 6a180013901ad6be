"""Pictures people look at: reconstructions, prior samples, a two-dimensional latent space.

From seed 0 alone. Arrays are small, since they are stored beside the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Normal

from bench.config import Preset, Run
from bench.data import as_float
from bench.gradients import Noise, draw
from bench.measure import Request, Result, Row, Subject, setting
from bench.measure.generalization import as_bytes, code_of
from bench.measure.uncertainty import unit_variances
from vaes import VAE, Autoencoder

ORIGINALS = 8
PRIOR_SAMPLES = 16
GRID = 9
ENCODED = 300
ELLIPSE_SAMPLES = 500
TAIL = 0.02
"""Share of the prior (of an autoencoder's codes) left out at each end of the manifold's axes."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """Seed 0, and a run with two latents, of a fifth of the epochs."""
    if run.likelihood != "bernoulli" or run.seed != 0:
        return
    yield Request(run, (("view", "samples"),))
    flat = run.with_(latent_dim=2, epochs=max(1, run.epochs // 5))
    yield Request(flat, (("view", "plane"),))


def measure(subject: Subject, view: str) -> Result:
    """`view` is `samples` (reconstructions, prior samples, units) or `plane` (two latents)."""
    with torch.no_grad():
        return {"samples": samples, "plane": plane}[view](subject)


def samples(subject: Subject) -> Result:
    """Originals, reconstructions from the code, decoded draws of N(0, I); variance by unit."""
    model = subject.model()
    test = as_float(subject.data.test)
    originals = test[:ORIGINALS]
    prior = torch.randn(
        (PRIOR_SAMPLES, model.latent_dim),
        generator=subject.generator("prior samples"),
        device=test.device,
    )
    result = Result(pictures={
        "originals": as_bytes(originals),
        "reconstructions": as_bytes(torch.sigmoid(model.decode(code_of(model, originals)))),
        "prior_samples": as_bytes(torch.sigmoid(model.decode(prior))),
        "image_shape": torch.tensor(subject.data.image_shape),
    })  # fmt: skip
    if isinstance(model, VAE):
        result.rows = [
            Row("unit_variance", value, "latent units squared", setting(unit=unit), n=len(test))
            for unit, value in enumerate(unit_variances(model, test).tolist())
        ]
    return result


def plane(subject: Subject) -> Result:
    """Means `(N, 2)` and covariances `(N, 2, 2)` of encoded test images, and the decoded plane.

    The manifold `(G, G, D)` is decoded at the axes' quantiles of N(0, 1), or of an autoencoder's
    codes, which no prior holds in place.
    """
    model = subject.model()
    x = as_float(subject.data.test[:ENCODED])
    code = code_of(model, x)
    share = torch.linspace(TAIL, 1 - TAIL, GRID, device=x.device)
    if isinstance(model, VAE):
        axes = Normal(0.0, 1.0).icdf(share).expand(2, GRID)
        covariance = covariances(model, x, subject.generator("ellipses"))
    else:
        axes = code.quantile(share, dim=0).mT
        covariance = code.new_zeros(len(code), 2, 2)
    horizontal, vertical = torch.meshgrid(axes[0], axes[1].flip(0), indexing="xy")
    decoded = torch.sigmoid(model.decode(torch.stack([horizontal, vertical], -1)))
    best = subject.trained.best()
    rows = [
        Row(f"plane_{name}", best[f"valid_{name}"], "nats/image", n=len(subject.data.valid))
        for name in (("elbo", "distortion") if isinstance(model, VAE) else ("distortion",))
    ]
    return Result(rows, pictures={
        "codes": code.half().cpu(),
        "covariances": covariance.half().cpu(),
        "axes": axes.half().cpu(),
        "manifold": as_bytes(decoded),
        "image_shape_of_plane": torch.tensor(subject.data.image_shape),
    })  # fmt: skip


def covariances(model: Autoencoder, x: Tensor, generator: torch.Generator) -> Tensor:
    """Cov_q[z | x], `(B, L, L)`, of any posterior: exact where z is affine in Gaussian noise.

    The samples' noise has mean 0 and covariance I to rounding, the same for each image.
    """
    z = draw(model.posterior(x), _whitened(len(x), model.latent_dim, generator), ELLIPSE_SAMPLES)
    z = z - z.mean(0)
    return torch.einsum("sbi,sbj->bij", z, z) / len(z)


def _whitened(batch: int, latent_dim: int, generator: torch.Generator) -> Noise:
    def noise(n: int) -> Tensor:
        drawn = torch.randn((n, latent_dim), generator=generator, device=generator.device)
        drawn = drawn - drawn.mean(0)
        root = torch.linalg.cholesky(drawn.mT @ drawn / n)
        white = torch.linalg.solve_triangular(root, drawn.mT, upper=False).mT
        return white.unsqueeze(1).expand(n, batch, latent_dim)

    return noise
