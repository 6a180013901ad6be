"""Binarization against its exact law."""

from __future__ import annotations

import math

import torch

from bench.data.binarization import (
    AT_ONCE,
    as_float,
    binarize,
    draw_images,
    draw_pixels,
    thresholds,
)

LEVELS = torch.arange(256, dtype=torch.uint8)


def test_binarization_has_its_stated_law_exactly(monkeypatch):
    """Over all 65,536 random words, white is drawn 257 v times: P = (v / 255)(1 - 2^-16)."""
    every_word = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.int64)
    monkeypatch.setattr(torch.Tensor, "random_", lambda self, *a, **k: self.copy_(every_word))
    for level in range(256):
        images = torch.full((2**16,), level, dtype=torch.uint8)
        drawn = binarize(images, torch.Generator())
        assert drawn.sum(dtype=torch.float64) == 257 * level
        assert abs(drawn.mean(dtype=torch.float64) - level / 255) < 1.6e-5


def test_binarization_mean_is_the_pixel_value():
    """Every level in each of the four words of a 64-bit draw; fails by chance with P < 1e-6.

    Bernstein's inequality, with the union bound over 1,024 means, at a fixed seed.
    """
    draws = 2**14
    images = LEVELS[:, None].expand(256, 4 * draws)
    drawn = binarize(images, torch.Generator().manual_seed(1))
    assert drawn.dtype == torch.float32
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    white = drawn.view(256, draws, 4).sum(1, dtype=torch.float64)
    mean = LEVELS.double()[:, None] / 255
    log_term = math.log(2 * 1024 / 1e-6)
    variance = draws * mean * (1 - mean)
    allowed = log_term / 3 + (log_term**2 / 9 + 2 * log_term * variance).sqrt() + 1.6e-5 * draws
    assert ((white - draws * mean).abs() < allowed).all()


def test_binarization_of_neighbouring_pixels_is_independent():
    """Pairs of the four words agree half the time at grey; fails by chance with P < 1e-6.

    Hoeffding's inequality, with the union bound over 6 pairs and their shift by one draw.
    """
    draws = 2**16
    images = torch.full((draws, 4), 128, dtype=torch.uint8)
    white = binarize(images, torch.Generator().manual_seed(2))
    p = 128 / 255
    allowed = draws * (math.sqrt(math.log(2 * 16 / 1e-6) / (2 * draws)) + 4e-5)
    for first in range(4):
        for second in range(4):
            shifted = white[:, second].roll(1 if second <= first else 0)
            agreements = (white[:, first] == shifted).sum().item()
            assert abs(agreements - draws * (p * p + (1 - p) ** 2)) < allowed


def test_binarization_is_reproducible_and_never_repeats():
    images = torch.randint(0, 256, (7, 5, 13), dtype=torch.uint8)
    first, again = (torch.Generator().manual_seed(3) for _ in range(2))
    one = binarize(images, first)
    assert one.shape == images.shape
    assert torch.equal(one, binarize(images, again))
    assert not torch.equal(one, binarize(images, first))


def test_binarization_follows_the_device_of_the_images():
    drawn = binarize(torch.empty(3, 5, dtype=torch.uint8, device="meta"), torch.Generator())
    assert drawn.device.type == "meta"
    assert drawn.shape == (3, 5)


def test_binarization_takes_views_and_nothing():
    generator = torch.Generator().manual_seed(0)
    assert binarize(LEVELS.view(16, 16).T, generator).T.flatten()[0] == 0
    assert binarize(torch.empty(0, 9, dtype=torch.uint8), generator).shape == (0, 9)


def test_as_float_is_exact_at_both_ends():
    values = as_float(LEVELS)
    assert values.dtype == torch.float32
    assert values[0] == 0
    assert values[255] == 1
    torch.testing.assert_close(values.double(), LEVELS.double() / 255, atol=1e-7, rtol=0)


def test_many_images_are_drawn_as_in_one_call():
    """Part by part, within the cache; the last part is no whole one, nor its words."""
    pixels = thresholds(torch.randint(0, 256, (300, 7), dtype=torch.uint8))
    index = torch.randperm(300)[: 2 * AT_ONCE + 5]
    once, parts = (torch.Generator().manual_seed(4) for _ in range(2))
    whole = draw_pixels(pixels.index_select(0, index), once)
    assert torch.equal(draw_images(pixels, index, parts), whole)
    assert torch.equal(draw_images(pixels, index[:9], parts), draw_pixels(pixels[index[:9]], once))
