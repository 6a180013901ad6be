"""Paired differences to an autoencoder's, and how they are said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from bench.report.claims import Claim, listing, sentence
from bench.report.style import ordered, title
from bench.report.table import spoken
from bench.statistics import Estimate, paired_difference


def against(plain: str, measured: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str], Estimate]:
    """(quantity, variant) → the variant's paired difference to `plain`."""
    return {
        (quantity, variant): paired_difference(rows, variant, plain)
        for quantity, rows in measured.items()
        for variant in ordered(rows.variant)
        if variant != plain
    }


def claimed(found: list[Claim], less: str, more: str) -> str:
    """Claims grouped by what they say, `less` or `more` than the autoencoder's."""
    return sentence(found, f"{less} for", f"{more} for", "undecided for", digits=1, sign=True)


def of_quantity(found: list[Claim], quantity: str) -> list[Claim]:
    """The claims on a quantity, `(quantity, variant)` no more: the variant as it is printed."""
    mine = [claim for claim in found if claim.subject[0] == quantity]
    return [replace(claim, subject=title(claim.subject[1])) for claim in mine]


def spoken_of(found: Mapping[str, Estimate]) -> str:
    """Every variant's estimate, from simple to flexible."""
    return listing([f"`{title(v)}` {spoken(found[v], 1)}" for v in ordered(found)])
