"""Pictures people look at: reconstructions, prior samples, a two-dimensional latent space.

From seed 0 alone. Arrays are small, since they are stored beside the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.distributions import Normal

from bench.config import Preset, Run
from bench.data.binarization import as_float
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.codes import codes, covariances, direction_variances
from bench.inference.reparameterize import prior_sample
from bench.questions.averages import NATS
from bench.questions.images import as_bytes, images_of
from vaes import VAE

ORIGINALS = 16
PRIOR_SAMPLES = 16
PLANE_EPOCHS, PLANE_LEARNING_RATE = 12, 4e-3
"""Of the trainings with two latents, for pictures without an interval: no more than shows them. So
short a training needs a higher rate than the headline's."""
GRID = 9
ENCODED = 300
PRIOR_DRAWS = 10_000
"""Behind the quantiles of a prior that is not N(0, I)."""
TAIL = 0.02
"""Share of the prior (of an autoencoder's codes) left out at each end of the manifold's axes."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """Seed 0, and a run with two latents, of a fifth of the epochs, at most `PLANE_EPOCHS`."""
    if run.likelihood != "bernoulli" or run.seed != 0:
        return
    yield Request(run, (("view", "samples"),))
    epochs = max(1, min(run.epochs // 5, PLANE_EPOCHS))
    flat = run.apart(latent_dim=2, epochs=epochs, learning_rate=PLANE_LEARNING_RATE)
    yield Request(flat, (("view", "plane"),))


def measure(subject: Subject, view: str) -> Result:
    """`view` is `samples` (and reconstructions, directions in use) or `plane` (two latents)."""
    with torch.no_grad():
        return {"samples": samples, "plane": plane}[view](subject)


def samples(subject: Subject) -> Result:
    """Originals, reconstructions from the code, decoded draws of the prior (N(0, I) where there is
    none); variance by direction."""
    model, shape = subject.model(), subject.data.image_shape
    test = as_float(subject.data.test)
    originals = test[subject.subset(ORIGINALS)]
    encoded = codes(model, originals, subject.generator("codes"))
    draws = subject.generator("prior samples")
    if isinstance(model, VAE):
        prior = prior_sample(model, PRIOR_SAMPLES, draws)
    else:  # as if it had one
        shape_of_codes = (PRIOR_SAMPLES, model.latent_dim)
        prior = torch.randn(shape_of_codes, generator=draws, device=test.device)
    result = Result(
        pictures={
            "originals": as_bytes(originals.unflatten(-1, shape)),
            "reconstructions": images_of(model, encoded, shape),
            "prior_samples": images_of(model, prior, shape),
        }
    )
    if isinstance(model, VAE):
        variances = direction_variances(model, test, subject.generator("codes"))
        result.rows = [
            Row("direction_variance", value, "latent units squared", {"latent": place}, n=len(test))
            for place, value in enumerate(variances.tolist())
        ]
    return result


def plane(subject: Subject) -> Result:
    """Means `(N, 2)` and covariances `(N, 2, 2)` of encoded test images, and the decoded plane.

    Beside them the classes `labels` `(N,)` of these images where the data set has classes; and
    `own_prior`, where that is not N(0, I).

    The manifold `(G, G, H, W)`, top row first, is decoded at quantiles of the prior along each
    axis, or of an autoencoder's codes, which no prior holds in place. Codes that are not continuous
    have no plane.
    """
    model = subject.model()
    chosen = subject.subset(ENCODED)
    x = as_float(subject.data.test[chosen])
    if isinstance(model, VAE) and not model.posterior(x[:1]).has_rsample:
        return Result(notice=f"{subject.run.variant}: codes that are not continuous have no plane")
    code = codes(model, x, subject.generator("codes"))
    share = torch.linspace(TAIL, 1 - TAIL, GRID, device=x.device)
    standard = isinstance(model, VAE) and type(model).prior is VAE.prior
    if standard:
        axes = Normal(0.0, 1.0).icdf(share).expand(2, GRID)
    else:
        drawn = code
        if isinstance(model, VAE):
            drawn = prior_sample(model, PRIOR_DRAWS, subject.generator("prior plane"))
        axes = drawn.quantile(share, dim=0).mT
    covariance = code.new_zeros(len(code), 2, 2)
    if isinstance(model, VAE):
        covariance = covariances(model, x, subject.generator("ellipses"))
    horizontal, vertical = torch.meshgrid(axes[0], axes[1].flip(0), indexing="xy")
    places = torch.stack([horizontal, vertical], -1)
    best = subject.trained.best()
    trained = {"epochs": subject.run.epochs, "learning_rate": subject.run.learning_rate}
    rows = [
        Row(f"plane_{name}", best[f"valid_{name}"], NATS, trained, n=len(subject.data.valid))
        for name in (("elbo", "distortion") if isinstance(model, VAE) else ("distortion",))
    ]
    pictures = {
        "codes": code.half().cpu(),
        "covariances": covariance.half().cpu(),
        "axes": axes.half().cpu(),
        "manifold": images_of(model, places, subject.data.image_shape),
    }
    if isinstance(model, VAE) and not standard:
        pictures["own_prior"] = torch.ones(1, dtype=torch.uint8)
    if subject.data.labels is not None:
        pictures["labels"] = subject.data.labels[chosen]
    return Result(rows, pictures=pictures)
