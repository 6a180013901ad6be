"""Corrupted images at graded levels: plain functions of (x, level, generator).

x `(B, H, W)` holds intensities in [0, 1]; the level lies in [0, 1], 0 leaves x as it is, and may
be a tensor `(B, 1, 1)` of one level an image. With the generator in the same state the levels
are nested: what a lower level changed, a higher one changes too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from bench.config import BenchError, Run, generator, nearest
from bench.data import Dataset, as_float, load
from bench.download import is_on_disk

Corruption = Callable[[Tensor, float | Tensor, torch.Generator], Tensor]

COPIES_AT_ONCE = 10_000


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


def pixels_of(others: Tensor) -> Corruption:
    """Each pixel is taken from another image, paired by place, with probability `level`.

    others `(N, H, W)`, N at least the number of images to be corrupted.
    """

    def other_images(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
        return torch.where(_chosen(x, level, generator), others[: len(x)], x)

    return other_images


def _chosen(x: Tensor, level: float | Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(x.shape, generator=generator, device=x.device) < level


CORRUPTIONS: dict[str, Corruption] = {
    "bit_flips": bit_flips,
    "salt": salt,
    "pixel_erasure": pixel_erasure,
    "row_occlusion": row_occlusion,
    "contrast": contrast,
}
LEVELS: dict[str, tuple[float, ...]] = {
    "bit_flips": (0.02, 0.05, 0.1, 0.2, 0.4),
    "salt": (0.02, 0.05, 0.1, 0.2, 0.4),
    "pixel_erasure": (0.1, 0.25, 0.5, 0.75, 0.95),
    "row_occlusion": (0.15, 0.3, 0.5, 0.7, 0.9),
    "contrast": (0.2, 0.4, 0.6, 0.8, 0.95),
    "other_images": (0.1, 0.25, 0.5, 0.75, 1.0),
}
"""Of each corruption, ascending."""


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
        corrupted = CORRUPTIONS[name](x, share * LEVELS[name][-1], draws)
        copies = torch.where(which == place, corrupted, copies)
    return (copies * 255).round().to(torch.uint8).flatten(1)
