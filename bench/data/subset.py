"""Some of many images, at random: a published file may be sorted by class."""

from __future__ import annotations

import torch
from torch import Tensor


def subset_of_seed(total: int, count: int, seed: int, generator: torch.Generator) -> Tensor:
    """Places `(n,)`, int64, of `count` of `total` images without replacement; of all where fewer.

    The generator's permutation is dealt out in turn: seed s has the s-th `count` of it, and beyond
    its end begins again, so that no two seeds share a place, as far as `total` reaches. In random
    order, so that any part of a subset is a random subset too. The generator is of the CPU: places
    are the same whatever device the images are on, and serve images and labels alike.
    """
    order = torch.randperm(total, generator=generator)
    return order.roll(-seed * count)[:count]
