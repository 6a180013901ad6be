"""Corruptions against their definitions, and images of another kind."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from bench.data.binarization import as_float
from bench.data.corruptions import (
    CORRUPTIONS,
    LABELS,
    LEVELS,
    TURNED,
    bit_flips,
    contrast,
    other_images,
    pixels_of,
    row_occlusion,
)
from bench.data.dataset import Dataset

SHAPE = (6, 4)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    return (torch.rand((count, *shape), generator=draws(1)) < 0.5).float()


ALL = {**CORRUPTIONS, "other_images": pixels_of(1 - images(50))}


def test_every_corruption_has_ascending_levels_and_a_label():
    assert set(LEVELS) == set(LABELS) == set(ALL)
    for levels in LEVELS.values():
        assert levels[0] > 0
        assert levels[-1] <= 1
        assert all(lower < higher for lower, higher in pairwise(levels))
    assert len(set(LABELS.values())) == len(LABELS)


@pytest.mark.parametrize("name", ALL)
def test_level_zero_leaves_images_as_they_are(name):
    x = images(50)
    assert torch.equal(ALL[name](x, 0.0, draws()), x)


@pytest.mark.parametrize("name", ALL)
def test_levels_are_nested(name):
    """What a lower level changed, a higher one changes too, image by image."""
    x = images(50)
    changed = [ALL[name](x, level, draws()) != x for level in LEVELS[name]]
    for lower, higher in pairwise(changed):
        assert (higher | ~lower).all()
    assert changed[-1].any()


@pytest.mark.parametrize("name", ALL)
def test_one_level_an_image_is_that_level_for_it(name):
    x = images(50)
    strongest = LEVELS[name][-1]
    levels = torch.zeros(50, 1, 1)
    levels[::2] = strongest
    corrupted = ALL[name](x, levels, draws())
    assert torch.equal(corrupted[1::2], x[1::2])
    assert torch.equal(corrupted[::2], ALL[name](x, strongest, draws())[::2])


def test_bit_flips_invert_the_stated_share():
    """Hoeffding's inequality at a fixed seed; fails by chance with P < 1e-6."""
    x = images(200, (28, 28))
    allowed = math.sqrt(math.log(2 / 1e-6) / (2 * x.numel()))
    for level in LEVELS["bit_flips"]:
        flipped = bit_flips(x, level, draws()) != x
        assert abs(flipped.double().mean() - level) < allowed


def test_row_occlusion_blackens_one_band_of_the_stated_height():
    covered = row_occlusion(torch.ones(300, 10, 3), 0.3, draws()) == 0
    rows = covered.all(-1)
    assert (covered.any(-1) == rows).all()
    assert (rows.sum(-1) == 3).all()
    first = rows.int().argmax(-1)
    assert all(rows[i, first[i] : first[i] + 3].all() for i in range(300))
    assert set(first.tolist()) == set(range(8))


def test_contrast_shrinks_towards_middle_grey():
    x = torch.tensor([[[0.0, 0.5, 1.0]]])
    assert torch.allclose(contrast(x, 0.8, draws()), torch.tensor([[[0.4, 0.5, 0.6]]]))


def test_other_images_fall_back_on_the_test_images_turned_and_inverted():
    binary = (images(40).flatten(1) * 255).to(torch.uint8)
    data = Dataset("striped", binary, binary[:20], binary[20:], "binary", SHAPE, "print")
    source, others = other_images(data, "fashion_mnist", 30)  # of another shape
    assert source == TURNED
    assert others.shape == (30, *SHAPE)
    test = as_float(data.test).view(-1, *SHAPE)
    assert torch.equal(others[3], 1 - test[3].flip(0, 1))
    assert torch.equal(others[20], others[0])
