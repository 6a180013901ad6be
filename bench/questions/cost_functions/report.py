"""Variance of one-sample gradients by cost function, and where pathwise is the noisier."""

from __future__ import annotations

import math
from dataclasses import replace

import altair as alt
import pandas as pd

from bench.questions.cost_functions import CASES, COSTS, PARAMETERS
from bench.report import estimators
from bench.report.claims import listing
from bench.report.estimators import estimates, table, tens
from bench.report.figure import Figure, scale_of
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, paragraphs, points, prose
from bench.report.table import Column, Table

PATHWISE = "pathwise"
OTHERS = {"score_function": "", "measure_valued": ", which takes four values of f,"}
"""What pathwise is held against, and what that costs."""
DERIVATIVES = dict(zip(PARAMETERS, ("∂/∂μ", "∂/∂σ"), strict=True))


def sections(results: Results) -> list[Section]:
    """The section on cost functions; [] where it was not measured."""
    rows = results.of("cost_functions")
    exact = select(rows, metric="exact_variance")
    if exact.empty:
        return []
    labels = estimators.labels(exact.estimator.unique())
    found = {name: where for name in OTHERS if (where := _where(exact, name))}
    answer, comparisons = _comparisons(found)
    takeaway = points(*comparisons, _agreement(rows))
    tables = [_table(rows, labels)]
    figures = [_figure(exact, labels)]
    notes = paragraphs(prose(__file__), estimators.citations(labels))
    return [Section("Where pathwise loses", takeaway, answer, tables, figures, notes)]


def _comparisons(found: dict[str, dict[str, str]]) -> tuple[str, list[str]]:
    """Where pathwise is noisier than each of the others, in short and a sentence each."""
    if not found:
        return "", ["Pathwise was measured beside no other estimator."]
    labels = estimators.labels(found)
    answers, sentences = [], []
    for name, where in found.items():
        lost = [f"for {COSTS[cost]} {text}" for cost, text in where.items() if text]
        never = listing(COSTS[cost] for cost, text in where.items() if not text)
        place = ", and ".join(lost) or "nowhere that was measured"
        answers.append(f"than `{labels[name]}`{OTHERS[name]} {place}")
        rest = f"; for {never} it is so at no k measured" if never and lost else ""
        whose = "Pathwise" if sentences else "With one sample of x ~ N(1, 1), pathwise"
        sentences.append(f"{whose} is noisier than `{labels[name]}`{OTHERS[name]} {place}{rest}.")
    short = (
        "without a model, for the gradient of E f(x), x ~ N(1, 1), from one sample, pathwise is "
        f"noisier {'; '.join(answers)}"
    )
    return short, sentences


def formula(cost: str, k: float) -> str:
    """A cost function with its k: `(x + 3)²`."""
    if cost == "quadratic":
        return f"(x {'−' if k > 0 else '+'} {abs(k):g})²" if k else "x²"
    return COSTS[cost].replace("k", f"{k:g}")


def _where(exact: pd.DataFrame, other: str) -> dict[str, str]:
    """Cost function → at which k pathwise has the larger variance, and of which derivatives; {}
    where one of the two was not measured."""
    keys = ["cost_function", "parameter", "k"]
    wide = exact.pivot_table(index=keys, columns="estimator", values="value")
    if not {PATHWISE, other} <= {*wide}:
        return {}
    wide = wide.dropna(subset=[PATHWISE, other])
    noisier = wide[PATHWISE] > wide[other]
    found = {}
    for cost in (cost for cost in COSTS if cost in noisier.index.get_level_values(0)):
        spans = {}
        for parameter, derivative in DERIVATIVES.items():
            if (cost, parameter) in noisier.index.droplevel("k"):
                spans.setdefault(_span(noisier[cost, parameter]), []).append(derivative)
        said = [f"{span} ({listing(of)})" for span, of in spans.items() if span]
        found[cost] = listing(said)
    return found


def _span(noisier: pd.Series) -> str:
    """By k in ascending order: `at every k measured`, `from k = 3 to 10`, `at k = 1`, or `""`."""
    at = [f"{k:g}".replace("-", "−") for k, yes in noisier.items() if yes]
    if len(at) == len(noisier):
        return "at every k measured"
    if len(at) > 1 and noisier.iloc[(first := noisier.argmax()) : first + len(at)].all():
        return f"from k = {at[0]} to {at[-1]}"
    return f"at k = {listing(at)}" if at else ""


def _agreement(rows: pd.DataFrame) -> str:
    """How far the sampled variances are from those by quadrature."""
    keys = ["cost_function", "k", "parameter", "estimator"]
    exact, sampled = (select(rows, metric=f"{how}_variance") for how in ("exact", "sampled"))
    both = sampled.merge(exact[[*keys, "value"]], on=keys, suffixes=("", "_exact"))
    both = both[both.standard_error > 0]
    if both.empty:
        return ""
    furthest = ((both.value - both.value_exact).abs() / both.standard_error).max()
    within = math.ceil(round(10 * furthest, 6)) / 10  # up, so that it is true of all
    return (
        f"The {len(both)} sampled variances are within {within:.1f} standard errors of those "
        "by quadrature."
    )


def _table(rows: pd.DataFrame, labels: dict[str, str]) -> Table:
    cases = {case: formula(*case) for case in CASES}
    rows = rows.assign(case=list(zip(rows.cost_function, rows.k)))
    rows = rows[rows.case.isin(cases)]
    entries = {}
    for name, label in labels.items():
        own = select(rows, estimator=name)
        exact, sampled = (
            estimates(select(own, metric=f"{how}_variance"), "case", "parameter")
            for how in ("exact", "sampled")
        )
        entries[Column(label, None)] = exact
        entries[Column(f"{label}, sampled", None)] = sampled
    printed = {"case": cases, "parameter": DERIVATIVES}
    caption = "Variance of one-sample gradients of E f(x), x ~ N(1, 1)."
    return table("cost_functions", caption, printed, [*printed], entries)


def _figure(exact: pd.DataFrame, labels: dict[str, str]) -> Figure | None:
    # without a logarithm, where a line breaks
    exact = exact.assign(value=exact.value.where(exact.value > 0))
    if exact.value.isna().all():
        return None
    frame = pd.DataFrame(
        {
            "k": exact.k,
            "value": [float(f"{v:.4g}") for v in exact.value],
            "estimator": exact.estimator.map(labels),
            "derivative": exact.parameter.map(DERIVATIVES),
            "cost": exact.cost_function.map(COSTS),
        }
    )
    every = []
    for derivative in DERIVATIVES.values():
        charts = []
        for cost in COSTS.values():
            here = select(frame, cost=cost, derivative=derivative)
            # k of both signs has a linear axis
            scale = scale_of(log=bool((here.k > 0).all()), nice=False, padding=10)
            across = alt.X("k:Q", title="k", scale=scale)
            up = alt.Y("value:Q", title=f"variance, {derivative}", axis=tens())
            up = up.scale(alt.Scale(type="log"))
            chart = estimators.lines(here, across, up, labels, width=270, height=220)
            charts += [chart.properties(title=cost)] * (not here.empty)
        every += [alt.hconcat(*charts)] * bool(charts)
    chart = alt.vconcat(*every)
    seen = ". ".join(
        f"{cost}: {estimators.ranking(frame[frame.cost == cost])}" for cost in frame.cost.unique()
    )
    found = captioned(__file__, "cost_functions", chart, ("estimator",), seen=seen)
    return replace(found, of_data=False)
