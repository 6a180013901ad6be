"""How the gradient's noise grows with the number of latents."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bench.report.common import (
    Results,
    Section,
    decimal,
    markdown,
    new_figure,
    number,
    save,
    write_table,
)
from bench.report.estimators import known, ordered, slope, spoken, style

PLACE = 34
MEASUREMENT = "gradient_scaling"
STAGES = {"initialisation": "initialisation", "trained": "after a short training"}
COLUMNS = ["variant", "seed", "L", "stage", "estimator", "S", "metric", "value", "standard_error",
           "n", "unit", "reference", "capped", "cause", "reason"]  # fmt: skip

NOTES = (
    "Total variance of one example's gradient with two noise samples, input-dependent variant, "
    "averaged over test images; intervals are 95 %, over the noise of q. *Exponent* is the "
    "least-squares slope of log variance against log L. † sampling reached its cap before a "
    "relative standard error of 5 %."
)


def sections(results: Results) -> list[Section]:
    """The section on latent dimension; [] where it was not measured."""
    rows = known(results, MEASUREMENT, COLUMNS)
    if rows.empty:
        return []
    totals = rows[rows.metric == "total_variance"]
    exponents = _exponents(totals)
    takeaway, table = _takeaway(totals, exponents), _table(totals, exponents)
    write_table(results, MEASUREMENT, rows[COLUMNS], takeaway, f"{table}\n\n{NOTES}")
    figure = _figure(results, totals, exponents)
    files = [f"{MEASUREMENT}.md", f"{MEASUREMENT}.csv"]
    return [Section("Gradient noise and latent dimension", takeaway, table, [figure], files, NOTES)]


def _exponents(totals: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(stage, estimator) → slope of log variance against log L."""
    return {
        key: slope(group.L, group.value) for key, group in totals.groupby(["stage", "estimator"])
    }


def _names(totals: pd.DataFrame) -> list[str]:
    return ordered(totals.estimator.unique())


def _table(totals: pd.DataFrame, exponents: dict) -> str:
    dims = sorted(int(d) for d in totals.L.unique())
    lines = []
    for stage, label in STAGES.items():
        for name in _names(totals):
            here = totals[(totals.stage == stage) & (totals.estimator == name)].set_index("L")
            cells = [_cell(here.loc[d]) if d in here.index else "–" for d in dims]
            exponent = exponents.get((stage, name), math.nan)
            exponent = decimal(exponent) if math.isfinite(exponent) else "–"
            lines.append([f"{label}: {spoken(name)}", *cells, exponent])
    header = ["total variance, nats², S = 2", *(f"L = {d}" for d in dims), "exponent"]
    return markdown(header, lines)


def _cell(row: pd.Series) -> str:
    if row.n == 0:
        return "n/a"
    return number(row.value, row.half_width) + ("†" if row.capped == 1 else "")


def _takeaway(totals: pd.DataFrame, exponents: dict) -> str:
    """Exponents of the flattest and steepest growth, and the gap at either end."""
    parts = []
    for stage, label in STAGES.items():
        known_ = {n: exponents.get((stage, n), math.nan) for n in _names(totals)}
        fine = {n: e for n, e in known_.items() if math.isfinite(e)}
        if not fine:
            continue
        low, high = min(fine, key=fine.get), max(fine, key=fine.get)
        parts.append(
            f"{label}, total variance grows as L to the power {fine[low]:.2g} ({spoken(low)}) to "
            f"{fine[high]:.2g} ({spoken(high)})"
        )
    gap = _gap(totals)
    text = "; ".join(parts) + (f"; {gap}" if gap else "")
    return (f"{text[0].upper()}{text[1:]}." if text else "No finite variance.").replace(" -", " −")


def _gap(totals: pd.DataFrame) -> str:
    """How many times noisier the raw score function is than pathwise, at the ends, trained."""
    trained = totals[(totals.stage == "trained") & np.isfinite(totals.value)]
    wide = trained.pivot_table(index="L", columns="estimator", values="value")
    if not {"score_function", "pathwise"} <= set(wide):
        return ""
    ratio = (wide.score_function / wide.pathwise).dropna()
    if len(ratio) < 2:
        return ""
    return (
        f"after it the raw score function is {number(ratio.iloc[0])} times noisier than pathwise "
        f"at L = {int(ratio.index[0])} and {number(ratio.iloc[-1])} times at "
        f"L = {int(ratio.index[-1])}"
    )


def _figure(results: Results, totals: pd.DataFrame, exponents: dict) -> tuple[str, str]:
    figure, panels = new_figure(13, 5.5, ncols=2, sharey=True)
    dims = sorted(int(d) for d in totals.L.unique())
    for axes, (stage, label) in zip(panels, STAGES.items()):
        for name in _names(totals):
            here = totals[(totals.stage == stage) & (totals.estimator == name)].sort_values("L")
            here = here[np.isfinite(here.value)]
            if len(here):
                axes.errorbar(here.L, here.value, here.half_width, capsize=2, **style(name))
        axes.set(xscale="log", yscale="log", xlabel="latent dimension L", title=label)
        axes.set_xticks(dims, [str(d) for d in dims])
        axes.minorticks_off()
    panels[0].set_ylabel("total variance at S = 2, nats²")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=11)
    return (
        save(results, figure, "gradient_scaling"),
        "Total variance of one example's gradient against the number of latents, every estimator "
        "with two samples. A straight line is a power of L.",
    )
