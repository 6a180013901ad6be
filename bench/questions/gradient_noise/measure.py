"""How noisy a training step's gradient is, by estimator, S and stage, and what its noise costs.

The gradient of a minibatch of B images, for every weight, has the variance (MC + data) / B in
nats². MC, the Monte Carlo part, is the mean over images of tr Cov[g | image] over the noise of q;
data is tr Cov of E[g | image] over training images, each binarized afresh where training does so.
Both are split into the encoder's weights and the decoder's. Every estimator of the ELBO's gradient
has the same E[g | image], so that the data part is measured once a stage, by the quietest.

Images are the independent batches behind every standard error: a jackknife over them, which holds
the noise of q too and keeps what the two parts of a ratio share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.config import REFERENCE, Preset, Run
from bench.errors import BenchError
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.decoder_variance import DecoderGradient
from bench.inference.gradient_variance import (
    FEWEST_REPLICATES,
    PARTS,
    PosteriorGradient,
    Variance,
    between_images,
    signal,
    total_variance,
)
from bench.inference.gradients import ESTIMATORS, of_bound
from bench.questions.averages import image_mean, jackknife
from bench.questions.gradient_noise import STAGES
from bench.questions.gradient_noise.step_times import Time, step_times
from bench.training.batches import prepared, to_batch
from vaes import VAE

SAMPLES = (1, 2, 4)
RELATIVE_ERROR = 0.05
"""Of a variance over the noise of q: images, of which there are few, then leave more."""
DECODER_PASSES = 8
"""Behind the decoder's variance, an image and cell, in two estimates or more."""
EVERY = of_bound("elbo")
USUAL = ("pathwise", "pathwise_sampled_kl", "pathwise_antithetic", "sticking_the_landing")
USUAL_SAMPLES = (1, 4)
"""What variants other than the reference are measured with."""
SQUARED = "nats²"
"""Unit of a squared norm of an ELBO gradient; network parameters have none."""
Key = tuple[str, int]
"""An estimator and S."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement a run of the first seeds: of every estimator for the reference."""
    if run.seed < preset.gradient_seeds:
        settings = amounts(preset.gradient_images, preset.gradient_passes)
        if run.variant != REFERENCE:
            settings |= {"estimators": USUAL, "samples": USUAL_SAMPLES}
        yield Request(run, tuple(settings.items()))


def amounts(images: int, passes: int) -> dict[str, object]:
    """Settings of a measurement; the estimators' names are among them, so that a new estimator, or
    an edited one, is measured."""
    return {"images": images, "passes": passes, "estimators": EVERY}


def measure(
    subject: Subject,
    images: int,
    passes: int,
    estimators: tuple[str, ...] = EVERY,
    samples: tuple[int, ...] = SAMPLES,
) -> Result:
    """These estimators at every stage and S of `samples`; at most `passes` decoder passes a cell,
    or two estimates an image."""
    if not issubclass(subject.variant, VAE):
        return Result()
    x = training_images(subject, images)
    batch = training_images(subject, subject.run.batch_size)
    noise = subject.generator("gradient timing")
    times = step_times(subject.model(), batch, subject.run, noise, estimators, samples)
    expected = len(x) * FEWEST_REPLICATES * sum(samples) * len(estimators)
    rows, notice = [], ""
    for stage in STAGES:
        gradient = PosteriorGradient.from_model(subject.model(stage), x, expected)
        found = cells_of(subject, gradient, stage, samples, passes, estimators)
        rows += _rows(subject, gradient, stage, found, times)
        notice = gradient.notice
    return Result(rows, notice=notice)


def training_images(subject: Subject, count: int) -> Tensor:
    """So many random training images `(count, D)`, as a training step is given them."""
    images, binarization = subject.data.train, subject.data.binarization
    draws = subject.generator("gradient binarization")
    chosen = subject.subset(count, "train").to(images.device)
    return to_batch(prepared(images, binarization), chosen, binarization, draws)


def cells_of(
    subject: Subject,
    gradient: PosteriorGradient,
    stage: str,
    samples: tuple[int, ...],
    passes: int,
    estimators: tuple[str, ...],
) -> dict[Key, Variance | str]:
    """The encoder's variance by estimator and S, or why there is none."""
    cells: dict[Key, Variance | str] = {}
    for s in samples:
        for name in estimators:
            noise = subject.generator("gradient variance", stage, name, s)
            try:
                cells[name, s] = total_variance(gradient, name, s, noise, RELATIVE_ERROR, passes)
            except BenchError as error:
                cells[name, s] = str(error)
    return cells


def encoder_rows(cell: Variance | str, settings: dict[str, object]) -> Iterator[Row]:
    """The encoder's Monte Carlo part, whole and in parts; or the reason why there is none."""
    if isinstance(cell, str):
        yield Row("total_variance", math.nan, SQUARED, settings, reason=cell)
        return
    flagged = {**settings, "capped": True} if cell.capped else settings
    for part, values in zip(PARTS, cell.per_image, strict=True):
        row = image_mean(f"{part}_variance", values, SQUARED, flagged)
        reason = cell.cause if not math.isfinite(row.value) else ""
        yield Row(row.metric, row.value, SQUARED, flagged, row.standard_error, row.n, reason)


