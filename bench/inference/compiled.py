"""A function of a model and tensors as one native function for tensors of given shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from bench.inference.native import NotCompiled, native
from bench.inference.tensors import substitute, tensors

T = TypeVar("T")


def where_it_pays(
    function: T,
    compiled: Callable[[], T],
    what: str,
    model: nn.Module,
    x: Tensor,
    passes: int,
    worthwhile: float,
) -> tuple[T, str]:
    """The function, or `compiled()`; and why not that, where it would have paid.

    It pays from `worthwhile` weights × decoder passes to come on, in float32 on a CPU.
    """
    weights = sum(w.numel() for w in model.parameters())
    here = x.device.type == "cpu" and x.dtype == torch.float32
    if passes * weights < worthwhile or not here:
        return function, ""
    try:
        return compiled(), ""
    except NotCompiled as reason:
        return function, f"{what} was not compiled: {reason}"


class Compiled:
    """`function(model, *others)`, which returns tensors, without a gradient.

    The others may be distributions; every tensor in them and in the model is an argument of the
    native function, so that it serves any that differ in nothing else.

    Raises NotCompiled with the reason where it cannot be had.
    """

    @torch.no_grad()
    def __init__(self, function: Callable[..., Sequence[Tensor]], example: tuple) -> None:
        held = list(tensors(example).values())
        self._shapes = [tensor.shape for tensor in held]
        self._model: tuple[list[int], list[Tensor]] = [], []

        def of_tensors(*given: Tensor) -> list[Tensor]:
            return list(function(*substitute(example, held, given)))

        self._native = native(of_tensors, held)

    @torch.no_grad()
    def __call__(self, model: nn.Module, *others: object) -> list[Tensor]:
        given = self._of_model(model)
        known = {id(tensor) for tensor in given}
        rest = [tensor for tensor in tensors(others).values() if id(tensor) not in known]
        every = [tensor.contiguous() for tensor in (*given, *rest)]
        if [tensor.shape for tensor in every] != self._shapes:
            raise ValueError("a compiled function was given tensors of other shapes than it is for")
        return self._native(*every)

    def _of_model(self, model: nn.Module) -> list[Tensor]:
        """The model's tensors; looking through it takes long, so it is done once."""
        present = [id(tensor) for tensor in chain(model.parameters(), model.buffers())]
        if present != self._model[0]:
            self._model = present, list(tensors(model).values())
        return self._model[1]
