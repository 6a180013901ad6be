"""Does the autoencoder overfit, and does the prior help?

The cross-entropy of training and test images, at the posterior's mean code (an autoencoder's code)
and at a sampled one, with and without the KL in the objective; and that of held-out images whose
codes are perturbed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.config import REFERENCE, Preset, Run, of_dataset
from bench.data.binarization import as_float
from bench.data.training_set import SEEN, fixed_draw
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.codes import codes, covariances
from bench.inference.elbo import chunks
from bench.questions.averages import NATS, image_mean
from bench.questions.generalization import DRAWN_SCALES
from bench.questions.images import images_of
from bench.training.loop import validate
from vaes import VAE, Autoencoder

WITHOUT_KL = ("fixed_variance", REFERENCE)
"""Variants that are trained on the short lists without the KL too."""
LEARNING_RATE = 3e-3
"""Of all trainings on short lists, which then differ in nothing but what is compared."""
EPOCH = 4000
"""Training images an epoch, at least: a curve has a point each 40 steps, or more."""
TRACKED = ("valid", "seen")
HELD_OUT = 2000
NOISE_SCALES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""s in latent units and, apart from that, in units of the codes' covariance."""
NOISE_IMAGES = 100
"""Training images over which the posterior's noise is averaged."""
CODE_SAMPLES = 100
"""For the mean code of a posterior whose mean torch does not know."""
DRAWN = 4


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """The headline run (all images), and short lists trained until an autoencoder overfits."""
    if run.likelihood != "bernoulli":
        return
    yield Request(run)
    for size, steps in of_dataset(preset.short_lists, run.dataset).items():
        length = max(EPOCH, size)
        short = run.apart(
            train_size=length,
            distinct=size,
            epochs=max(1, steps * run.batch_size // length),
            learning_rate=LEARNING_RATE,
            tracked=TRACKED,
        )
        yield Request(short)
        if run.variant in WITHOUT_KL:
            yield Request(short.with_(kl_weight=0.0))


def measure(subject: Subject) -> Result:
    """Cross-entropies at the end and at the best epoch; perturbed codes of the headline run."""
    run, data, history = subject.run, subject.data, subject.trained.history
    size = min(run.distinct or run.train_size or len(data.train), len(data.train))
    length = len(data.train[: run.train_size or None])
    steps = len(history) * -(-length // run.batch_size)
    settings = {"images": size, "steps": steps, "kl_weight": run.kl_weight}
    best = Row("best_epoch", subject.trained.best_epoch, "epochs", settings, n=len(history))
    result = Result([best, Row("learning_rate", run.learning_rate, "", settings)])
    seen = data.seen if run.distinct else fixed_draw(data, run)
    for stage in ("end", "best"):
        at = {**settings, "stage": stage}
        result.rows += stage_rows(subject, stage, {"train": seen, "test": data.test}, at)
    if run.distinct:
        if run.kl_weight:
            curves = [
                [entry[f"{split}_distortion"] for split in ("seen", "valid")] for entry in history
            ]
            result.pictures[f"curves_{size}"] = torch.tensor(curves)
        return result
    perturbed = perturbed_codes(subject)
    return Result(result.rows + perturbed.rows, pictures=perturbed.pictures)


def stage_rows(
    subject: Subject, stage: str, images: dict[str, Tensor], settings: dict[str, object]
) -> Iterator[Row]:
    """Cross-entropies of the images of each split and their gaps test − train; of a VAE also at a
    sampled code, with the ELBO's gap and the size of its codes in its posterior's noise."""
    model, run = subject.model(stage), subject.run
    found: dict[tuple[str, str], dict[str, float]] = {}
    code = {split: mean_codes(subject, model, as_float(some)) for split, some in images.items()}
    for split, some in images.items():
        mean = cross_entropy(model, as_float(some), code[split]).mean().item()
        found.setdefault(("cross_entropy", "mean"), {})[split] = mean
        if isinstance(model, VAE):
            sampled = validate(model, some, run, split)
            found.setdefault(("cross_entropy", "sampled"), {})[split] = sampled["distortion"]
            found.setdefault(("elbo", "sampled"), {})[split] = sampled["elbo"]
    for (metric, which), values in found.items():
        at = {**settings, "code": which}
        for split, value in values.items():
            yield Row(f"{split}_{metric}", value, NATS, at, n=len(images[split]))
        yield Row(f"{metric}_gap", gap(metric, values), NATS, at)
    if isinstance(model, VAE):
        x = as_float(images["train"][:NOISE_IMAGES])
        noise = covariances(model, x, subject.generator("posterior noise"))
        ratio = code["train"].var(0).mean() / noise.diagonal(dim1=1, dim2=2).mean()
        yield Row("code_to_noise", ratio.sqrt().item(), "", settings, n=len(code["train"]))


def mean_codes(subject: Subject, model: Autoencoder, x: Tensor) -> Tensor:
    """The posterior means `(N, L)` of images x `(N, D)`, or an autoencoder's codes."""
    return codes(model, x, subject.generator("codes"), CODE_SAMPLES)


def gap(metric: str, values: dict[str, float]) -> float:
    """How much worse the test images fare than the training images, nats; positive: worse."""
    worse = values["test"] - values["train"]
    return -worse if metric == "elbo" else worse


@torch.no_grad()
def cross_entropy(model: Autoencoder, x: Tensor, z: Tensor) -> Tensor:
    """−log p(x|z) of images x `(N, D)` at codes z `(N, L)`, nats, `(N,)`."""
    parts = zip(chunks(x, SEEN), chunks(z, SEEN), strict=True)
    return -torch.cat([model.log_likelihood(*part) for part in parts]).double()


@torch.no_grad()
def perturbed_codes(subject: Subject) -> Result:
    """Test cross-entropy of decode(code + s ε), at the end of training, against s.

    A VAE's code is its posterior mean. As codes have no common scale, ε has the covariance of the
    codes over images, which no invertible linear map of the latent space changes; apart from that
    it is N(0, I), in latent units.
    """
    model = subject.model("end")
    x = as_float(subject.data.test[subject.subset(HELD_OUT)])
    code = mean_codes(subject, model, x)
    rows = [Row("code_std", code.var(0).mean().sqrt().item(), "latent units", n=len(code))]
    pictures = []
    shapes = {"absolute": torch.eye(code.shape[1]), "covariance": covariance_root(code)}
    for unit, root in shapes.items():
        for s in NOISE_SCALES:
            draws = subject.generator("code noise")
            noise = torch.randn(code.shape, generator=draws, device=code.device)
            z = code + s * noise @ root.to(code)
            values = cross_entropy(model, x, z)
            settings = {"noise_scale": s, "noise_unit": unit}
            rows.append(image_mean("perturbed_cross_entropy", values, NATS, settings))
            if unit == "covariance" and s in DRAWN_SCALES:
                pictures.append(images_of(model, z[:DRAWN], subject.data.image_shape))
    drawn = {"noised_codes": torch.stack(pictures)} if subject.run.seed == 0 else {}
    return Result(rows, pictures=drawn)


def covariance_root(code: Tensor) -> Tensor:
    """R `(L, L)` with RᵀR the covariance of codes `(N, L)`: of noise n from N(0, I), n R has it.

    Also where directions are dead, of which Cholesky's factor does not exist.
    """
    values, vectors = torch.linalg.eigh(code.double().mT.cov())
    return values.clamp_min(0).sqrt().unsqueeze(1) * vectors.mT
