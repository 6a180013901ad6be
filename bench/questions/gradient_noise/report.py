"""How noisy the gradient is, by estimator, stage and S, and what the quiet ones cost."""

from __future__ import annotations

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.report import estimators
from bench.report.claims import BEATS, TRAILS, claims, listing, sentence
from bench.report.estimators import Printed, estimates, for_chart, slope_cell, table
from bench.report.figure import Figure, by_variant, panels, tooltips
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, paragraphs, prose
from bench.report.style import STAGES, title
from bench.report.table import Column, Table
from bench.statistics import log_log_slope

WORDS = ("quieter than", "noisier than", "undecided against")
COLUMNS = {
    "variance_ratio": Column("ratio", None, "min"),
    "total_variance": Column("total variance, nats²", None, "min"),
    "location_variance": Column("location part, nats²", None),
    "scale_variance": Column("scale part, nats²", None),
    "signal_to_noise": Column("signal-to-noise", None),
    "step_microseconds": Column("step, µs/sample", None),
    "efficiency": Column("efficiency", None, "max"),
}


def sections(results: Results) -> list[Section]:
    """The section on the gradient's variance; [] where it was not measured."""
    rows = results.of("gradient_noise")
    if rows.empty:
        return []
    admitted = select(rows, metric="total_variance")
    admitted = admitted[admitted.n > 0].groupby("estimator").S.min()
    labels = estimators.labels(rows.estimator.dropna())
    least = {name: int(admitted.get(name, 1)) for name in labels}
    printed: Printed = {
        "variant": {variant: title(variant) for variant in results.variants(rows)},
        "stage": STAGES,
        "estimator": {n: labels[n] + f" (S = {s})" * (s > 1) for n, s in least.items()},
    }
    at_least = rows[rows.estimator.map(least) == rows.S]
    takeaway, answer = _sentences(at_least, printed)
    figures = [_stages_figure(at_least, printed), _efficiency_figure(at_least, printed)]
    absences = estimators.absences(rows, "estimator", "variant")
    notes = [prose(__file__), estimators.citations(labels), absences]
    tables = _tables(rows, at_least, printed)
    return [
        Section("How noisy the gradient is", takeaway, answer, tables, figures, paragraphs(*notes))
    ]


def _sentences(rows: pd.DataFrame, printed: Printed) -> tuple[str, str]:
    """Who is quieter, who noisier, who worth its cost, at the best weights; the quietest and the
    noisiest that are told from the reference, in short."""
    variant = REFERENCE if REFERENCE in printed["variant"] else next(iter(printed["variant"]))
    rows = select(rows, variant=variant, stage="best")
    references = select(rows, metric="variance_ratio").reference.dropna()
    if references.empty:
        none = "No gradient estimator has a finite variance at the best weights of "
        return f"{none}`{title(variant)}`.", ""
    names = estimators.labels(references) | printed["estimator"]
    reference, others = names[references.iloc[0]], rows[rows.estimator != references.iloc[0]]
    ratios, gains = (
        {names[key]: e for (key,), e in estimates(select(others, metric=m), "estimator").items()}
        for m in ("variance_ratio", "efficiency")
    )
    found = claims(ratios, higher_is_better=False, equal=1)
    found.sort(key=lambda claim: claim.difference.mean)
    words = (f"{word} {reference}:" for word in WORDS)
    takeaway = (
        f"At the best weights of `{title(variant)}`, the gradient's variance as a multiple of that "
        f"of {reference} at equal S (1, or the least admitted): "
        f"{sentence(found, *words, digits=None) or 'no other estimator is admitted'}."
    )
    if gains:
        most = max(claims(gains, equal=1), key=lambda claim: claim.difference.mean)
        takeaway += (
            f" For its cost `{most.subject}` gives most, {most.spoken(None)} times the precision "
            f"of {reference} a second{' (undecided)' if most.verdict != BEATS else ''}."
        )
    quieter, noisier = ([c for c in found if c.verdict == its] for its in (BEATS, TRAILS))
    short = [f"`{c.subject}` {c.spoken(None)} ×" for c in (*quieter[:1], *noisier[-1:])]
    return takeaway, f"{listing(short)} the variance of {reference}" if short else ""


