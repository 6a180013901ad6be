"""How the learning rate goes down over a training: small functions, each a factor of the rate.

A schedule says too how long it is the same whatever the training's length: so far, runs that
differ in nothing but their length share a trunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bench.config import Run
from bench.errors import BenchError, nearest

DECAY = 0.2
"""Share of a training, its last, over which the learning rate falls.

At the learning rates that are chosen, shares from 0.1 to 0.35 are within 0.4 nats of each other and
0.2 within 0.05 of the best (`mnist5k`, input-dependent and learned-diagonal, 30 and 240 epochs,
seed 0; shares of 0.05 and 0.5 lose up to 1.5 and 0.3).
"""
FLOOR = 0.02
"""Share of the learning rate that is left at the end of a decay."""


@dataclass(frozen=True)
class Schedule:
    """One way down.

    Attributes:
        factor: of the learning rate, from the steps done, the steps in all and those of an epoch.
        common: how many steps of a training of so many, but not all, are those of any longer one.
    """

    factor: Callable[[int, int, int], float]
    common: Callable[[int], int]


def _all_but_one(steps: int) -> int:
    return steps - 1


def _decay_start(steps: int) -> int:
    return steps - max(1, round(DECAY * steps))


def _decay(step: int, steps: int, epoch: int) -> float:
    """Constant, then linear down to 2 % over the last fifth."""
    left = min(1.0, (steps - step) / (steps - _decay_start(steps)))
    return FLOOR + (1 - FLOOR) * left


def _constant(step: int, steps: int, epoch: int) -> float:
    return 1.0


def _cosine(step: int, steps: int, epoch: int) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017)."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def _stages(step: int, steps: int, epoch: int) -> float:
    """round(10^(1 − i/7), 1) / 10 for 3^i epochs each, i = 0, 1, … (Burda et al. 2016, sec. 5)."""
    stage, ends = 0, 1
    while step // epoch >= ends:
        stage += 1
        ends += 3**stage
    return round(10 ** (1 - stage / 7), 1) / 10


def _exponential(epochs: float) -> Schedule:
    """Tenfold down over so many epochs, and on."""
    return Schedule(lambda step, steps, epoch: 0.1 ** (step // epoch / epochs), _all_but_one)


SCHEDULES: dict[str, Schedule] = {
    "decay": Schedule(_decay, _decay_start),
    "constant": Schedule(_constant, _all_but_one),
    "cosine": Schedule(_cosine, lambda steps: 0),
    "stages": Schedule(_stages, _all_but_one),
}


def schedule(name: str) -> Schedule:
    """A name of `SCHEDULES`, or `exponential:N`, tenfold down over N epochs.

    Raises BenchError on any other.
    """
    kind, _, epochs = name.partition(":")
    if kind == "exponential":
        try:
            if 0 < float(epochs) < math.inf:
                return _exponential(float(epochs))
        except ValueError:
            pass
        raise BenchError(
            f"schedule '{name}' must say over how many epochs the rate falls tenfold, "
            "e.g. exponential:3000"
        )
    if name not in SCHEDULES:
        raise nearest("schedule", name, [*SCHEDULES, "exponential:N"])
    return SCHEDULES[name]


def learning_rate(run: Run, step: int, steps: int, epoch: int) -> float:
    """Of the step that follows `step` of `steps`, where an epoch has `epoch` steps."""
    return run.learning_rate * schedule(run.schedule).factor(step, steps, epoch)
