"""What is measured: one file a question, found by being in this folder.

A measurement module has
- `requests(run, preset)`: for one headline run, the `Request`s it wants; a request may name
  another run (fewer epochs, another estimator), which is then trained too;
- `measure(subject, **settings)`: rows and arrays from the trained model and the data. It never
  trains, prints or draws;
- optionally `compare(results)`: rows that need several runs at once (paired differences), from
  the arrays of this measurement's results.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor

from bench.config import Run, generator
from bench.data import Dataset
from bench.train import Trained, restore
from vaes import Autoencoder


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        metric: what it is, e.g. `elbo`.
        value: the number; NaN where it does not exist, with the reason in `setting`.
        unit: e.g. `nats/image`.
        setting: `key=value` pairs joined by `;`, e.g. `K=1000` or `estimator=rloo;S=4`.
        standard_error: Monte Carlo error of `value` given the trained model; NaN where exact.
        n: how many samples or images stand behind it.
    """

    metric: str
    value: float
    unit: str
    setting: str = ""
    standard_error: float = float("nan")
    n: int = 0


def setting(**pairs: object) -> str:
    """The text form of a setting: `setting(S=4, stage='best')` → `S=4;stage=best`."""
    return ";".join(f"{key}={value}" for key, value in pairs.items())


@dataclass(frozen=True)
class Request:
    """A wish of a measurement: measure this run with these settings.

    Attributes:
        run: the run to be trained (or found trained) first.
        settings: keyword arguments of `measure`, as pairs of hashable values.
    """

    run: Run
    settings: tuple[tuple[str, object], ...] = ()


@dataclass
class Result:
    """What a measurement found.

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
        """The model with the weights of a stage (`bench.train.STAGES`), in evaluation mode."""
        return restore(self.trained, self.variant, stage, self.run.device)

    def generator(self, *purpose: object) -> torch.Generator:
        """Noise on the run's device, the same for every variant of one data set and seed."""
        return generator(self.run.device, self.run.dataset, self.run.seed, *purpose)


def modules() -> dict[str, ModuleType]:
    """Every measurement by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    found = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in found.items() if hasattr(module, "requests")}
