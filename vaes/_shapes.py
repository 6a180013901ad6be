"""Shapes in signatures: `Float[Tensor, "B L"]`, by jaxtyping; without it, plain tensors."""

from __future__ import annotations

try:
    from jaxtyping import Float
except ImportError:

    class Float:
        """`Float[Tensor, "B L"]` is `Tensor`."""

        def __class_getitem__(cls, tensor_and_shape: tuple[type, str]) -> type:
            return tensor_and_shape[0]


__all__ = ["Float"]