@dataclass(frozen=True)
class Split:
    """The variance of one estimator's gradient, image by image `(B,)`, in nats².

    The means over images are the parts; `encoder` and `decoder` are Monte Carlo, the rest data.
    """

    encoder: Tensor
    decoder: Tensor
    encoder_data: Tensor
    decoder_data: Tensor

    @property
    def monte_carlo(self) -> Tensor:
        return self.encoder + self.decoder

    @property
    def whole(self) -> Tensor:
        return self.monte_carlo + self.encoder_data + self.decoder_data


def _rows(
    subject: Subject,
    gradient: PosteriorGradient,
    stage: str,
    found: Mapping[Key, Variance | str],
    times: Mapping[Key, Time],
) -> Iterator[Row]:
    """All rows of a stage."""
    for (name, s), cell in found.items():
        yield from encoder_rows(cell, {"stage": stage, "estimator": name, "S": s})
    finite = {
        (name, s): cell
        for (name, s), cell in found.items()
        if isinstance(cell, Variance) and not cell.cause and not ESTIMATORS[name].biased
    }
    if not finite:
        return
    decoders = {
        (name, s): DecoderGradient.of_estimator(
            gradient.model,
            gradient.x,
            name,
            s,
            replicates_of((name, s)),
            subject.generator("decoder gradient", stage, name, s),
        )
        for name, s in finite
    }
    # E[g | image] is the same for all that are unbiased: the quietest tells it best
    best = min(finite, key=lambda key: finite[key].value[0] / finite[key].replicates)
    clearest = min(decoders, key=lambda key: decoders[key].variances().mean() / replicates_of(key))
    data = between_images(gradient, finite[best]), decoders[clearest].between_images()
    for side, values in zip(("encoder", "decoder"), data, strict=True):
        yield image_mean(f"{side}_data_variance", values, SQUARED, {"stage": stage})
    squared_signal = signal(gradient, finite[best])
    splits = {
        key: Split(cell.per_image[0], decoders[key].variances(), *data)
        for key, cell in finite.items()
    }
    passes = {(name, s): gradient.passes(name, s).total for name, s in finite}
    base = next(iter(finite))
    for (name, s), split in splits.items():
        here = {"stage": stage, "estimator": name, "S": s}
        yield image_mean("decoder_variance", split.decoder, SQUARED, here)
        yield image_mean("whole_variance", split.whole, SQUARED, here)
        yield ratio("monte_carlo_share", split.monte_carlo, split.whole, here)
        yield ratio("squared_signal_to_noise", squared_signal, split.encoder, here)
        same_s = next(key for key in finite if key[1] == s)
        compared = {**here, "reference": same_s[0]}
        yield ratio("variance_ratio", split.encoder, splits[same_s].encoder, compared)
        yield ratio("whole_variance_ratio", split.whole, splits[same_s].whole, compared)
        yield Row("decoder_passes", passes[name, s], "passes/image", here)
        yield from _precisions(splits, passes, times, (name, s), base, here)


def replicates_of(key: Key) -> int:
    """Estimates of the decoder's gradient for each image."""
    return max(2, DECODER_PASSES // key[1])


def _precisions(
    splits: Mapping[Key, Split],
    passes: Mapping[Key, int],
    times: Mapping[Key, Time],
    key: Key,
    base: Key,
    here: dict[str, object],
) -> Iterator[Row]:
    """1 / (whole variance × cost an image), relative to the base's: by passes and by the clock."""
    compared = {**here, "reference": base[0], "reference_S": base[1]}
    gain = ratio("precision_per_pass", splits[base].whole, splits[key].whole, compared)
    cheaper = passes[base] / passes[key]
    yield scaled(gain, cheaper)
    if key not in times or base not in times:
        return
    own, other = times[key], times[base]
    yield Row("step_time", own.value, "µs/image", here, own.standard_error, own.rounds)
    clock = 0.0 if key == base else math.hypot(own.relative_error, other.relative_error)
    yield scaled(gain, other.value / own.value, clock, "precision_per_second")


def ratio(metric: str, above: Tensor, below: Tensor, settings: dict[str, object]) -> Row:
    """Of two means over images `(B,)`."""
    value, error = jackknife(lambda v: v[0] / v[1], torch.stack([above, below]))
    return Row(metric, value, "1", settings, error, len(above))


def scaled(row: Row, factor: float, relative_error: float = 0.0, metric: str = "") -> Row:
    """The row's value times a factor with an independent relative error of its own."""
    value = row.value * factor
    error = math.hypot(row.standard_error * factor, value * relative_error)
    return Row(metric or row.metric, value, row.unit, row.settings, error, row.n)
