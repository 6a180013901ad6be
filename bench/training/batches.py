"""The batches of a run: every epoch one permutation of the images, binarized afresh where asked."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.config import Run
from bench.data.binarization import as_float, draw_images, thresholds
from bench.randomness import generator


def prepared(images: Tensor, binarization: str) -> Tensor:
    """uint8 training images `(N, D)` as `to_batch` takes them: what all epochs have in common."""
    return thresholds(images) if binarization == "stochastic" else images


def to_batch(images: Tensor, index: Tensor, binarization: str, noise: torch.Generator) -> Tensor:
    """`prepared` images `(N, D)` at `index` `(B,)` as float x `(B, D)`.

    Binarized afresh where that is stochastic.
    """
    if binarization == "stochastic":
        return draw_images(images, index, noise)
    return as_float(images.index_select(0, index))


class Batches:
    """Endless batches x `(B, D)` of images `(N, D)`, from generators of the run's own."""

    def __init__(self, run: Run, images: Tensor, binarization: str) -> None:
        self.size, self.binarization = run.batch_size, binarization
        self.images = prepared(images, binarization)
        self.order = generator(images.device, run.dataset, run.seed, "order")
        self.pixels = generator(images.device, run.dataset, run.seed, "binarization")
        self.left = torch.empty(0, dtype=torch.long, device=images.device)

    def __next__(self) -> Tensor:
        if not len(self.left):
            n, device = len(self.images), self.images.device
            self.left = torch.randperm(n, generator=self.order, device=device)
        index, self.left = self.left[: self.size], self.left[self.size :]
        return to_batch(self.images, index, self.binarization, self.pixels)

    def state(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the next batches depend on."""
        return self.order.get_state(), self.pixels.get_state(), self.left

    def restore(self, state: tuple[Tensor, Tensor, Tensor]) -> None:
        """Go back to where `state` was taken."""
        order, pixels, self.left = state
        self.order.set_state(order)
        self.pixels.set_state(pixels)
