"""What the grid and a question agree on: requests, the subject that is measured, and rows.

A question's `measure` module has

- `requests(run, preset)`: for one headline run, the `Request`s it makes; a request may name
  another run (fewer epochs, another estimator), which is then trained too;
- `measure(subject, **settings)`: a `Result` from the trained model and the data. It never trains,
  prints or draws;
- optionally `compare(results, reference)`: rows that need several runs at once (paired
  differences), from the arrays of this question's results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from bench.config import Preset, Run
from bench.data.dataset import Dataset
from bench.data.subset import subset_of_seed
from bench.randomness import generator
from bench.training.loop import Trained, restore
from vaes import Autoencoder


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        metric: what it is, e.g. `elbo`.
        value: the number; NaN where it does not exist, with the `reason`.
        unit: e.g. `nats/image`.
        settings: what it was measured at, e.g. `{"stage": "best", "K": 1000}`; the names and
            types are those of `bench.report.rows.SETTINGS`.
        standard_error: of `value` given the trained model, over images, or over noise where the
            images themselves are given; NaN or 0 where it is exact.
        n: how many samples or images stand behind it.
        reason: why there is no (finite) value; "" where there is one.
    """

    metric: str
    value: float
    unit: str
    settings: Mapping[str, object] = field(default_factory=dict)
    standard_error: float = math.nan
    n: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Request:
    """What a question asks for: measure this run with these settings.

    Attributes:
        run: the run to be trained (or found trained) first.
        settings: keyword arguments of `measure`, as pairs of hashable values.
    """

    run: Run
    settings: tuple[tuple[str, object], ...] = ()


@dataclass
class Result:
    """What a question found of one run.

    Attributes:
        rows: the numbers.
        arrays: per-image values for `compare`; they stay in the cache.
        pictures: small arrays a report draws; they are stored beside the rows.
        notice: what a user should know of how it was found (e.g. why slowly), or "".
    """

    rows: list[Row] = field(default_factory=list)
    arrays: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    notice: str = ""


@dataclass(frozen=True)
class Subject:
    """What is measured: a trained run, its variant's class and its data (on the run's device)."""

    trained: Trained
    variant: type[Autoencoder]
    data: Dataset

    @property
    def run(self) -> Run:
        return self.trained.run

    def model(self, stage: str = "best") -> Autoencoder:
        """The model with the weights of a stage (`bench.training.loop.STAGES`), evaluating."""
        data_dim = self.data.test.shape[1]
        return restore(self.trained, self.variant, data_dim, stage, self.run.device)

    def generator(self, *purpose: object) -> torch.Generator:
        """Noise on the run's device, the same for every variant of one data set and seed."""
        return generator(self.run.device, self.run.dataset, self.run.seed, *purpose)

    def subset(self, count: int, split: str = "test") -> Tensor:
        """Places of `count` random images of a split, for `images[places]` and `labels[places]`.

        Of `train`, of those that the run may train on (its `train_size`).
        The same for every variant, device and question of one data set and seed; no two seeds
        share one while there are enough, so that an interval over seeds is one over images too.
        """
        draws = generator("cpu", self.run.dataset, "subset", split)
        images = getattr(self.data, split)
        total = len(images[: self.run.train_size or None] if split == "train" else images)
        return subset_of_seed(total, count, self.run.seed, draws)


def what_was_trained(run: Run) -> dict[str, object]:
    """How a run was trained, as settings of a row."""
    length = {"steps": run.steps} if run.steps else {"epochs": run.epochs}
    estimator = {} if run.estimator == Run.estimator else {"estimator": run.estimator}
    rate = {"learning_rate": run.learning_rate, "S": run.samples}
    return length | estimator | rate | {f"hyperparameter_{n}": v for n, v in run.hyperparameters}


class Measurement(Protocol):
    """A question as the grid sees it: `bench.questions.Question` is one."""

    name: str

    @property
    def requests(self) -> Callable[[Run, Preset], Iterator[Request]]: ...

    @property
    def measure(self) -> Callable[..., Result]: ...

    @property
    def compare(self) -> Callable[[Mapping, str], Iterator[tuple[str, int, Row]]] | None: ...
