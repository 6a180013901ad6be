"""From simple to flexible: what each posterior costs and what it gains."""

from __future__ import annotations

from dataclasses import replace

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.questions.headline.report import elbo_claims
from bench.report import figure as draw
from bench.report.claims import Claim, sentence, sentence_case
from bench.report.estimators import estimates as with_errors
from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, prose
from bench.report.style import ordered, title
from bench.report.table import Column, Table, decimal, spoken, spoken_each
from bench.statistics import Estimate, summary

COLUMNS = {
    "parameters": Column("parameters", 0),
    "step_time_ratio": Column("time of a step, relative"),
    "elbo": Column("ELBO", best="max"),
    "iw_bound": Column("IW bound", best="max"),
    "inference_gap": Column("inference gap", best="min"),
    "approximation_gap": Column("approximation gap"),
    "amortization_gap": Column("amortization gap"),
    "total_variance": Column("gradient variance, nats²", None),
}
PARTS = {
    "approximation_gap": "approximation: the family",
    "amortization_gap": "amortization: the encoder",
}
ENDS = {"elbo": "ELBO", "iw_bound": "IW bound"}
GAINS = "gained by", "lost by", "undecided for"
Found = dict[tuple[str, str], Estimate]
"""(variant, quantity) → estimate."""


def sections(results: Results) -> list[Section]:
    """The section on flexibility; [] where it was not measured."""
    rows = results.of("flexibility")
    if rows.empty:
        return []
    found, order = estimates(results), ordered(rows.variant)
    frame = draw.as_frame(found, "variant", "quantity")
    after = order[order.index(REFERENCE) + 1 :] if REFERENCE in order else []
    cost = {title(variant): _cost(found, variant) for variant in after}
    richer = [replace(c, note=cost[c.subject]) for c in elbo_claims(results) if c.subject in cost]
    best = [max(richer, key=lambda claim: claim.difference.mean)] if richer else []
    caption = "What every posterior costs and gains, from simple to flexible."
    tables = [Table.of_variants("flexibility", COLUMNS, found, caption)]
    figures = [_cost_figure(found, frame), _gap_figure(found, frame)]
    takeaway = takeaway_of(found, richer)
    answer = f"ELBO in nats: {sentence(best, *GAINS)}" if best else ""
    return [Section("Simple to flexible", takeaway, answer, tables, figures, _notes(rows))]


def estimates(results: Results) -> Found:
    """Every quantity that was measured, of the variants whose flexibility was."""
    rows = results.of("flexibility")
    here = {"variant": ordered(rows.variant)}
    headline, step = results.of("headline", **here), select(rows, metric="step_time")
    gradients = results.of("gradient_noise", "total_variance", stage="best", S=1, **here)
    bounds = select(headline, metric="iw_bound")
    over_seeds = [
        *(select(rows, metric="step_time_ratio"), select(headline, metric="elbo")),
        *(select(bounds, K=bounds.K.max()), select(headline, metric="parameters", seed=0)),
    ]
    of_one_training = [
        select(rows, metric=["inference_gap", *PARTS]),
        gradients.merge(step[["variant", "estimator"]]),
    ]
    keys = ["variant", "metric"]
    return summary(pd.concat(over_seeds), keys) | with_errors(pd.concat(of_one_training), *keys)


def _of(found: Found, quantity: str) -> dict[str, Estimate]:
    """Variant → its estimate of the quantity, from simple to flexible."""
    known = {variant: e for (variant, name), e in found.items() if name == quantity and e}
    return {variant: known[variant] for variant in ordered(known)}


def takeaway_of(found: Found, richer: list[Claim]) -> str:
    """What flexibility gains over the reference, and which part of the gap is the encoder's."""
    plain, parts = f"`{title(REFERENCE)}`", []
    if richer:
        parts = [f"ELBO in nats against {plain}: {sentence(richer, *GAINS)}"]
    gaps = _of(found, "inference_gap")
    gap, missed = gaps.get(REFERENCE), found.get((REFERENCE, "amortization_gap"))
    if gap and missed and gap.mean > 0:
        share = 100 * missed.mean / gap.mean
        part = f"{100 - share:.0f} % is the family's (approximation)"
        if share > 50:
            part = f"{share:.0f} % is the encoder's (amortization)"
        parts.append(f"of {plain}'s inference gap of {spoken(gap)} nats, {part}")
    if parts:
        return " ".join(map(sentence_case, parts))
    if not gaps:
        return "No variant with a posterior was measured, so there is no inference gap."
    best = min(gaps, key=lambda variant: gaps[variant].mean)
    return f"`{title(best)}` has the smallest gap: {spoken(gaps[best])} nats."


def _cost(found: Found, variant: str) -> str:
    ratio = found.get((variant, "step_time_ratio"))
    return f" at {decimal(ratio.mean)} × the cost of a step" if ratio else ""


def _notes(rows: pd.DataFrame) -> str:
    gaps, timed = select(rows, metric="inference_gap"), select(rows, metric="step_time")
    known = {"images": gaps.n, "steps": gaps.steps, "batch": timed.batch_size, "timed": timed.n}
    known["time"] = select(timed, variant=REFERENCE).value
    texts = {name: f"{v.max():,.0f}" if v.notna().any() else "–" for name, v in known.items()}
    return prose(__file__, reference=title(REFERENCE), **texts)


# --- figures ---------------------------------------------------------------------------------


def _cost_figure(found: Found, frame: pd.DataFrame) -> Figure | None:
    times, elbos = _of(found, "step_time_ratio"), _of(found, "elbo")
    bounds = select(frame, quantity=["elbo", "iw_bound"], variant=[*times])
    if bounds.empty:
        return None
    time = bounds.variant.map({variant: ratio.mean for variant, ratio in times.items()})
    chart = draw.curves(
        bounds.assign(time=time, quantity=bounds.quantity.map(ENDS)),
        ("time", f"time of a training step, relative to {title(REFERENCE)}"),
        ("value", "nats per test image"),
    )
    shapes = alt.Scale(domain=[*ENDS.values()], range=["circle", "diamond"])
    points = chart.layer[1].encode(shape=alt.Shape("quantity:N", scale=shapes, title=None))
    chart.layer[1] = points.mark_point(filled=True, size=90, opacity=1)
    each = ", ".join(f"{title(v)} {spoken(elbo)}{_cost(found, v)}" for v, elbo in elbos.items())
    return captioned(__file__, "flexibility", chart, elbos=each)


def _gap_figure(found: Found, frame: pd.DataFrame) -> Figure | None:
    gaps = _of(found, "inference_gap")
    if not gaps:
        return None
    parts = draw.named(frame.assign(part=frame.quantity.map(PARTS)).dropna(subset="part"))
    axis, opacity = draw.variant_axis(gaps), alt.Scale(domain=[*PARTS.values()], range=[1, 0.35])
    bars = alt.Chart(parts).encode(
        x=alt.X("value:Q", title="inference gap log p(x) − ELBO (nats per test image)"),
        y=axis,
        color=draw.by_variant(gaps).legend(None),
        opacity=alt.Opacity("part:N", title=None, scale=opacity),
        order=alt.Order("part:N", sort="descending"),
        tooltip=draw.tooltips(parts),
    )
    ends = alt.Chart(draw.named(select(frame, quantity="inference_gap")))
    ends = ends.mark_rule(color="#888", strokeWidth=2).encode(x="low:Q", x2="high:Q", y=axis)
    chart = (bars.mark_bar(height=20) + ends).properties(width=460, height=alt.Step(36))
    return captioned(__file__, "inference_gap", chart, gaps=spoken_each(gaps))
