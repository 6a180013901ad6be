"""Probabilistic PCA: every posterior against the exact log p(x)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.report.claims import sentence_case
from bench.report.figure import Figure, variant_intervals
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, paragraphs, prose
from bench.report.style import title
from bench.report.table import Column, Table, decimal, spoken, spoken_each
from bench.statistics import Estimate, summary

TOLERANCE = 0.05
"""Nats within which theory is said to hold."""
COLUMNS = {
    "elbo": Column("ELBO", 3, best="max"),
    "exact_log_likelihood": Column("exact log p(x)", 3),
    "exact_gap": Column("gap", 3, best="min"),
    "elbo_difference": Column("difference", 3, sign=True),
    "noise": Column("s", 3),
}
THEORY = {
    ("learned_diagonal", "elbo_difference"): (
        f"learned-diagonal ties {title(REFERENCE)}",
        f"`learned-diagonal` minus `{title(REFERENCE)}` is {{}} nats",
    ),
    ("full_covariance", "exact_gap"): (
        "full-covariance reaches its exact log p(x)",
        "`full-covariance` stays {} nats below its exact log p(x)",
    ),
}
"""What is estimated → what theory says of it, and how the estimate is put in words."""
MODELS = {
    "maximum_likelihood": "the maximum-likelihood model of the same training data reaches {}",
    "generating_log_likelihood": "the model the data were drawn from {}",
}
Found = Mapping[tuple[str, str], Estimate]
"""(variant, metric) → mean over seeds."""


def sections(results: Results) -> list[Section]:
    """The section on exact likelihoods; [] where none was measured."""
    rows = results.of("exact_likelihood")
    found = summary(rows, ["variant", "metric"])
    gaps = _gaps(found)
    if not gaps:
        return []
    notes = prose(__file__, reference=title(REFERENCE), tolerance=TOLERANCE)
    caption = "ELBO and exact log p(x), nats per test point"
    return [
        Section(
            "Where log p(x) is known",
            *statements(found),
            [Table.of_variants("exact_likelihood", COLUMNS, found, caption)],
            [_figure(gaps)],
            paragraphs(_models(rows), notes),
        )
    ]


def _gaps(found: Found) -> dict[str, Estimate]:
    return {v: gap for (v, metric), gap in found.items() if metric == "exact_gap" and gap}


def statements(found: Found) -> tuple[str, str]:
    """Whether theory's two statements hold within the tolerance, intervals included; in short."""
    parts, short = [], []
    for key, (holds, measured) in THEORY.items():
        if estimate := found.get(key):
            width = 0 if math.isnan(estimate.half_width) else estimate.half_width
            within = abs(estimate.mean) + width <= TOLERANCE
            verdict = "as theory says" if within else f"which does not show that {holds}"
            size, yes = spoken(estimate, 3), f"within {TOLERANCE} nats: {'yes' if within else 'no'}"
            parts.append(f"{measured.format(size)}, {verdict} ({yes})")
            short.append(f"{holds}: {'yes' if within else 'not shown'} ({size} nats)")
    if not parts:
        gaps = _gaps(found)
        best = min(gaps, key=lambda variant: gaps[variant].mean)
        comes = f"comes closest to its exact log p(x): {spoken(gaps[best], 3)} nats"
        parts, short = [f"`{title(best)}` {comes}"], [f"{title(best)} {comes}"]
    return sentence_case("; ".join(parts)), "; ".join(short)


def _models(rows: pd.DataFrame) -> str:
    """What the best model and the true one reach."""
    said = [
        text.format(decimal(value, 3))
        for metric, text in MODELS.items()
        for value in select(rows, metric=metric).value.dropna().head(1)
    ]
    return sentence_case(f"{', '.join(said)} nats per point on the same test set") if said else ""


def _figure(gaps: Mapping[str, Estimate]) -> Figure:
    band = alt.Chart(pd.DataFrame({"from": [0.0], "to": [TOLERANCE]}))
    band = band.mark_rect(color="#888", opacity=0.25).encode(x="from:Q", x2="to:Q")
    x = ("gap", "exact log p(x) − ELBO (nats per test point; left is better)")
    return Figure(
        "exact_likelihood",
        "Distance from the exact log p(x)",
        f"Zero is a perfect posterior; grey: within the tolerance of {TOLERANCE} nats. Bars: 95 % "
        "t-interval over seeds.",
        "A line a variant with its gap, beside a grey band from zero to the tolerance: "
        f"{spoken_each(gaps, 3)} nats.",
        alt.layer(band, variant_intervals(gaps, x)),
    )
