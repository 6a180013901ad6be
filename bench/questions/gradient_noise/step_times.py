"""How long a training step takes with each gradient estimator."""

from __future__ import annotations

import copy
import statistics
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from scipy.stats.mstats import mjci
from torch import Tensor

from bench.config import Run
from bench.errors import BenchError
from bench.inference.gradients import ESTIMATORS
from bench.inference.reparameterize import standard_normal
from bench.training.step import EagerStep, now
from vaes import VAE

ROUNDS, FEWEST_ROUNDS = 20, 5
TIMING_SECONDS = 0.06
"""Steps of one estimator are repeated up to `ROUNDS` times within this time, at least
`FEWEST_ROUNDS` times, after a first that does not count: the median's relative error is then some
2 to 3 %, below the variances' 4 to 8 %."""


@dataclass(frozen=True)
class Time:
    """Median microseconds of a training step for each image, and its standard error."""

    value: float
    standard_error: float
    rounds: int

    @property
    def relative_error(self) -> float:
        return self.standard_error / self.value


def step_times(
    model: VAE,
    x: Tensor,
    run: Run,
    generator: torch.Generator,
    estimators: tuple[str, ...],
    samples: tuple[int, ...],
) -> dict[tuple[str, int], Time]:
    """Time of a whole training step on x `(B, D)` by (estimator, S), where it is admitted.

    Medians over rounds in which the estimators take turns, so that a busy moment hits them alike;
    in an order drawn anew each time, so that none always follows the one that empties the cache.
    """
    model = copy.deepcopy(model)
    noise = standard_normal(len(x), model.latent_dim, generator)

    @cache
    def move_by(name: str, s: int) -> EagerStep:
        return EagerStep(model, ESTIMATORS[name], run.with_(samples=s))

    def step(name: str, s: int) -> float:
        move = move_by(name, s)
        started = now(x.device)
        move(x, noise, 1.0, 0.0)
        return now(x.device) - started

    taken: dict[tuple[str, int], list[float]] = {}
    keys, draws = [*product(estimators, samples)], torch.Generator()
    draws.manual_seed(generator.initial_seed())
    for turn in range(ROUNDS + 1):
        for place in torch.randperm(len(keys), generator=draws).tolist():
            key = keys[place]
            if turn and (key not in taken or _enough(taken[key])):
                continue
            try:
                taken.setdefault(key, []).append(step(*key))
            except (BenchError, NotImplementedError):
                taken.pop(key, None)
    return {key: _per_image(seconds[1:], len(x)) for key, seconds in taken.items()}


def _enough(seconds: list[float]) -> bool:
    return len(seconds) > FEWEST_ROUNDS and sum(seconds[1:]) > TIMING_SECONDS


def _per_image(seconds: list[float], images: int) -> Time:
    """The median; its standard error is that of Maritz & Jarrett (1978)."""
    each = [1e6 * s / images for s in seconds]
    (error,) = mjci(each, [0.5])
    return Time(statistics.median(each), float(error), len(each))
