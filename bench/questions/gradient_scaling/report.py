"""How the gradient's noise grows with the number of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.report import estimators
from bench.report.claims import claims, listing, sentence_case
from bench.report.estimators import Printed, for_chart, table, tens
from bench.report.figure import Figure, panels
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, paragraphs, prose
from bench.report.style import STAGES, title
from bench.report.table import Column, spoken
from bench.statistics import STRAIGHT, Estimate, PowerLaw, interval, power_law, ratio_of_means


def sections(results: Results) -> list[Section]:
    """The section on latent dimension; [] where it was not measured."""
    every = results.of("gradient_scaling", "total_variance")
    if every.empty:
        return []
    printed: Printed = {
        "stage": STAGES,
        "estimator": estimators.labels(every.estimator.unique()),
    }
    laws = {
        key: power_law(group.L.astype(float), group.value)
        for key, group in every.groupby([*printed])
    }
    totals = estimators.over_seeds(every)
    entries = {
        Column(f"L = {dim}, nats²", None): select(totals, L=int(dim))
        for dim in sorted(totals.L.unique())
    }
    entries[Column("exponent")] = {key: _exponent(law) for key, law in laws.items()}
    entries[Column("R²")] = {key: law.r_squared for key, law in laws.items()}
    caption = "The encoder's Monte Carlo variance at S = 2 by number of latents L."
    tables = [table("gradient_scaling", caption, printed, [*printed], entries)]
    values = {"reference": title(REFERENCE), "seeds": every.seed.nunique()}
    notes = prose(__file__, **values), estimators.absences(totals, "estimator")
    heading, takeaway = "Gradient noise and latent dimension", _takeaway(every, laws, printed)
    figures = [_figure(totals, printed)]
    return [Section(heading, takeaway, "", tables, figures, paragraphs(*notes))]


def _exponent(law: PowerLaw) -> Estimate | str:
    return law.exponent if law.holds else "no power law told" * math.isfinite(law.r_squared)


def _takeaway(every: pd.DataFrame, laws: Mapping[tuple, PowerLaw], printed: Printed) -> str:
    """The lowest and highest exponents measured, who has none, and the gap at either end.

    Whether an exponent is zero is told for all of them together.
    """
    parts = []
    told = claims({key: law.exponent for key, law in laws.items() if law.holds})
    unsure = {
        (stage, f"`{printed['estimator'][name]}`"): ", undecided against 0"
        for stage, name in (claim.subject for claim in told if not claim.decided)
    }
    for stage, label in printed["stage"].items():
        fitted = {
            f"`{printed['estimator'][name]}`": law
            for (where, name), law in laws.items()
            if where == stage and math.isfinite(law.r_squared)
        }
        order = sorted(
            (name for name in fitted if fitted[name].holds),
            key=lambda name: fitted[name].exponent.mean,
        )
        ends = dict.fromkeys(order[:1] + order[-1:])
        ends = [
            f"{spoken(fitted[name].exponent)} ({name}{unsure.get((stage, name), '')})"
            for name in ends
        ]
        none = [name for name in fitted if name not in order]
        said = [f"goes as L to the measured power {' to '.join(ends)}"] * bool(ends)
        said += [f"has no power law told (R² < {STRAIGHT}) for {listing(none)}"] * bool(none)
        if said:
            when = label if label.startswith("after") else f"at {label}"
            parts.append(f"{when}, the encoder's variance at S = 2 {' and '.join(said)}")
    if not parts:
        return "No variance is finite at three numbers of latents."
    return sentence_case("; ".join([*parts, *_gap(every)]))


def _gap(every: pd.DataFrame) -> list[str]:
    """The raw score function's variance over pathwise's, at the ends, trained, paired by seed; the
    verdicts hold together for all L."""
    trained = select(every, stage="trained", estimator=["score_function", "pathwise"])
    wide = trained.pivot_table(index=["L", "seed"], columns="estimator", values="value").dropna()
    if len(wide.columns) < 2:
        return []
    ratios = {L: _ratio(pairs) for L, pairs in wide.groupby("L")}
    if len(ratios) < 2:
        return []
    first, *_, last = claims(ratios, equal=1)
    said = [
        f"{claim.spoken(None)} at L = {claim.subject}"
        + (" (undecided)" if claim.difference.n > 1 else " (one seed)") * (not claim.decided)
        for claim in (first, last)
    ]
    return [
        f"{STAGES['trained']} the raw score function's variance as a "
        f"multiple of pathwise's is {' and '.join(said)}"
    ]


def _ratio(pairs: pd.DataFrame) -> Estimate:
    above, below = pairs.score_function, pairs.pathwise
    return ratio_of_means(above, below) if len(pairs) > 1 else interval(above / below)


def _figure(totals: pd.DataFrame, printed: Printed) -> Figure | None:
    frame = for_chart(totals, printed, "L")
    if frame.empty:
        return None
    across, up = estimators.amount_axis("L", "latent dimension L", frame.L), "variance, nats²"
    up = alt.Y("value:Q", title=up, scale=alt.Scale(type="log"), axis=tens())
    chart = estimators.lines(frame, across, up, printed["estimator"], width=330, height=300)
    last = select(frame, L=frame.L.max())
    seen = (
        f"{stage}, {estimators.ranking(rows)}" for stage, rows in last.groupby("stage", sort=False)
    )
    chart = panels(chart, "stage", [*printed["stage"].values()])
    values = {"largest": frame.L.max(), "seen": ". ".join(seen)}
    return captioned(__file__, "gradient_scaling", chart, ("estimator", "stage"), **values)