def _tables(rows: pd.DataFrame, at_least: pd.DataFrame, printed: Printed) -> list[Table]:
    totals, ratios = select(rows, metric="total_variance"), _ratios(at_least)
    side_by_side = {}
    for variant, name in printed["variant"].items():
        own = select(ratios, variant=variant)
        other = estimators.labels({*own.reference.dropna()} - {"pathwise"})
        heading = " ".join([name, *(f"(÷ {label})" for label in other.values())])
        side_by_side[Column(heading, None, "min")] = own
    every = {column: select(at_least, metric=metric) for metric, column in COLUMNS.items()}
    every[COLUMNS["variance_ratio"]] = ratios
    every[Column("slope in S")] = {
        key: slope_cell(log_log_slope(group.S.astype(float), group.value))
        for key, group in totals.groupby([*printed])
    }
    decoder = {Column("variance, nats²", None): select(rows, metric="decoder_variance")}
    captions = (
        "Variance relative to pathwise (÷ another where that is not admitted), at equal S.",
        "Every estimator of the gradient, with the least S it admits.",
        "Total variance of the decoder's gradient from one sample (S = 1).",
    )
    return [
        table("gradient_ratio", captions[0], printed, ("stage", "estimator"), side_by_side, 1),
        table("gradient_variance", captions[1], printed, [*printed], every, 2),
        table("decoder_variance", captions[2], printed, ("variant", "stage"), decoder),
    ]


def _ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Variance ratios, marked where sampling was capped, with the reasons where there is none."""
    key = ["variant", "stage", "estimator"]
    totals, ratios = (select(rows, metric=m) for m in ("total_variance", "variance_ratio"))
    ratios = ratios.drop(columns="capped").merge(totals[[*key, "capped"]], on=key)
    return pd.concat([ratios, totals[totals.reason.notna()]])


# --- figures -----------------------------------------------------------------------------------


def _stages_figure(rows: pd.DataFrame, printed: Printed) -> Figure | None:
    """Variance relative to the reference's, a panel a stage."""
    frame = for_chart(select(rows, metric="variance_ratio"), printed)
    if frame.empty:
        return None
    points = _points(frame, "variance ÷ pathwise's", printed, 300)
    stages = [stage for stage in STAGES.values() if stage in set(frame.stage)]
    seen = [f"{stage}, {estimators.ranking(select(frame, stage=stage))}" for stage in stages]
    chart = panels(points, "stage", stages).resolve_scale(x="independent")
    filters, medians = ("estimator", "stage"), ". ".join(seen)
    return captioned(__file__, "gradient_variance_by_stage", chart, filters, medians=medians)


def _efficiency_figure(rows: pd.DataFrame, printed: Printed) -> Figure | None:
    """Work-normalised efficiency by estimator, a point a variant."""
    frame = for_chart(select(rows, metric="efficiency", stage="best"), printed)
    if frame.empty:
        return None
    chart = _points(frame, "1 / (variance × time), relative to pathwise", printed, 560)
    medians = estimators.ranking(frame)
    return captioned(__file__, "gradient_efficiency", chart, ("estimator",), medians=medians)


def _points(frame: pd.DataFrame, x: str, printed: Printed, width: int) -> alt.LayerChart:
    """A row an estimator on a logarithmic axis, in it a point a variant, and a line at 1."""
    scale = alt.Scale(type="log", nice=False, padding=10)
    bounds = alt.Axis(grid=True, tickBand="extent")
    base = alt.Chart(frame).encode(
        y=alt.Y("estimator:N", sort=[*printed["estimator"].values()], title=None, axis=bounds),
        yOffset=alt.YOffset("variant:N", sort=[*printed["variant"].values()]),
        color=by_variant(printed["variant"]),
    )
    low, point = (
        alt.X(c, title=x, scale=scale, axis=estimators.tens(2)) for c in ("low:Q", "value:Q")
    )
    return alt.layer(
        alt.Chart(frame).mark_rule(color="#888", strokeDash=[4, 3]).encode(x=alt.datum(1)),
        base.mark_rule(strokeWidth=2).encode(x=low, x2="high"),
        base.mark_point(filled=True, size=40, opacity=1).encode(x=point, tooltip=tooltips(frame)),
    ).properties(width=width, height=alt.Step(9))
