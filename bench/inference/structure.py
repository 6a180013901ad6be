"""What a function traced through an object depends on, beside the values of its arguments."""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


class Structure(NamedTuple):
    """Equal where `content` is.

    Attributes:
        content: the object without the values of its arguments.
        kept: classes and functions that the content names by their identity, which lasts as long
            as they do.
    """

    content: bytes
    kept: list[object]


def structure(whole: object, arguments: Sequence[Tensor]) -> Structure | None:
    """Whatever the object holds, but for the values of the tensors `arguments`.

    Two objects of equal content do the same to arguments of other values, so that a function
    traced through one serves the other. None where something in it cannot be told apart.

    >>> import torch
    >>> a, b, c = (torch.nn.Linear(2, n) for n in (1, 1, 3))
    >>> contents = [structure(m, list(m.parameters())).content for m in (a, b, c)]
    >>> contents[0] == contents[1], contents[0] == contents[2]
    (True, False)
    """
    file, kept = io.BytesIO(), []
    try:
        _Writer(file, arguments, kept).dump(whole)
    except Exception:  # whatever a stranger's object raises when it is pickled
        return None
    return Structure(file.getvalue(), kept)


class _Writer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, arguments: Sequence[Tensor], kept: list[object]) -> None:
        super().__init__(file)
        self.places = {id(tensor): place for place, tensor in enumerate(arguments)}
        self.kept = kept

    def persistent_id(self, value: object) -> object:
        if isinstance(value, _BY_IDENTITY):
            self.kept.append(value)
            return id(value)
        if isinstance(value, Tensor):
            place = self.places.get(id(value))
            what = value.detach().numpy().tobytes() if place is None else place
            return what, str(value.dtype), str(value.device), tuple(value.shape)
        return None
