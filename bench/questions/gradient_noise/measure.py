"""How noisy the gradient is: every estimator's total variance, signal-to-noise ratio and cost.

For one example, tr Cov[g] of the estimated ELBO gradient with respect to everything the posterior
depends on, averaged over test images; by stage of training, estimator and S. A cell an estimator
does not admit is a NaN with its reason.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from bench.config import Preset, Run
from bench.data.binarization import as_float
from bench.errors import BenchError
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.gradient_variance import (
    PARTS,
    PosteriorGradient,
    Variance,
    decoder_variance,
    total_variance,
)
from bench.inference.gradients import ESTIMATORS, of_bound
from bench.inference.reparameterize import standard_normal
from bench.questions.gradient_noise import STAGES
from bench.training.step import EagerStep
from vaes import VAE

SAMPLES = (1, 4, 16)
RELATIVE_ERROR = 0.05
DECODER_DRAWS = 32
ROUNDS = 12
TIMING_SECONDS = 0.2
"""Steps of one estimator are repeated up to `ROUNDS` times within this time, at least twice."""
EVERY = of_bound("elbo")
SQUARED = "nats²"
"""Unit of a squared norm of an ELBO gradient; network parameters have none."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement a variant, of its first seed: the spread is over images and noise."""
    if run.seed == 0:
        yield Request(run, amounts(preset.gradient_images, preset.gradient_passes))


def amounts(images: int, passes: int) -> tuple[tuple[str, object], ...]:
    """Settings of a measurement; the estimators' names are among them, so that a new estimator, or
    an edited one, is measured."""
    return ("images", images), ("passes", passes), ("estimators", EVERY)


def measure(
    subject: Subject, images: int, passes: int, estimators: tuple[str, ...] = EVERY
) -> Result:
    """These estimators at every stage and S; at most `passes` decoder passes a cell or a few
    replicates."""
    if not issubclass(subject.variant, VAE):
        return Result()
    x = as_float(subject.data.test[:images])
    batch = as_float(subject.data.train[: subject.run.batch_size])
    noise = subject.generator("gradient timing")
    times = step_times(subject.model(), batch, subject.run, noise, estimators)
    rows = []
    for stage in STAGES:
        model = subject.model(stage)
        value, error = decoder_variance(
            model, x, DECODER_DRAWS, subject.generator("decoder gradient", stage)
        )
        n = len(x) * DECODER_DRAWS
        settings = {"stage": stage, "S": 1}
        rows.append(Row("decoder_variance", value, SQUARED, settings, error, n))
        cells_passes = passes * len(SAMPLES) * len(estimators)
        gradient = PosteriorGradient.from_model(model, x, cells_passes)
        for samples in SAMPLES:
            cells = cells_of(subject, gradient, stage, samples, passes, estimators)
            rows += rows_of(cells, times, len(x), stage=stage, S=samples)
    return Result(rows, notice=gradient.notice)


def cells_of(
    subject: Subject,
    gradient: PosteriorGradient,
    stage: str,
    samples: int,
    passes: int,
    estimators: tuple[str, ...],
) -> dict[str, Variance | str]:
    """Estimator → its variance, or why there is none."""
    cells: dict[str, Variance | str] = {}
    for name in estimators:
        noise = subject.generator("gradient variance", stage, name, samples)
        try:
            cells[name] = total_variance(gradient, name, samples, noise, RELATIVE_ERROR, passes)
        except BenchError as error:
            cells[name] = str(error)
    return cells


@dataclass(frozen=True)
class Time:
    """Microseconds of a training step for each noise sample of each image."""

    value: float
    standard_error: float
    rounds: int


