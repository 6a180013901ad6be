"""What the reports of noise share: estimators' looks, and numbers that carry a standard error."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd
from scipy import stats

from bench.inference.gradients import BOUNDS, ESTIMATORS, of_bound
from bench.report.figure import curves
from bench.report.rows import SETTINGS
from bench.report.style import title, words
from bench.report.table import Cell, Column, Table, escaped
from bench.statistics import CONFIDENCE, Estimate, from_error

HEADINGS = {
    "stage": "weights",
    "kl": "KL",
    "sampling": "samples",
    "S": Column("S", 0),
    "K": Column("K", 0),
}
DASHES = {"solid": [1, 0], "dashed": [6, 3], "dotted": [2, 2]}
NAMED = "circle square diamond triangle-up cross triangle-down triangle-left triangle-right"
MARKS = [
    *NAMED.split(),
    "M-.35,-1H.35V1H-.35Z",
    "M-1,-.35H1V.35H-1Z",
    "M-.7,-1L0,-.3L.7,-1L1,-.7L.3,0L1,.7L.7,1L0,.3L-.7,1L-1,.7L-.3,0L-1,-.7Z",
]
"""Vega's own, then a bar, a beam and a saltire."""
SHAPES = {name: shape for bound in BOUNDS for name, shape in zip(of_bound(bound), MARKS)}
DETAILS = r", (not|unknown for) \w+|(?<=is implemented) for p type .*| with S = \d+(?=:)"
"""What a reason says of one S or class in passing."""
IN_PLAIN_WORDS = {"No KL(p || q) is implemented": "KL(q ‖ p) has no closed form"}
"""PyTorch's reason, whose p is q."""

Printed = Mapping[str, Mapping[object, object]]
"""Column of rows → its values in their order, each as it is printed."""


def follows_paths(name: str) -> bool:
    """Whether it differentiates through the samples, as those do that figures draw solid."""
    return name in ESTIMATORS and ESTIMATORS[name].line == "solid"


def labels(names: Iterable[str]) -> dict[str, str]:
    """Estimators as they are printed: in the order they are written, then those no longer there."""
    present = set(names)
    known = {name: e.label for name, e in ESTIMATORS.items() if name in present}
    return known | {name: words(name) for name in sorted(present - set(known))}


def citations(names: Iterable[str]) -> str:
    """Where the estimators come from, a line each."""
    known = [ESTIMATORS[name] for name in names if name in ESTIMATORS]
    return "\n".join(["Estimators:", "", *(f"- *{e.label}*: {escaped(e.citation)}" for e in known)])


def lines(
    frame: pd.DataFrame, x: tuple | alt.X, y: alt.Y, printed: Mapping[str, str], **options
) -> alt.LayerChart:
    """A line an estimator, with its colour, dashes and mark, by the column `estimator`; the legend
    lists those that have one."""
    drawn = {*frame.estimator}
    printed = {name: text for name, text in printed.items() if text in drawn}
    known, domain = [ESTIMATORS.get(name) for name in printed], list(printed.values())
    # the mark's outline would be dashed
    legend = alt.Legend(title=None, symbolSize=120, symbolStrokeWidth=0)
    colour, dash, shape = (
        kind("estimator:N", scale=alt.Scale(domain=domain, range=r), sort=domain, legend=legend)
        for kind, r in (
            (alt.Color, [e.colour if e else "#000000" for e in known]),
            (alt.StrokeDash, [DASHES[e.line if e else "solid"] for e in known]),
            (alt.Shape, [SHAPES.get(name, "circle") for name in printed]),
        )
    )
    chart = curves(frame, x, y, colour, dash=dash, **options)
    # of the layers only the points have one
    chart.layer[1] = chart.layer[1].encode(shape=shape)
    return chart


def amount_axis(column: str, name: str, amounts: Iterable[float]) -> alt.X:
    """A logarithmic axis whose ticks are the amounts (S, K, L) that were measured."""
    scale = alt.Scale(type="log", nice=False, padding=14)
    return alt.X(f"{column}:Q", title=name, scale=scale, axis=axis_at(sorted(set(amounts))))


def tens(also: Sequence[float] = ()) -> alt.Axis:
    """An axis with a tick at every power of ten, and `also` elsewhere."""
    far = "datum.value < 1e-4 || datum.value > 1e4"
    text = f"{far} ? '10^' + round(log(datum.value) / LN10) : format(datum.value, ',~r')"
    powers = (10.0**power for power in range(-12, 13))
    return axis_at(sorted([*powers, *also]), labelExpr=text)


