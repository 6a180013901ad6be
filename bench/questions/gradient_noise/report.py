"""How noisy the gradient is, by estimator, stage and S, and what the quiet ones cost."""

from __future__ import annotations

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.report import estimators
from bench.report.claims import BEATS, TRAILS, UNDECIDED, listing
from bench.report.estimators import Printed, estimates, for_chart, slope_cell, table, verdicts
from bench.report.figure import Figure, by_variant, panels, tooltips
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, paragraphs, prose
from bench.report.style import STAGES, title
from bench.report.table import Column, Table, spoken
from bench.statistics import log_log_slope

WORDS = {BEATS: "quieter than", TRAILS: "noisier than", UNDECIDED: "undecided against"}
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
    own = rows.estimator == references.iloc[0]
    names = estimators.labels(references) | printed["estimator"]
    reference = names[references.iloc[0]]
    ratios = estimates(select(rows[~own], metric="variance_ratio"), "estimator")
    found = verdicts(dict(sorted(ratios.items(), key=lambda item: item[1].mean)))
    said = {key: f"`{names[key[0]]}` ({spoken(ratio, None)})" for key, ratio in ratios.items()}
    parts = []
    short = []
    for verdict, word in WORDS.items():
        here = [key for key, its in found.items() if its == verdict]
        if here:
            parts.append(f"{word} {reference}: {listing(said[key] for key in here)}")
        if here and verdict != UNDECIDED:
            most = here[0 if verdict == BEATS else -1]
            short.append(f"`{names[most[0]]}` {spoken(ratios[most], None)} ×")
    takeaway = (
        f"At the best weights of `{title(variant)}`, the gradient's variance as a multiple of that "
        f"of {reference} at equal S (1, or the least admitted): "
        f"{'; '.join(parts) or 'no other estimator is admitted'}."
    )
    gains = estimates(select(rows[~own], metric="efficiency"), "estimator")
    if gains:
        best = max(gains, key=lambda key: gains[key].mean)
        unsure = verdicts(gains, below=False)[best] != BEATS
        takeaway += (
            f" For its cost `{names[best[0]]}` gives most, {spoken(gains[best], None)} times the "
            f"precision of {reference} a second{' (undecided)' if unsure else ''}."
        )
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
    return Figure(
        "gradient_variance_by_stage",
        "Noise of the gradient through training",
        "Left of the line an estimator is quieter than pathwise at equal S (or, where that is not "
        "admitted, than the first that is). Bars are 95 % intervals, mostly narrower than a point.",
        f"A panel a stage, a row an estimator. Medians over variants: {'. '.join(seen)}.",
        panels(points, "stage", stages).resolve_scale(x="independent"),
        filters=("estimator", "stage"),
    )


def _efficiency_figure(rows: pd.DataFrame, printed: Printed) -> Figure | None:
    """Work-normalised efficiency by estimator, a point a variant."""
    frame = for_chart(select(rows, metric="efficiency", stage="best"), printed)
    if frame.empty:
        return None
    return Figure(
        "gradient_efficiency",
        "Precision of the gradient a second at the best weights",
        "Right of the line an estimator gives more precision a second of training steps than "
        "pathwise at equal S (or the first admitted). Bars are 95 % intervals.",
        f"A row an estimator. Medians over variants: {estimators.ranking(frame)}.",
        _points(frame, "1 / (variance × time), relative to pathwise", printed, 560),
        filters=("estimator",),
    )


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
