"""How noisy the gradient is, by estimator, stage and S, and what the quiet ones cost."""

from __future__ import annotations

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.report import estimators
from bench.report.claims import BEATS, TRAILS, UNDECIDED, listing
from bench.report.estimators import Printed, estimates, for_chart, slope_cell, table, verdicts
from bench.report.figure import Figure, by_variant, intervals, line_at
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, paragraphs, prose
from bench.report.style import STAGES, title
from bench.report.table import Column, Table, spoken
from bench.statistics import log_log_slope

COMPARED_AT = 4
"""S at which every estimator is admitted, for the figure that compares their costs."""
WORDS = {BEATS: "quieter than", TRAILS: "noisier than", UNDECIDED: "not told from"}
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
    figures = [
        _stages_figure(at_least, printed, takeaway),
        _efficiency_figure(rows, printed | {"estimator": labels}, takeaway),
    ]
    notes = [prose(__file__), estimators.citations(labels), estimators.absences(rows)]
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
        f"At the best weights of `{title(variant)}`, the variance of one example's gradient as a "
        f"multiple of that of {reference} at equal S (1, or the least admitted): "
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
    ratios, totals = (
        select(at_least, metric="variance_ratio"),
        select(rows, metric="total_variance"),
    )
    side_by_side = {
        Column(name, None, "min"): select(ratios, variant=variant)
        for variant, name in printed["variant"].items()
    }
    every = {column: select(at_least, metric=metric) for metric, column in COLUMNS.items()}
    every[Column("slope in S")] = {
        key: slope_cell(log_log_slope(group.S.astype(float), group.value))
        for key, group in totals.groupby([*printed])
    }
    decoder = {Column("variance, nats²", None): select(rows, metric="decoder_variance")}
    captions = (
        "Variance relative to the first estimator admitted, at equal S.",
        "Every estimator of the gradient, with the least S it admits.",
        "Total variance of the decoder's gradient from one sample (S = 1).",
    )
    return [
        table("gradient_ratio", captions[0], printed, ("stage", "estimator"), side_by_side, 1),
        table("gradient_variance", captions[1], printed, [*printed], every, 2),
        table("decoder_variance", captions[2], printed, ("variant", "stage"), decoder),
    ]


def _stages_figure(rows: pd.DataFrame, printed: Printed, takeaway: str) -> Figure | None:
    """S × variance by stage, a panel a variant."""
    frame = for_chart(select(rows, metric="total_variance"), printed, "S", times="S")
    if frame.empty:
        return None
    stages = alt.X("stage:O", title="weights", sort=[*STAGES.values()]).axis(labelAngle=0)
    up = "S × total variance, nats²"
    return Figure(
        "gradient_variance_by_stage",
        "Noise of the gradient through training",
        "Total variance of one example's gradient times its number of samples: equal decoder "
        "passes. Dashed lines are score-function estimators.",
        f"A panel a variant, a line an estimator, by stage of training. {takeaway}",
        estimators.panels_by_estimator(frame, stages, up, printed, "variant"),
        filters=("estimator", "stage"),
    )


def _efficiency_figure(rows: pd.DataFrame, printed: Printed, takeaway: str) -> Figure | None:
    """Work-normalised efficiency by estimator, a point a variant."""
    rows = select(rows, metric="efficiency", stage="best", S=COMPARED_AT)
    frame = for_chart(rows, {column: printed[column] for column in ("variant", "estimator")})
    if frame.empty:
        return None
    up = alt.Y("estimator:N", sort=[*printed["estimator"].values()], title=None)
    across = ("value", "1 / (variance × time), relative to pathwise")
    chart = intervals(frame, across, up, by_variant(printed["variant"]), log=True, step=9)
    offset = alt.YOffset("variant:N", sort=[*printed["variant"].values()])
    return Figure(
        "gradient_efficiency",
        f"Precision of the gradient a second, S = {COMPARED_AT}, best weights",
        "Right of the line an estimator gives more precision a second of training steps than "
        "pathwise (or, where that is not admitted, than the first that is).",
        f"A line an estimator, a point a variant. {takeaway}",
        chart.encode(yOffset=offset) + line_at(1, "x"),
        filters=("estimator",),
    )
