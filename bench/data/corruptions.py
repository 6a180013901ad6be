"""Corrupted images at graded levels: plain functions of (x, level, generator), registered once.

x `(B, H, W)` holds intensities in [0, 1]; the level lies in [0, 1], 0 leaves x as it is, and may
be a tensor `(B, 1, 1)` of one level an image. With the generator in the same state the levels
are nested: what a lower level changed, a higher one changes too.

A new corruption is one function and one entry of `CORRUPTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from bench.data.binarization import as_float
from bench.data.dataset import Dataset, load
from bench.data.files import is_on_disk
from bench.errors import BenchError

Corrupt = Callable[[Tensor, float | Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A corruption, called as its function is, with the levels it is looked at (ascending)."""

    corrupt: Corrupt
    levels: tuple[float, ...]
    label: str

    def __call__(self, x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
        return self.corrupt(x, level, generator)


def bit_flips(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel is inverted with probability `level`."""
    return torch.where(_chosen(x, level, generator), 1 - x, x)


def salt(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel turns white with probability `level`."""
    return torch.where(_chosen(x, level, generator), torch.ones_like(x), x)


def pixel_erasure(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel turns black with probability `level`."""
    return torch.where(_chosen(x, level, generator), torch.zeros_like(x), x)


def row_occlusion(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
    """A band of rows, a share `level` of the height, turns black; its place is random."""
    height = x.shape[-2]
    covered = torch.round(height * torch.as_tensor(level, device=x.device))
    place = torch.rand(x.shape[0], 1, 1, generator=generator, device=x.device)
    # of its n - k + 1 places; written so that a wider band contains a narrower one
    first = torch.floor(place * (height - covered + 1))
    row = torch.arange(height, device=x.device).view(1, height, 1)
    return torch.where((row >= first) & (row < first + covered), torch.zeros_like(x), x)


def contrast(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
    """Contrast falls to 1 − `level` of itself around middle grey; nothing is random."""
    return 0.5 + (1 - level) * (x - 0.5)


def pixels_of(others: Tensor) -> Corrupt:
    """Each pixel is taken from another image, paired by place, with probability `level`.

    others `(N, H, W)`, N at least the number of images to be corrupted.
    """

    def other_images(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
        return torch.where(_chosen(x, level, generator), others[: len(x)], x)

    return other_images


def _chosen(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(x.shape, generator=generator, device=x.device) < level


CORRUPTIONS: dict[str, Corruption] = {
    "bit_flips": Corruption(bit_flips, (0.02, 0.05, 0.1, 0.2, 0.4), "bit flips"),
    "salt": Corruption(salt, (0.02, 0.05, 0.1, 0.2, 0.4), "salt"),
    "pixel_erasure": Corruption(pixel_erasure, (0.1, 0.25, 0.5, 0.75, 0.95), "pixel erasure"),
    "row_occlusion": Corruption(row_occlusion, (0.15, 0.3, 0.5, 0.7, 0.9), "row occlusion"),
    "contrast": Corruption(contrast, (0.2, 0.4, 0.6, 0.8, 0.95), "contrast"),
}
LEVELS: dict[str, tuple[float, ...]] = {
    **{name: corruption.levels for name, corruption in CORRUPTIONS.items()},
    "other_images": (0.1, 0.25, 0.5, 0.75, 1.0),
}
"""Of each corruption, ascending, and of `other_images`, which `pixels_of` makes from a data set."""
LABELS: dict[str, str] = {
    **{name: corruption.label for name, corruption in CORRUPTIONS.items()},
    "other_images": "other images",
}

TURNED = "test_images_rotated_and_inverted"


@cache
def other_source(dataset: str) -> str:
    """Where images of another kind than the data set's come from on this machine.

    Fashion-MNIST where its files are on disk (nothing is downloaded), and for Fashion-MNIST itself
    MNIST digits. Else the data set's own test images, rotated and inverted.
    """
    if dataset == "fashion_mnist":
        return "mnist5k"
    return "fashion_mnist" if is_on_disk("fashion_mnist") else TURNED


def other_images(data: Dataset, source: str, count: int) -> tuple[str, Tensor]:
    """What they are, and images `(count, H, W)` of another kind, floats on the data's device.

    They come from the `other_source` named, or are `TURNED` where its images are of another shape
    or cannot be read.
    """
    images = _another(source, data.image_shape)
    if images is None:
        own = as_float(data.test).view(-1, *data.image_shape)
        turned = own.rot90(2, (1, 2)) if own.shape[1] != own.shape[2] else own.rot90(1, (1, 2))
        source, images = TURNED, 1 - turned
    repeats = -(-count // len(images))
    return source, images.repeat(repeats, 1, 1)[:count].to(data.test.device)


@cache
def _another(source: str, image_shape: tuple[int, int]) -> Tensor | None:
    if source == TURNED or image_shape != (28, 28):
        return None
    try:
        return as_float(load(source).test).view(-1, 28, 28)
    except BenchError:  # the package or an intact file is missing
        return None
