"""Probabilistic PCA: every posterior against the exact log p(x)."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.questions.exact_likelihood import TOLERANCE
from bench.report.claims import sentence_case
from bench.report.figure import Figure, variant_intervals
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, paragraphs, prose
from bench.report.style import title
from bench.report.table import Column, Table, decimal, spoken, spoken_each
from bench.statistics import Estimate, summary

COLUMNS = {
    "elbo": Column("ELBO", 3, best="max"),
    "exact_log_likelihood": Column("exact log p(x)", 3),
    "exact_gap": Column("gap", 3, best="min"),
    "elbo_difference": Column("difference", 3, sign=True),
    "noise": Column("s", 3),
}
THEORY = {
    ("learned_diagonal", "elbo_difference"): f"learned-diagonal ties {title(REFERENCE)}",
    ("full_covariance", "exact_gap"): "full-covariance reaches its exact log p(x)",
}
"""What is estimated → what theory says of it: that it is zero."""
MODELS = {
    "maximum_likelihood": "the maximum-likelihood model of the same training data reaches {}",
    "generating_log_likelihood": "the model the data were drawn from {}",
}


def sections(results: Results) -> list[Section]:
    """The section on exact likelihoods; [] where none was measured."""
    rows = results.of("exact_likelihood")
    found = summary(rows, ["variant", "metric"])
    gaps = {v: gap for (v, metric), gap in found.items() if metric == "exact_gap" and gap}
    if not gaps:
        return []
    best = min(gaps, key=lambda variant: gaps[variant].mean)
    closest = f"{title(best)} comes closest to its exact log p(x): {spoken(gaps[best], 3)} nats"
    told = "; ".join(filter(None, [statements(found), predicted(found)]))
    answer = f"to within {TOLERANCE} nats: {told}" if told else closest
    takeaway = f"What theory says, {answer}." if told else f"{closest}."
    caption = "ELBO and exact log p(x), nats per test point"
    tables = [Table.of_variants("exact_likelihood", COLUMNS, found, caption)]
    known = prose(__file__, reference=title(REFERENCE), tolerance=TOLERANCE)
    notes = paragraphs(_models(rows), known)
    return [Section("Where log p(x) is known", takeaway, answer, tables, [_figure(gaps)], notes)]


def statements(found: Mapping[tuple[str, str], Estimate]) -> str:
    """Whether theory's two statements hold within the tolerance, intervals included."""
    said = []
    for key, statement in THEORY.items():
        if estimate := found.get(key):
            farthest = abs(estimate.mean) + estimate.half_width
            holds = "yes" if farthest <= TOLERANCE else "not shown"
            said.append(f"{statement} ({holds}: {spoken(estimate, 3)} nats)")
    return "; ".join(said)


def predicted(found: Mapping[tuple[str, str], Estimate]) -> str:
    """What a constant variance must lose, beside what it does; "" where neither is known."""
    said = []
    for (variant, metric), estimate in found.items():
        known = found.get((variant, "elbo_difference"))
        if metric == "predicted_elbo_difference" and known:
            off = abs(known.mean - estimate.mean) + known.half_width
            holds = "yes" if off <= TOLERANCE else "not shown"
            said.append(
                f"{title(variant)} loses to {title(REFERENCE)} the {decimal(-estimate.mean, 3)} "
                f"nats that its constant variance must cost ({holds}: "
                f"{spoken(known, 3, sign=True)} nats)"
            )
    return "; ".join(said)


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
    chart = alt.layer(band, variant_intervals(gaps, x))
    seen = {"tolerance": TOLERANCE, "gaps": spoken_each(gaps, 3)}
    return captioned(__file__, "exact_likelihood", chart, **seen)
