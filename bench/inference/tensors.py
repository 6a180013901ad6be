"""The tensors an object is made of, found and exchanged for others.

Meant for posteriors: any `torch.distributions` object will do, whatever its transforms carry. A
module serves as well.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Iterable, Iterator
from typing import TypeVar

from torch import Tensor
from torch.distributions import Distribution

T = TypeVar("T")
_ATOMS = (type, types.ModuleType, types.FunctionType, types.MethodType)


def tensors(whole: object) -> dict[str, Tensor]:
    """Every tensor the object holds, once, by the path to it, e.g. `base_dist.loc`."""
    return dict(_walk(whole, (), set()))


def _walk(value: object, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if id(value) in seen or isinstance(value, _ATOMS):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield ".".join(path), value
        return
    for name, inner in _contents(value):
        yield from _walk(inner, (*path, name), seen)


def _contents(value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, dict):
        return [(str(key), inner) for key, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return [(str(place), inner) for place, inner in enumerate(value)]
    return list(getattr(value, "__dict__", {}).items())


def substitute(whole: T, old: Iterable[Tensor], new: Iterable[Tensor]) -> T:
    """A copy of the object in which every tensor of `old` is its namesake of `new`.

    The other tensors are shared with the original. Its own methods run unchanged: a copy differs
    in nothing but the tensors.
    """
    memo = {id(tensor): tensor for tensor in tensors(whole).values()}
    memo |= {id(before): after for before, after in zip(old, new, strict=True)}
    return copy.deepcopy(whole, memo)


def detached(posterior: Distribution) -> Distribution:
    """A copy of the posterior whose parameters take no gradient."""
    held = list(tensors(posterior).values())
    return substitute(posterior, held, [tensor.detach() for tensor in held])
