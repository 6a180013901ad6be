"""What the sections on gradient estimators share: their order, names and looks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from bench.gradients import estimators
from bench.report.common import PALETTE, Results

MARKERS = "osD^vPX*<>"
VARIANT = "input_dependent"


def known(results: Results, measurement: str, columns: Iterable[str]) -> pd.DataFrame:
    """A measurement's rows with these settings as columns, and 95 % half-widths."""
    rows = results.measured(measurement)
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *columns])))
    return rows.assign(half_width=1.96 * rows.standard_error)


def where(rows: pd.DataFrame, metric: str, **settings) -> pd.DataFrame:
    """The rows of a metric with these settings."""
    wanted = {"metric": metric, **settings}
    # arrays of objects compare faster than columns
    return rows[np.all([rows[column].to_numpy() == v for column, v in wanted.items()], axis=0)]


def one(rows: pd.DataFrame, metric: str, **settings) -> pd.Series | None:
    """The one row of a metric with these settings, or None."""
    found = where(rows, metric, **settings)
    return None if found.empty else found.iloc[0]


def ordered(names: Iterable[str]) -> list[str]:
    """Estimators in the order they are written, then any that are no longer there."""
    present = set(names)
    written = [name for name in estimators() if name in present]
    return written + sorted(present - set(written))


def spoken(name: str) -> str:
    """`score_function_analytic_kl` → `score function, analytic KL`."""
    text = name.replace("_analytic_kl", ", analytic KL").replace("_sampled_kl", ", sampled KL")
    text = text.replace("_baseline", ", baseline").replace("_antithetic", ", antithetic")
    text = "leave-one-out" if text == "rloo" else text.replace("measure_valued", "measure-valued")
    return text.replace("_", " ")


def style(name: str) -> dict:
    """Colour, marker and line of an estimator, the same in every figure."""
    place = ([*estimators(), name]).index(name)
    dashed = name.startswith(("score", "rloo"))
    return dict(
        color=PALETTE[place % len(PALETTE)], marker=MARKERS[place % len(MARKERS)], markersize=6,
        linestyle="--" if dashed else ":" if name == "measure_valued" else "-", label=spoken(name),
    )  # fmt: skip


def slope(x: pd.Series, y: pd.Series) -> float:
    """Least-squares slope of log y against log x; NaN for fewer than two points."""
    fine = np.isfinite(y) & (y > 0)
    if fine.sum() < 2:
        return float("nan")
    return float(stats.linregress(np.log(x[fine]), np.log(y[fine])).slope)
