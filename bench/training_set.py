"""The training images of a run, where they are not simply the data set's."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from bench.config import Run, generator
from bench.corruptions import augment
from bench.data import Dataset, binarize

SEEN = 1000


@dataclass(frozen=True, eq=False)
class TrainingSet(Dataset):
    """A data set whose training images were chosen or changed for one run.

    `seen` holds the first of its distinct training images, at most 1,000, as one fixed draw:
    what `valid` and `test` are to the others, so that a run can track all three alike.
    """

    seen: Tensor


def training_set(data: Dataset, run: Run) -> Dataset:
    """The run's data: `data` itself, or with its training images cut, corrupted and repeated.

    `run.distinct` images, repeated up to `run.train_size` (or the data set's size), make every
    number of images an epoch of the same number of steps. Raises BenchError on an unknown
    corruption.
    """
    if not (run.distinct or run.augmentation):
        return data
    size = run.train_size or len(data.train)
    changed = replace(data, train=data.train[: run.distinct or None])
    if run.augmentation:
        changed = augment(changed, run)
    seen = fixed_draw(changed, run)
    if run.distinct:
        repeats = -(-size // len(changed.train))
        changed = replace(changed, train=changed.train.repeat(repeats, 1)[:size])
    own = {field.name: getattr(changed, field.name) for field in fields(Dataset)}
    return TrainingSet(**own, seen=seen)


def fixed_draw(data: Dataset, run: Run) -> Tensor:
    """The first training images, at most 1,000, drawn once as `valid` and `test` are; uint8."""
    images = data.train[: run.train_size or None][:SEEN]
    if data.binarization != "stochastic":
        return images
    draws = generator(images.device, run.dataset, run.seed, "seen")
    return (binarize(images, draws) * 255).to(torch.uint8)
