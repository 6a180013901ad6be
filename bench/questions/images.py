"""Small pictures that several questions store beside their rows."""

from __future__ import annotations

import torch
from torch import Tensor

from vaes import Autoencoder


def images_of(model: Autoencoder, z: Tensor, image_shape: tuple[int, int]) -> Tensor:
    """Pixel means decoded from z `(..., L)`, `(..., H, W)`, as bytes."""
    return as_bytes(torch.sigmoid(model.decode(z)).unflatten(-1, image_shape))


def as_bytes(intensities: Tensor) -> Tensor:
    """Intensities in [0, 1] as uint8 on the CPU, in 32 shades, which compress well."""
    return ((intensities * 31).round() * (255 / 31)).round().to(torch.uint8).cpu()
