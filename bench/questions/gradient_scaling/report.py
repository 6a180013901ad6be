"""How the gradient's noise grows with the number of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.report import estimators
from bench.report.claims import sentence_case
from bench.report.estimators import Printed, for_chart, slope_cell, table, tens
from bench.report.figure import Figure, panels
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, paragraphs, prose
from bench.report.style import STAGES, title
from bench.report.table import Column, number, spoken
from bench.statistics import Estimate, log_log_slope


def sections(results: Results) -> list[Section]:
    """The section on latent dimension; [] where it was not measured."""
    totals = results.of("gradient_scaling", "total_variance")
    if totals.empty:
        return []
    printed: Printed = {
        "stage": STAGES,
        "estimator": estimators.labels(totals.estimator.unique()),
    }
    exponents = {
        key: log_log_slope(group.L.astype(float), group.value)
        for key, group in totals.groupby([*printed])
    }
    entries = {
        Column(f"L = {dim}, nats²", None): select(totals, L=int(dim))
        for dim in sorted(totals.L.unique())
    }
    entries[Column("exponent")] = {key: slope_cell(slope) for key, slope in exponents.items()}
    caption = "Total variance of one example's gradient at S = 2 by number of latents L."
    tables = [table("gradient_scaling", caption, printed, [*printed], entries)]
    notes = prose(__file__, reference=title(REFERENCE)), estimators.absences(totals, "estimator")
    heading, takeaway = "Gradient noise and latent dimension", _takeaway(totals, exponents, printed)
    figures = [_figure(totals, printed)]
    return [Section(heading, takeaway, "", tables, figures, paragraphs(*notes))]


def _takeaway(totals: pd.DataFrame, exponents: Mapping[tuple, Estimate], printed: Printed) -> str:
    """Exponents of the flattest and steepest growth, and the gap at either end."""
    parts = []
    for stage, label in printed["stage"].items():
        fine = {name: e for (where, name), e in exponents.items() if where == stage and e}
        if fine:
            order = sorted(fine, key=lambda name: fine[name].mean)
            low, high = (
                f"{spoken(fine[name])} (`{printed['estimator'][name]}`"
                f"{', two points and no interval' if math.isnan(fine[name].half_width) else ''})"
                for name in (order[0], order[-1])
            )
            when = label if label.startswith("after") else f"at {label}"
            parts.append(f"{when}, total variance at S = 2 grows as L to the power {low} to {high}")
    if not parts:
        return "No variance is finite at two numbers of latents."
    return sentence_case("; ".join([*parts, *_gap(totals)]))


def _gap(totals: pd.DataFrame) -> list[str]:
    """How many times noisier the raw score function is than pathwise, at the ends, trained."""
    trained = select(totals, stage="trained", estimator=["score_function", "pathwise"])
    wide = trained.pivot_table(index="L", columns="estimator", values="value").dropna()
    if len(wide) < 2 or len(wide.columns) < 2:
        return []
    ratio = wide.score_function / wide.pathwise
    (first, low), *_, (last, high) = ratio.map(number).items()
    return [
        f"after it the raw score function is {low} times noisier than pathwise at L = {first} "
        f"and {high} times at L = {last}"
    ]


def _figure(totals: pd.DataFrame, printed: Printed) -> Figure | None:
    frame = for_chart(totals, printed, "L")
    if frame.empty:
        return None
    across, up = estimators.amount_axis("L", "latent dimension L", frame.L), "total variance, nats²"
    up = alt.Y("value:Q", title=up, scale=alt.Scale(type="log"), axis=tens())
    chart = estimators.lines(frame, across, up, printed["estimator"], width=330, height=300)
    last = select(frame, L=frame.L.max())
    seen = (
        f"{stage}, {estimators.ranking(rows)}" for stage, rows in last.groupby("stage", sort=False)
    )
    chart = panels(chart, "stage", [*printed["stage"].values()])
    values = {"largest": frame.L.max(), "seen": ". ".join(seen)}
    return captioned(__file__, "gradient_scaling", chart, ("estimator", "stage"), **values)
