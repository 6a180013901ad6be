"""Names, colours and order of variants and estimators: the same in every table and figure."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vaes import discover

if TYPE_CHECKING:
    import pandas as pd

# Okabe & Ito's palette: distinguishable with every common colour-vision deficiency
PALETTE = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#8C6D1F")
STAGES = {
    "initialisation": "initialisation",
    "epoch_1": "epoch 1",
    "best": "best weights",
    "trained": "after a short training",
}


def order() -> list[str]:
    """Variants from simple to flexible."""
    return list(discover().variants)


def ordered(variants: Iterable[str]) -> list[str]:
    """These variants from simple to flexible, then any whose file is no longer there."""
    present = set(variants)
    known = [name for name in order() if name in present]
    return known + sorted(present - set(known))


def in_order(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Its lines sorted by these columns, variants from simple to flexible."""
    place = {name: i for i, name in enumerate(ordered(frame.variant.dropna()))}
    by = {"key": lambda c: c.map(place) if c.name == "variant" else c, "kind": "stable"}
    return frame.sort_values([*columns], ignore_index=True, **by)


def colour(variant: str) -> str:
    """The variant's colour."""
    known = order()
    place = known.index(variant) if variant in known else len(known)
    return PALETTE[place % len(PALETTE)]


def title(variant: str) -> str:
    """`input_dependent` → `input-dependent`; for axes and tables."""
    return variant.replace("_", "-")


def meaning(variant: str) -> str:
    """What a variant is, the first line of its file; "" of one whose file is no longer there."""
    found = discover().variants.get(variant)
    text = found and sys.modules[found.__module__].__doc__
    return text.strip().partition("\n")[0] if text else ""


def words(name: str) -> str:
    """`bit_flips` → `bit flips`."""
    return name.replace("_", " ")
