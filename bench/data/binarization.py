"""Grey images as binary ones: bytes v stand for the intensity v / 255.

Where a data set is binarized stochastically (Salakhutdinov & Murray 2008), training images stay
grey, to be drawn afresh each time they are seen, while the validation and test images are one
fixed draw.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BINARIZATIONS = ("none", "threshold", "stochastic")
BINARIZATION_SEED = 20131220


def as_float(images: Tensor) -> Tensor:
    """Intensities in [0, 1], float32, of uint8 `images` of any shape."""
    return images.to(torch.float32) / 255


def binarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """A Bernoulli draw for every pixel of uint8 `images` (..., D), as float32 zeros and ones.

    P(x = 1) = (v / 255)(1 - 2^-16): black is exact, and no pixel is off by more than 1.6e-5.
    `generator` must live on the device of `images`; nothing waits for the device.
    """
    return draw_pixels(thresholds(images), generator)


def thresholds(images: Tensor) -> Tensor:
    """uint8 pixels v as 257 v - 32768, the int16 that a uniform one falls below to be white."""
    pixel = images.to(torch.int16)
    # written so that no intermediate leaves the range of int16
    return torch.add(pixel, pixel - 128, alpha=256)


def draw_pixels(
    thresholds: Tensor, generator: torch.Generator, out: Tensor | None = None
) -> Tensor:
    """`binarize` of images whose `thresholds` (..., D) are known, as in training they are.

    Sixteen random bits a pixel, since `torch.bernoulli` costs as much as a large matrix product.
    """
    device = thresholds.device
    # random_() without bounds never sets the top bit of an int64.
    words = torch.empty((thresholds.numel() + 3) // 4, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    uniform = words.view(torch.int16)[: thresholds.numel()].view(thresholds.shape)
    # Writing floats directly skips a pass over booleans, which takes as long as the rest.
    if out is None:
        out = torch.empty(thresholds.shape, dtype=torch.float32, device=device)
    return torch.lt(uniform, thresholds, out=out)


AT_ONCE = 128
"""Images to draw in one call on a CPU, whose cache then holds their random bits. A multiple of
four, so that the bits are those of one call for all."""


def draw_images(thresholds: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
    """`draw_pixels` of the images `thresholds` (N, D) at `index` (B,), float32 (B, D)."""
    if index.device.type != "cpu" or len(index) <= AT_ONCE:
        return draw_pixels(thresholds.index_select(0, index), generator)
    drawn = torch.empty(len(index), thresholds.shape[1])
    for out, part in zip(drawn.split(AT_ONCE), index.split(AT_ONCE), strict=True):
        draw_pixels(thresholds.index_select(0, part), generator, out)
    return drawn


def is_binary(images: np.ndarray) -> bool:
    """Whether uint8 `images` of any shape hold only 0 and 255."""
    return bool(((images == 0) | (images == 255)).all())


def binarized_splits(grey: dict[str, Tensor], binarization: str) -> dict[str, Tensor]:
    """Images `(N, D)` by split as the binarization leaves them; pixels from 128 count as white."""
    if binarization == "threshold":
        return {split: (images >= 128).to(torch.uint8) * 255 for split, images in grey.items()}
    if binarization == "stochastic":
        generator = torch.Generator().manual_seed(BINARIZATION_SEED)
        drawn = {
            split: (binarize(grey[split], generator) * 255).to(torch.uint8)
            for split in ("valid", "test")
        }
        return {"train": grey["train"], **drawn}
    return grey