def axis_at(values: Iterable[float], **options) -> alt.Axis:
    """An axis with a labelled tick at each of the values."""
    values = [float(value) for value in values]
    return alt.Axis(values=values, format=",~r", labelOverlap=False, tickCount=99, **options)


def ranking(frame: pd.DataFrame, column: str = "value") -> str:
    """Estimators from the lowest median of a column to the highest, in a sentence."""
    medians = frame.groupby("estimator")[column].median().sort_values()
    return "; ".join(f"{name} {short(median)}" for name, median in medians.items())


def short(value: float) -> str:
    """Two digits: `0.15`, `8,900`."""
    return f"{float(f'{value:.2g}'):,.15g}"


# --- numbers with a standard error -------------------------------------------------------------


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a metric and setting: the mean over the seeds that have a finite number of it.

    Its standard error and n are those of the wider interval of two: over the seeds, which holds
    all there is but is of few numbers, and over the images and noise within each seed. Those of the
    narrower one are in `beside_error` and `beside_n`.
    """
    by = ["variant", "metric", *(column for column in SETTINGS if column != "capped")]
    rows = rows.assign(key=rows.groupby(by, dropna=False, sort=False).ngroup())
    fine = np.isfinite(rows.value)
    whole = rows.assign(lacks=~fine).sort_values(["key", "lacks"], kind="stable")
    lines = whole.drop_duplicates("key").set_index("key").drop(columns="lacks")
    groups = rows[fine].assign(squared=rows.standard_error**2).groupby("key")
    several = groups.agg(
        value=("value", "mean"),
        between=("value", "sem"),
        seeds=("value", "size"),
        squared=("squared", lambda errors: errors.sum(skipna=False)),
        n=("n", "sum"),
    )
    several = several[several.seeds > 1]
    within = np.sqrt(several.squared) / several.seeds
    outer, inner = (
        stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(n.astype(float) - 1, 1))
        for n in (several.seeds, several.n)
    )
    narrower = outer * several.between < inner * within
    several["standard_error"] = within.where(narrower, several.between)
    several["beside_error"] = several.between.where(narrower, within)
    several["beside_n"] = several.seeds.where(narrower, several.n)
    several["n"] = several.n.where(narrower, several.seeds)
    lines.update(several[["value", "standard_error", "n"]])
    lines = lines.join(several[["beside_error", "beside_n"]])
    every = rows.groupby("key")
    lines["capped"] = rows.capped.fillna(False).astype(bool).groupby(rows.key).any()
    lines["reason"] = every.reason.first()
    dtypes = rows.drop(columns="key").dtypes.to_dict()
    return lines.reset_index(drop=True)[[*dtypes, "beside_error", "beside_n"]].astype(dtypes)


def _keyed(rows: pd.DataFrame, columns: Iterable[str]) -> Iterator[tuple[tuple, object, Estimate]]:
    """Of each row the columns' values, itself and its number with its 95 % interval."""
    for row in rows.itertuples():
        n = 1 if pd.isna(row.n) else int(row.n)
        key = tuple(getattr(row, column) for column in columns)
        estimate = from_error(row.value, row.standard_error, n)
        if pd.notna(getattr(row, "beside_error", None)):
            other = from_error(row.value, row.beside_error, int(row.beside_n))
            estimate = replace(estimate, beside=(other.half_width, other.n))
        yield key, row, estimate


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


def absences(rows: pd.DataFrame, *by: str) -> str:
    """Why numbers are missing or not finite, each reason once, with whom it concerns.

    `by` are columns of estimators and variants, the latter where none is named.
    """
    rows = rows[rows.reason.notna()]
    # an estimator's own name stands beside the reason
    rows = rows.assign(
        reason=[
            re.sub(DETAILS, "", reason).removeprefix(str(name)).lstrip(": ")
            for reason, name in zip(rows.reason, rows.estimator)
        ],
        estimator=rows.estimator.map(labels(rows.estimator.dropna())),
        variant=rows.variant.map(title),
    )
    rows = rows.replace({"reason": IN_PLAIN_WORDS})
    text = ""
    for reason, group in rows.groupby("reason"):
        whom = (" · ".join(sorted(group[column].unique())) for column in by or ["variant"])
        text += f"\n- {escaped(reason)} ({'; '.join(whom)})"
    return f"Numbers that are n/a or not finite:\n{text}" if text else ""
