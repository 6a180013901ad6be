"""Sobol points under digital shifts (L'Ecuyer & Lemieux 2002), as standard normal numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from vaes._shapes import Float

MOST_LATENTS = SobolEngine.MAXDIM
"""Dimensions for which there are direction numbers."""
CELLS = 2**SobolEngine.MAXBIT
"""Points sit in the middle of cells of width 1 / CELLS, so that none is mapped to infinity."""


def cells_of(points: Float[Tensor, "..."]) -> Tensor:
    """The cells, integers from 0 to CELLS − 1, of points as the engine draws them."""
    # the engine rounds its first point to single precision, possibly up to 1
    return (points * CELLS).long() & (CELLS - 1)


def shifted_normals(cells: Tensor, shift: Tensor) -> Float[Tensor, "..."]:
    """Φ⁻¹ of cells moved by a digital shift, bit by bit; both broadcast, float64.

    Under a uniform shift each point is uniform, and all lie as evenly as before.
    """
    return torch.special.ndtri(((cells ^ shift).double() + 0.5) / CELLS)


def shift_from(normal: Float[Tensor, "..."]) -> Tensor:
    """A uniform digital shift for each standard normal number."""
    uniform = torch.special.ndtr(normal.double())
    return (uniform * CELLS).long().clamp(max=CELLS - 1)


@cache
def first_cells(count: int, dimensions: int, device: torch.device) -> Tensor:
    """The cells `(count, dimensions)` of the first points, always of the same linear scramble."""

    def draw() -> Tensor:
        engine = SobolEngine(dimensions, scramble=True, seed=0)
        return cells_of(engine.draw(count, dtype=torch.float64)).to(device)

    # the caller may be traced or transformed, which concerns its own thread alone
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(draw).result()
