"""The training images of a run, where they are not simply the data set's: fewer, or augmented."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from bench.config import Run
from bench.data.binarization import as_float, binarize
from bench.data.corruptions import CORRUPTIONS
from bench.data.dataset import Dataset
from bench.data.subset import subset_of_seed
from bench.errors import nearest
from bench.randomness import generator

COPIES_AT_ONCE = 10_000
SEEN = 1000


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingSet(Dataset):
    """A data set whose training images were chosen or changed for one run.

    `seen` (n, D), uint8, holds some of its distinct training images, n at most 1,000, as one
    fixed draw: what `valid` and `test` are to the others, so that a run can track all three alike.
    """

    seen: Tensor


def training_set(data: Dataset, run: Run) -> Dataset:
    """The run's data: `data` itself, or with its training images cut, corrupted and repeated.

    `run.train_size` or `run.distinct` random images, the seed's own (no two seeds share one while
    there are enough). Distinct ones are repeated up to `run.train_size` (or the data set's size),
    which makes every number of images an epoch of the same number of steps. Validation images come
    behind those for training where the run has both. Raises BenchError on an unknown corruption.
    """
    if run.training_split == "train+valid":
        data = replace(data, train=torch.cat([data.train, data.valid]))
    if not run.distinct and 0 < run.train_size < len(data.train):
        data = replace(data, train=_some(data.train, run.train_size, run, "train size"))
    if not (run.distinct or run.augmentation):
        return data
    size = run.train_size or len(data.train)
    changed = data
    if run.distinct:
        changed = replace(data, train=_some(data.train, run.distinct, run, "distinct"))
    if run.augmentation:
        changed = augment(changed, run)
    seen = fixed_draw(changed, run)
    if run.distinct:
        repeats = -(-size // len(changed.train))
        changed = replace(changed, train=changed.train.repeat(repeats, 1)[:size])
    own = {field.name: getattr(changed, field.name) for field in fields(Dataset)}
    return TrainingSet(**own, seen=seen)


def augment(data: Dataset, run: Run) -> Dataset:
    """The data set with every training image followed by a corrupted copy of it.

    `run.augmentation` names corruptions joined by `+`; each copy takes one of them and a level
    uniform between 0 and its highest, drawn once from the run's identity.

    Raises BenchError on an unknown corruption.
    """
    names = run.augmentation.split("+")
    for name in names:
        if name not in CORRUPTIONS:
            raise nearest("corruption", name, CORRUPTIONS)
    draws = generator(data.train.device, run.dataset, run.seed, "augmentation")
    copies = [_copies(chunk, data, names, draws) for chunk in data.train.split(COPIES_AT_ONCE)]
    return replace(data, train=torch.stack([data.train, torch.cat(copies)], 1).flatten(0, 1))


def _copies(images: Tensor, data: Dataset, names: list[str], draws: torch.Generator) -> Tensor:
    x = as_float(images).view(-1, *data.image_shape)
    which = torch.randint(len(names), (len(x), 1, 1), generator=draws, device=x.device)
    share = torch.rand(len(x), 1, 1, generator=draws, device=x.device)
    copies = x
    for place, name in enumerate(names):
        corrupted = CORRUPTIONS[name](x, share * CORRUPTIONS[name].levels[-1], draws)
        copies = torch.where(which == place, corrupted, copies)
    return (copies * 255).round().to(torch.uint8).flatten(1)


def _some(images: Tensor, count: int, run: Run, purpose: str) -> Tensor:
    draws = generator("cpu", run.dataset, purpose)
    return images[subset_of_seed(len(images), count, run.seed, draws)]


def fixed_draw(data: Dataset, run: Run) -> Tensor:
    """Random training images, at most 1,000, drawn once as `valid` and `test` are; uint8."""
    images = _some(data.train[: run.train_size or None], SEEN, run, "seen images")
    if data.binarization != "stochastic":
        return images
    draws = generator(images.device, run.dataset, run.seed, "seen")
    return (binarize(images, draws) * 255).to(torch.uint8)
