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

from bench.bounds import standard_normal
from bench.config import BenchError, Preset, Run
from bench.data import as_float
from bench.gradient_noise import Cut, Variance, decoder_variance, total_variance
from bench.gradients import estimators
from bench.measure import Request, Result, Row, Subject, setting
from bench.step import EagerStep
from vaes import VAE

STAGES = ("initialisation", "epoch_1", "best")
SAMPLES = (1, 4, 16)
RELATIVE_ERROR = 0.05
DECODER_DRAWS = 32
ROUNDS = 12
TIMING_SECONDS = 0.2
"""Steps of one estimator are repeated up to `ROUNDS` times within this time, at least twice."""
SQUARED = "nats²"
"""Unit of a squared norm of an ELBO gradient; network parameters have none."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement a variant, of its first seed: the spread is over images and noise."""
    if run.seed == 0:
        amounts = (("images", preset.gradient_images), ("passes", preset.gradient_passes))
        yield Request(run, amounts)


def measure(subject: Subject, images: int, passes: int) -> Result:
    """Every estimator, stage and S; at most `passes` decoder passes a cell or a few replicates."""
    if not issubclass(subject.variant, VAE):
        return Result()
    x = as_float(subject.data.test[:images])
    batch = as_float(subject.data.train[: subject.run.batch_size])
    times = step_times(subject.model(), batch, subject.run, subject.generator("gradient timing"))
    rows = []
    for stage in STAGES:
        model = subject.model(stage)
        value, error = decoder_variance(
            model, x, DECODER_DRAWS, subject.generator("decoder gradient", stage)
        )
        where = setting(stage=stage, S=1)
        n = len(x) * DECODER_DRAWS
        rows.append(Row("decoder_variance", value, SQUARED, where, error, n))
        cut = Cut.of(model, x)
        for samples in SAMPLES:
            cells = cells_of(subject, cut, stage, samples, passes)
            rows += rows_of(cells, times, len(x), stage=stage, S=samples)
    return Result(rows)


def cells_of(
    subject: Subject, cut: Cut, stage: str, samples: int, passes: int
) -> dict[str, Variance | str]:
    """Estimator → its variance, or why there is none."""
    cells: dict[str, Variance | str] = {}
    for name in estimators():
        noise = subject.generator("gradient variance", stage, name, samples)
        try:
            cells[name] = total_variance(cut, name, samples, noise, RELATIVE_ERROR, passes)
        except BenchError as error:
            cells[name] = str(error).replace(";", ",")
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
    **where: object,
) -> Iterator[Row]:
    """The rows of one stage and S; ratios are to the first estimator that is admitted."""
    measured = {name: cell for name, cell in cells.items() if isinstance(cell, Variance)}
    finite = {name: cell for name, cell in measured.items() if not cell.cause}
    reference = next(iter(finite), None)
    # E g is the same for all of them: the quietest tells it best
    signal = min(finite.values(), key=lambda v: v.value[0] / v.replicates).signal if finite else 0
    for name, cell in cells.items():
        here = where | {"estimator": name}
        if isinstance(cell, str):
            yield Row("total_variance", math.nan, SQUARED, setting(**here, reason=cell))
            continue
        flags = {"capped": 1} if cell.capped else {}
        flags |= {"cause": cell.cause} if cell.cause else {}
        n = images * cell.replicates
        values, errors = cell.value.tolist(), cell.standard_error.tolist()
        for part, value, error in zip(("total", "location", "scale"), values, errors, strict=True):
            yield Row(f"{part}_variance", value, SQUARED, setting(**here, **flags), error, n)
        if name not in finite:
            continue
        noise = _relative(cell)
        to_noise = signal / values[0] if values[0] else math.inf
        yield Row("signal_to_noise", to_noise, "1", setting(**here), to_noise * noise, n)
        other = finite[reference]
        compared = setting(**here, reference=reference)
        base_value = other.value[0].item()
        ratio = values[0] / base_value if base_value else math.nan
        spread = 0.0 if name == reference else math.hypot(noise, _relative(other))
        yield Row("variance_ratio", ratio, "1", compared, ratio * spread, n)
        time_, base = times.get((name, where.get("S"))), times.get((reference, where.get("S")))
        if time_ is None or base is None:
            continue
        yield Row(
            "step_microseconds", time_.value, "µs/sample", setting(**here), time_.standard_error,
            time_.rounds,
        )  # fmt: skip
        efficiency = base.value / (ratio * time_.value) if ratio else math.inf
        clock = math.hypot(time_.standard_error / time_.value, base.standard_error / base.value)
        spread = 0.0 if name == reference else math.hypot(spread, clock)
        yield Row("efficiency", efficiency, "1", compared, efficiency * spread, n)


def _relative(cell: Variance) -> float:
    return (cell.standard_error[0] / cell.value[0]).item() if cell.value[0] else 0.0


def step_times(
    model: VAE, x: Tensor, run: Run, generator: torch.Generator
) -> dict[tuple[str, int], Time]:
    """Time of a whole training step on x `(B, D)` by (estimator, S), per image and noise sample.

    Medians over rounds in which the estimators take turns, so that a busy moment hits them alike.
    """
    model = copy.deepcopy(model)
    noise = standard_normal(len(x), model.latent_dim, generator)

    @cache
    def move_by(name: str, samples: int) -> EagerStep:
        return EagerStep(model, estimators()[name], run.with_(samples=samples))

    def step(name: str, samples: int) -> float:
        move = move_by(name, samples)
        started = _now(x.device)
        move(x, noise, 1.0, 0.0)
        return _now(x.device) - started

    taken: dict[tuple[str, int], list[float]] = {}
    for samples in SAMPLES:
        for turn in range(ROUNDS + 1):
            for name in estimators():
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
