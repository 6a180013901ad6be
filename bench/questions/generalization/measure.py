"""Does the autoencoder overfit, and does the prior help?

The cross-entropy (the distortion: of a sampled code for a VAE, of the code for the autoencoder)
of training, validation and test images, against the epoch and the number of training images;
and that of held-out images whose codes are perturbed by N(0, s² I).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from bench.config import Preset, Run, of_dataset
from bench.data.binarization import as_float
from bench.data.training_set import SEEN, fixed_draw
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.codes import codes
from bench.inference.elbo import chunks
from bench.questions.averages import NATS, image_mean
from bench.questions.generalization import DRAWN_SCALES
from bench.questions.images import images_of
from bench.training.loop import validate

SIZES = {"mnist": (250, 1000, 10_000), "fashion_mnist": (250, 1000, 10_000), "": (250, 1000)}
"""Data set → numbers of training images besides all of them (`""` for any other)."""
EPOCH = 2500
"""Training images an epoch, at least: a curve has a point each 25 steps, or more."""
TRACKED = ("valid", "seen", "test")
SPLITS = {"seen": "train", "valid": "valid", "test": "test"}
HELD_OUT = 2000
NOISE_SCALES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""s in latent units and, apart from that, in units of the codes' standard deviation."""
DRAWN = 4


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """The headline run (all images), and short lists trained for a fixed number of steps."""
    if run.likelihood != "bernoulli" or run.seed >= of_dataset(preset.secondary_seeds, run.dataset):
        return
    yield Request(run)
    sizes = of_dataset(SIZES, run.dataset)
    length = max(EPOCH, *sizes)
    steps = of_dataset(preset.secondary_steps, run.dataset)
    passes = steps * run.batch_size // length
    for size in sizes:
        yield Request(
            run.with_(train_size=length, distinct=size, epochs=max(1, passes), tracked=TRACKED)
        )


def measure(subject: Subject) -> Result:
    """Cross-entropies at the end and at the best epoch; perturbed codes of the headline run."""
    if not subject.run.distinct:
        result = _all_images(subject)
        perturbed = perturbed_codes(subject)
        return Result(result.rows + perturbed.rows, pictures=result.pictures | perturbed.pictures)
    history = subject.trained.history
    steps = len(history) * -(-len(subject.data.train) // subject.run.batch_size)
    size = min(subject.run.distinct, len(subject.data.train))
    rows = _stage_rows({"end": history[-1], "best": subject.trained.best()}, subject, size, steps)
    curves = [[entry[f"{split}_distortion"] for split in SPLITS] for entry in history]
    return Result(rows, pictures={f"curves_{size}": torch.tensor(curves)})


def _all_images(subject: Subject) -> Result:
    """The headline run, from its weights: it did not track the training images."""
    run, data = subject.run, subject.data
    images = {"seen": fixed_draw(data, run), "valid": data.valid, "test": data.test}
    entries = {}
    for stage in ("end", "best"):
        model, entry = subject.model(stage), {}
        for split, some in images.items():
            values = validate(model, some, run, split)
            entry |= {f"{split}_{name}": value for name, value in values.items()}
        entries[stage] = entry
    size = min(run.train_size or len(data.train), len(data.train))
    steps = len(subject.trained.history) * -(-size // run.batch_size)
    return Result(_stage_rows(entries, subject, size, steps))


def _stage_rows(
    entries: dict[str, dict[str, float]], subject: Subject, size: int, steps: int
) -> list[Row]:
    """Cross-entropy of each split, the ELBO where there is one, and the gaps test − train."""
    trained, settings = subject.trained, {"images": size, "steps": steps}
    rows = [
        Row("best_epoch", trained.best_epoch, "epochs", settings, n=len(trained.history)),
    ]
    held = {
        "train": min(size, SEEN),
        "valid": len(subject.data.valid),
        "test": len(subject.data.test),
    }
    for stage, entry in entries.items():
        at_stage = {**settings, "stage": stage}
        for metric, name in {"distortion": "cross_entropy", "elbo": "elbo"}.items():
            values = {SPLITS[split]: entry[f"{split}_{metric}"] for split in SPLITS}
            if math.isnan(values["test"]):  # an autoencoder has no ELBO
                continue
            rows += [
                Row(f"{split}_{name}", value, NATS, at_stage, n=held[split])
                for split, value in values.items()
            ]
            rows.append(Row(f"{name}_gap", gap(metric, values), NATS, at_stage))
    return rows


def gap(metric: str, values: dict[str, float]) -> float:
    """How much worse the test images fare than the training images, nats; positive: worse."""
    worse = values["test"] - values["train"]
    return -worse if metric == "elbo" else worse


@torch.no_grad()
def perturbed_codes(subject: Subject) -> Result:
    """Test cross-entropy of decode(code + s ε), at the end of training, against s.

    A VAE's code is its posterior mean. As codes have no common scale, s is given in latent units
    and in those of the codes' standard deviation (root mean square over latents).
    """
    model = subject.model("end")
    x = as_float(subject.data.test[:HELD_OUT])
    code = codes(model, x, subject.generator("codes"))
    spread = code.var(0).mean().sqrt().item()
    rows = [Row("code_std", spread, "latent units", n=len(code))]
    pictures = []
    for unit, factor in {"absolute": 1.0, "relative": spread}.items():
        for s in NOISE_SCALES:
            draws = subject.generator("code noise")
            z = code + s * factor * torch.randn(code.shape, generator=draws, device=code.device)
            parts = zip(chunks(x, SEEN), chunks(z, SEEN), strict=True)
            values = -torch.cat([model.log_likelihood(*part) for part in parts]).double()
            settings = {"noise_scale": s, "noise_unit": unit}
            rows.append(image_mean("perturbed_cross_entropy", values, NATS, settings))
            if unit == "relative" and s in DRAWN_SCALES:
                pictures.append(images_of(model, z[:DRAWN], subject.data.image_shape))
    drawn = {"noised_codes": torch.stack(pictures)} if subject.run.seed == 0 else {}
    return Result(rows, pictures=drawn)
