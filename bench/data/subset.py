"""Some of many images, at random: a published file may be sorted by class."""

from __future__ import annotations

import torch
from torch import Tensor


def subset(total: int, count: int, generator: torch.Generator) -> Tensor:
    """Places `(n,)`, int64, of `count` of `total` images without replacement; of all where fewer.

    In random order, so that any part of a subset is a random subset too, and the first m are those
    that a generator in the same state gives for m. The generator is of the CPU: places are the
    same whatever device the images are on, and serve images and labels alike.
    """
    return torch.randperm(total, generator=generator)[:count]


def subset_of_seed(total: int, count: int, seed: int, generator: torch.Generator) -> Tensor:
    """Places `(n,)` as of `subset`, of which no two seeds share one, as far as `total` reaches.

    The generator's permutation is dealt out in turn: seed s has the s-th `count` of it, and beyond
    its end begins again.
    """
    order = torch.randperm(total, generator=generator)
    return order.roll(-seed * count)[:count]