def rows_of(
    cells: dict[str, Variance | str],
    times: dict[tuple[str, int], Time],
    images: int,
    **settings: object,
) -> Iterator[Row]:
    """The rows of one stage and S; ratios are to the first estimator that is admitted."""
    measured = {name: cell for name, cell in cells.items() if isinstance(cell, Variance)}
    finite = {name: cell for name, cell in measured.items() if not cell.cause}
    reference = next(iter(finite), None)
    # E g is the same for all of them: the quietest tells it best
    signal = min(finite.values(), key=lambda v: v.value[0] / v.replicates).signal if finite else 0
    for name, cell in cells.items():
        here = {**settings, "estimator": name}
        if isinstance(cell, str):
            yield Row("total_variance", math.nan, SQUARED, here, reason=cell)
            continue
        flagged = {**here, "capped": True} if cell.capped else here
        n = images * cell.replicates
        values, errors = cell.value.tolist(), cell.standard_error.tolist()
        for part, value, error in zip(PARTS, values, errors, strict=True):
            yield Row(f"{part}_variance", value, SQUARED, flagged, error, n, cell.cause)
        if name in finite:
            to_noise = signal / values[0] if values[0] else math.inf
            yield Row("signal_to_noise", to_noise, "1", here, to_noise * _relative(cell), n)
            yield from _comparison(name, reference, finite, times, n, here)


def _comparison(
    name: str,
    reference: str,
    cells: dict[str, Variance],
    times: dict[tuple[str, int], Time],
    n: int,
    settings: dict[str, object],
) -> Iterator[Row]:
    """Its variance over the reference's, and of variance times time the reference's over its own.

    The reference's own ratios are exactly 1.
    """
    cell, other, certain = cells[name], cells[reference], name == reference
    compared = {**settings, "reference": reference}
    variance = other.value[0].item()
    ratio = cell.value[0].item() / variance if variance else math.nan
    spread = 0.0 if certain else math.hypot(_relative(cell), _relative(other))
    yield Row("variance_ratio", ratio, "1", compared, ratio * spread, n)
    own, base = (times.get((estimator, settings.get("S"))) for estimator in (name, reference))
    if own is None or base is None:
        return
    step = "step_microseconds"
    yield Row(step, own.value, "µs/sample", settings, own.standard_error, own.rounds)
    efficiency = base.value / (ratio * own.value) if ratio else math.inf
    clock = math.hypot(own.standard_error / own.value, base.standard_error / base.value)
    spread = 0.0 if certain else math.hypot(spread, clock)
    yield Row("efficiency", efficiency, "1", compared, efficiency * spread, n)


def _relative(cell: Variance) -> float:
    return (cell.standard_error[0] / cell.value[0]).item() if cell.value[0] else 0.0


def step_times(
    model: VAE, x: Tensor, run: Run, generator: torch.Generator, estimators: tuple[str, ...]
) -> dict[tuple[str, int], Time]:
    """Time of a whole training step on x `(B, D)` by (estimator, S), per image and noise sample.

    Medians over rounds in which the estimators take turns, so that a busy moment hits them alike.
    """
    model = copy.deepcopy(model)
    noise = standard_normal(len(x), model.latent_dim, generator)

    @cache
    def move_by(name: str, samples: int) -> EagerStep:
        return EagerStep(model, ESTIMATORS[name], run.with_(samples=samples))

    def step(name: str, samples: int) -> float:
        move = move_by(name, samples)
        started = _now(x.device)
        move(x, noise, 1.0, 0.0)
        return _now(x.device) - started

    taken: dict[tuple[str, int], list[float]] = {}
    for samples in SAMPLES:
        for turn in range(ROUNDS + 1):
            for name in estimators:
                key = (name, samples)
                if turn and (key not in taken or _enough(taken[key])):
                    continue
                try:
                    taken.setdefault(key, []).append(step(name, samples))
                except (BenchError, NotImplementedError):
                    taken.pop(key, None)
    return {
        key: _per_sample(seconds[1:] if len(seconds) > 2 else seconds, len(x) * key[1])
        for key, seconds in taken.items()
    }


def _enough(seconds: list[float]) -> bool:
    return len(seconds) >= 2 and sum(seconds) > TIMING_SECONDS


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.thread_time()  # other processes on the machine do not slow it


def _per_sample(seconds: list[float], samples: int) -> Time:
    each = [1e6 * s / samples for s in seconds]
    error = statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return Time(statistics.median(each), error, len(each))
