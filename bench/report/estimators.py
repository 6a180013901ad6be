"""What the reports of noise share: estimators' looks, and numbers that carry a standard error."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from bench.inference.gradients import ESTIMATORS
from bench.report.claims import claims
from bench.report.figure import curves, panels
from bench.report.style import title, words
from bench.report.table import Cell, Column, Table, escaped
from bench.statistics import Estimate, from_error

HEADINGS = {"stage": "weights", "kl": "KL", "sampling": "samples", "K": Column("K", 0)}
DASHES = {"solid": [1, 0], "dashed": [6, 3], "dotted": [2, 2]}

Printed = Mapping[str, Mapping[object, object]]
"""Column of rows → its values in their order, each as it is printed."""


def labels(names: Iterable[str]) -> dict[str, str]:
    """Estimators as they are printed: in the order they are written, then those no longer there."""
    present = set(names)
    known = {name: e.label for name, e in ESTIMATORS.items() if name in present}
    return known | {name: words(name) for name in sorted(present - set(known))}


def citations(names: Iterable[str]) -> str:
    """Where the estimators come from, a line each."""
    known = [ESTIMATORS[name] for name in names if name in ESTIMATORS]
    return "\n".join(["Estimators:", "", *(f"- *{e.label}*: {escaped(e.citation)}" for e in known)])


def looks(printed: Mapping[str, str]) -> tuple[alt.Color, alt.StrokeDash]:
    """Colour and line of estimators by what a chart's column `estimator` says, in one legend."""
    known, domain = [ESTIMATORS.get(name) for name in printed], list(printed.values())
    legend = alt.Legend(title=None, symbolType="stroke", symbolSize=300)
    colours = [e.colour if e else "#000000" for e in known]
    dashes = [DASHES[e.line if e else "solid"] for e in known]
    options = {"sort": domain, "legend": legend}
    return (
        alt.Color("estimator:N", scale=alt.Scale(domain=domain, range=colours), **options),
        alt.StrokeDash("estimator:N", scale=alt.Scale(domain=domain, range=dashes), **options),
    )


def panels_by_estimator(
    frame: pd.DataFrame, x: alt.X, y: str, printed: Printed, by: str
) -> alt.FacetChart:
    """A line an estimator on logarithmic axes, a panel each value of `by`; `y` is the title."""
    colours, dash = looks(printed["estimator"])
    chart = curves(frame, x, ("value", y), colours, log="y", dash=dash, width=270, height=250)
    return panels(chart, by, [*printed[by].values()])


def amount_axis(column: str, name: str, amounts: Iterable[float]) -> alt.X:
    """A logarithmic axis whose ticks are the amounts (S, K, L) that were measured."""
    ticks = sorted(int(amount) for amount in set(amounts))
    scale = alt.Scale(type="log", nice=False, padding=14)
    return alt.X(f"{column}:Q", title=name, scale=scale, axis=alt.Axis(values=ticks, format="d"))


# --- numbers with a standard error -------------------------------------------------------------


def _keyed(rows: pd.DataFrame, columns: Iterable[str]) -> Iterator[tuple[tuple, object, Estimate]]:
    """Of each row the columns' values, itself and its number with its 95 % interval."""
    for row in rows.itertuples():
        n = 1 if pd.isna(row.n) else int(row.n)
        key = tuple(getattr(row, column) for column in columns)
        yield key, row, from_error(row.value, row.standard_error, n)


def estimates(rows: pd.DataFrame, *columns: str) -> dict[tuple, Estimate]:
    """The columns' values → the finite number of that row with its 95 % interval."""
    return {key: estimate for key, _, estimate in _keyed(rows, columns) if estimate}


def _cells(rows: pd.DataFrame, columns: Iterable[str]) -> dict[tuple, Cell]:
    return {
        key: replace(
            Cell.of(estimate),
            reason="" if pd.isna(row.reason) else row.reason,
            text="†" if not pd.isna(row.capped) and row.capped else "",
        )
        for key, row, estimate in _keyed(rows, columns)
    }


def table(
    name: str,
    caption: str,
    printed: Printed,
    by: Sequence[str],
    entries: Mapping[Column, Mapping[tuple, object] | pd.DataFrame],
    within: int = 0,
) -> Table:
    """A line each combination of the settings `by` that has entries: rows, or setting → entry.

    The best number of a column is sought within lines that share the first `within` settings.
    """
    columns = [
        _cells(entry, by) if isinstance(entry, pd.DataFrame) else entry
        for entry in entries.values()
    ]
    every = itertools.product(*(printed[column] for column in by))
    keys = [key for key in every if any(key in column for column in columns)]
    names = [[printed[column][v] for column, v in zip(by, key)] for key in keys]
    lines = [[*own, *(column.get(key) for column in columns)] for own, key in zip(names, keys)]
    return Table(
        name,
        [*(HEADINGS.get(column, column) for column in by), *entries],
        lines,
        caption,
        [tuple(own[:within]) for own in names],
        [own[0] for own in names] if by[0] == "variant" else (),
    )


def for_chart(rows: pd.DataFrame, printed: Printed, *columns: str, times: str = "") -> pd.DataFrame:
    """Positive values for a logarithmic axis: settings as printed, other columns as they are.

    `value`, `low` and `high` have four digits and may be multiplied by a column, `times`.
    """
    rows = rows[np.isfinite(rows.value) & (rows.value > 0)]
    factor = rows[times].astype(float) if times else 1.0
    half = np.array([estimate.half_width for _, _, estimate in _keyed(rows, ())])
    # a logarithmic axis has no zero
    low = np.fmax(rows.value - half, 0.1 * rows.value).where(np.isfinite(half))
    found = {"value": rows.value, "low": low, "high": rows.value + half}
    numbers = {name: [float(f"{v:.4g}") for v in found[name] * factor] for name in found}
    settings = {column: rows[column].map(dict(names)) for column, names in printed.items()}
    return rows[list(columns)].assign(**settings, **numbers)


def verdicts(ratios: Mapping[tuple, Estimate], below: bool = True) -> dict[tuple, str]:
    """Of each ratio, together: `beats` where it is below 1 (or above), `trails`, `undecided`."""
    differences = {key: replace(ratio, mean=ratio.mean - 1) for key, ratio in ratios.items()}
    return {c.subject: c.verdict for c in claims(differences, higher_is_better=not below)}


def slope_cell(slope: Estimate) -> Cell:
    """A fitted exponent: marked where two points give no interval, a dash for fewer."""
    lacks = bool(slope) and math.isnan(slope.half_width)
    return Cell(slope.mean, slope.half_width, text="‡" if lacks else "")


def absences(rows: pd.DataFrame, by: str = "variant") -> str:
    """Why numbers are missing or not finite, each reason once, with whom it concerns."""
    given = rows[rows.reason.notna()]
    spell = title if by == "variant" else lambda name: labels([name])[name]
    lines = [
        f"- {escaped(reason)} ({', '.join(map(spell, sorted(group[by].unique())))})"
        for reason, group in given.groupby("reason")
    ]
    return "\n".join(["Numbers that are n/a or not finite:", "", *lines]) if lines else ""
