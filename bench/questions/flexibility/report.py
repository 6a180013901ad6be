"""From simple to flexible: what each posterior costs and what it gains."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.questions.budget.report import equal_time_claims, step_ratios
from bench.questions.exact_likelihood import TOLERANCE
from bench.questions.flexibility import COMPARED
from bench.questions.flexibility.compared import changes
from bench.questions.headline.report import bound_name, elbo_claims
from bench.report import figure as draw
from bench.report.claims import (
    BEATS,
    EQUAL,
    TRAILS,
    UNDECIDED,
    Claim,
    grouped,
    listing,
    sentence,
    sentence_case,
)
from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, item, paragraphs, points, prose
from bench.report.style import ordered, title
from bench.report.table import Column, Table, number, spoken, spoken_each
from bench.statistics import Estimate, from_error, interval, ratio_of_means, summary

COLUMNS = {
    "parameters": Column("parameters", 0),
    "training_time_ratio": Column("training time, relative"),
    "step_time_ratio": Column("time of an eager step, relative"),
    "elbo": Column("ELBO", best="max"),
    "iw_bound": Column("L_K", best="max"),
    "inference_gap": Column("inference gap", best="min"),
    "approximation_gap": Column("approximation gap"),
    "amortization_gap": Column("amortization gap"),
}
SIZE = "effective_sample_size"
CHECKS = {
    SIZE: Column("ESS", 0),
    "simulated_lower_bound": Column("simulated: L_K"),
    "simulated_upper_bound": Column("U_K"),
    "simulated_slack": Column("U_K − L_K", 3),
    "annealed_log_likelihood": Column("test: annealed log p(x)"),
    "annealed_difference": Column("annealed − estimate", 3, sign=True),
    "annealed_effective_sample_size": Column("chains' ESS", 1),
    "annealed_acceptance": Column("acceptance"),
}
NAMES = dict(zip(COMPARED, ("log p(x)", "inference gap", "approximation gap", "amortization gap")))
CHANGES = {
    TRAILS: "smaller",
    BEATS: "larger",
    EQUAL: f"within {TOLERANCE} nats of it",
    UNDECIDED: "undecided",
}
PARTS = {
    "approximation_gap": "approximation: the family",
    "amortization_gap": "amortization: the encoder",
}
ENDS = {"elbo": "ELBO", "iw_bound": "IW bound"}
GAINS = ("higher for", "lower for", "undecided for")
ALIKE = f"within {TOLERANCE} nats for"
COSTS = {
    "training_time_ratio": ("a training, as measured here,", "training time"),
    "step_time_ratio": ("a step that is not compiled", "time of an eager step"),
}
"""What a variant costs, the first that is known counts: its name in a sentence and on an axis."""
Found = dict[tuple[str, str], Estimate]
"""(variant, quantity) → estimate."""


def sections(results: Results) -> list[Section]:
    """The section on flexibility; [] where it was not measured."""
    rows = results.of("flexibility")
    if rows.empty:
        return []
    found = estimates(results)
    changed = changes(results)
    order = ordered(rows.variant)
    frame = draw.as_frame(found, "variant", "quantity")
    after = order[order.index(REFERENCE) + 1 :] if REFERENCE in order else []
    richer = [c for c in elbo_claims(results) if c.subject in map(title, after)]
    caption = "What every posterior costs and gains, from simple to flexible."
    tables = [
        Table.of_variants("flexibility", _columns(results, found), found, caption),
        _changes_table(changed),
        _checks_table(rows),
    ]
    per = item(results)
    figures = [_cost_figure(found, frame, per), _gap_figure(found, frame, per)]
    timed = [c for c in equal_time_claims(results) if c.subject in map(title, after)]
    takeaway = takeaway_of(found, richer, share(rows), changed, timed)
    notes = paragraphs(checked(rows), _notes(rows))
    answer = _answer(found, richer, timed)
    return [Section("Simple to flexible", takeaway, answer, tables, figures, notes)]


def _columns(results: Results, found: Found) -> dict[str, Column]:
    """Of the table of costs and gains; the IW bound is called by its K, and trainings that were not
    timed have no column."""
    known = {name for _, name in found}
    name = bound_name(results.of("headline", "iw_bound"))
    columns = COLUMNS | {"iw_bound": Column(name, best="max")}
    return {key: c for key, c in columns.items() if key not in COSTS or key in known}


def _answer(found: Found, richer: list[Claim], timed: list[Claim]) -> str:
    """What the richer variants gain at equal steps and time, and what their trainings take."""
    if not richer:
        return ""
    told = sentence(richer, *GAINS, sign=True, alike=ALIKE)
    text = f"ELBO against {title(REFERENCE)}'s, in nats: {told}"
    if timed:
        at_equal_time = sentence(timed, *GAINS, sign=True, alike=ALIKE)
        text += f"; in the time of {title(REFERENCE)}'s training {at_equal_time}"
    name = _cost(found)
    ratios = {title(v): ratio for v, ratio in _of(found, name).items()}
    costs = [f"{spoken(ratios[c.subject])} ({c.subject})" for c in richer if c.subject in ratios]
    text += f"; {COSTS[name][0]} takes {listing(costs)} times as long" if costs else ""
    return text


def _cost(found: Found) -> str:
    """What a variant's cost is told by: its trainings, where those were timed."""
    known = {name for _, name in found}
    return next((name for name in COSTS if name in known), "step_time_ratio")


def estimates(results: Results) -> Found:
    """Every quantity that was measured, of the variants whose flexibility was."""
    rows = results.of("flexibility")
    headline = results.of("headline", variant=ordered(rows.variant))
    bounds = select(headline, metric="iw_bound")
    parts = [
        select(rows, metric=["step_time_ratio", "inference_gap", *PARTS]),
        select(headline, metric="elbo"),
        select(bounds, K=bounds.K.max()),
        select(headline, metric="parameters", seed=0),
    ]
    trained = {
        # the reference's own is 1 by definition
        (variant, "training_time_ratio"): ratio if variant != REFERENCE else Estimate(1.0)
        for variant, ratio in step_ratios(results).items()
        if variant in set(rows.variant)
    }
    return summary(pd.concat(parts), ["variant", "metric"]) | trained


def share(rows: pd.DataFrame) -> Estimate:
    """The encoder's share of the reference's mean inference gap, in percent, over seeds; none where
    that gap may be zero."""
    its = select(rows, variant=REFERENCE, metric=["inference_gap", "amortization_gap"])
    wide = its.pivot_table(index="seed", columns="metric", values="value")
    wide = wide.reindex(columns=["inference_gap", "amortization_gap"])
    wide = wide.dropna()
    gap = interval(wide.inference_gap)
    if not gap.mean > 0 or gap.low <= 0:
        return Estimate()
    return ratio_of_means(100 * wide.amortization_gap, wide.inference_gap)


def _of(found: Found, quantity: str) -> dict[str, Estimate]:
    """Variant → its estimate of the quantity, from simple to flexible."""
    known = {variant: e for (variant, name), e in found.items() if name == quantity and e}
    return {variant: known[variant] for variant in ordered(known)}


def takeaway_of(
    found: Found,
    richer: list[Claim],
    encoder: Estimate,
    changed: list[Claim],
    timed: list[Claim] | None = None,
) -> str:
    """What flexibility gains over the reference, at equal steps and time, which part of the gap is
    the encoder's, and whose gaps are others."""
    plain, parts = f"`{title(REFERENCE)}`", []
    if richer:
        parts = [
            f"ELBO against {plain}'s, in nats, at equal steps: "
            f"{sentence(richer, *GAINS, sign=True, alike=ALIKE)}"
        ]
    if timed:
        parts.append(f"at equal time the ELBO is {sentence(timed, *GAINS, sign=True, alike=ALIKE)}")
    gaps = _of(found, "inference_gap")
    if encoder:
        gap = spoken(gaps[REFERENCE])
        whole = encoder.mean >= 100 > encoder.mean - encoder.half_width
        size = f"{'all of it, within its error (' * whole}{spoken(encoder, 0)} %{')' * whole}"
        part = f"{'' if whole else 'at least '}{size} is the encoder's (amortization)"
        parts.append(f"of {plain}'s inference gap of {gap} nats, {part}")
    parts += [
        f"against {plain}'s, {'the ' * (name in PARTS)}{NAMES[name]} is {said}"
        for name in ("log_likelihood", *PARTS)
        if (said := _changed(changed, name))
    ]
    if parts:
        return points(*map(sentence_case, parts))
    if not gaps:
        return "No variant with a posterior was measured, so there is no inference gap."
    best = min(gaps, key=lambda variant: gaps[variant].mean)
    return f"`{title(best)}` has the smallest gap: {spoken(gaps[best])} nats."


def _changed(changed: list[Claim], name: str) -> str:
    """For whom it is smaller, larger, or neither for sure."""
    said = [
        (claim.verdict, f"`{title(claim.subject[0])}` ({claim.spoken(sign=True)})")
        for claim in changed
        if claim.subject[1] == name
    ]
    return grouped(said, {its: f"{word} for" for its, word in CHANGES.items()})


def _changes_table(changed: list[Claim]) -> Table:
    """A line a variant and quantity; the verdicts of all lines hold together."""
    lines = [
        [title(variant), NAMES[name], claim.difference, CHANGES[claim.verdict]]
        for claim in changed
        for variant, name in [claim.subject]
    ]
    columns = ["variant", "quantity", Column("difference", sign=True), Column("verdict")]
    caption = f"Differences to {title(REFERENCE)}, nats: the ELBO's is the first less the second"
    variants = [line[0] for line in lines]
    return Table("gap_differences", columns, lines, caption, variants=variants)


def _checks_table(rows: pd.DataFrame) -> Table:
    """How far log p(x) is from the truth; intervals over images, of the sample size over seeds."""
    found = _over_images(select(rows, metric=[name for name in CHECKS if name != SIZE]))
    sizes = summary(select(rows, metric=SIZE), "variant")
    entries = found and found | {(variant, SIZE): size for variant, size in sizes.items()}
    return Table.of_variants("log_likelihood_checks", CHECKS, entries, "Checks of log p(x), nats")


def _over_images(rows: pd.DataFrame) -> Found:
    keys = zip(rows.variant, rows.metric, strict=True)
    values = map(from_error, rows.value, rows.standard_error, rows.n)
    return {key: value for key, value in zip(keys, values, strict=True) if value}


def checked(rows: pd.DataFrame) -> str:
    """How much too low log p(x) may be, beside the intervals of the gaps made of it."""
    slacks, most = _check(rows, "simulated_slack")
    annealed, least = _check(rows, "annealed_difference")
    if not slacks:
        return ""
    text = (
        "On average log p(x) is too low by less than U_K − L_K, on images simulated from the "
        f"models: {spoken(slacks[most], None)} nats for {title(most)}, whose interval reaches "
        "highest"
    )
    gaps = select(rows, metric=["inference_gap", "approximation_gap"])
    widths = [gap.half_width for gap in summary(gaps, ["variant", "metric"]).values() if gap.n > 1]
    if widths:
        narrowest = min(widths)
        side = "below" if slacks[most].high < narrowest else "not below"
        text += f"; its upper end is {side} the narrowest ± of an inference or approximation gap "
        text += f"({number(narrowest)})"
    if annealed:
        more = spoken(annealed[least], 3, sign=True)
        text += f"; annealed importance sampling finds {more} nats more for {title(least)}"
        text += f", whose interval reaches highest of {len(annealed)}" if len(annealed) > 1 else ""
    return f"{text}."


def _check(rows: pd.DataFrame, metric: str) -> tuple[dict[str, Estimate], str]:
    """By variant, and the variant whose interval reaches highest."""
    of_images = _over_images(select(rows, metric=metric))
    found = {variant: value for (variant, _), value in of_images.items()}
    return found, max(found, key=lambda variant: found[variant].high, default="")


def _notes(rows: pd.DataFrame) -> str:
    gaps, timed = select(rows, metric="inference_gap"), select(rows, metric="step_time")
    annealed = select(rows, metric="annealed_difference")
    known = {
        "images": gaps.n,
        "seeds": gaps.seed + 1,
        "steps": gaps.steps,
        "proposals": gaps.proposals,
        "chains": annealed.chains,
        "temperatures": annealed.temperatures,
        "batch": timed.batch_size,
        "timed": timed.n,
        "time": select(timed, variant=REFERENCE).value.mean(),
    }
    texts = {
        name: f"{top:,.0f}" if pd.notna(top := np.max(value)) else "–"
        for name, value in known.items()
    }
    texts["annealed"] = " or ".join(f"{n:g}" for n in sorted(annealed.n.unique())) or "–"
    return prose(__file__, reference=title(REFERENCE), **texts)


# --- figures ---------------------------------------------------------------------------------


def _cost_figure(found: Found, frame: pd.DataFrame, per: str) -> Figure | None:
    name = _cost(found)
    times, elbos = _of(found, name), _of(found, "elbo")
    bounds = select(frame, quantity=["elbo", "iw_bound"], variant=[*times])
    if bounds.empty:
        return None
    time = bounds.variant.map({variant: ratio.mean for variant, ratio in times.items()})
    chart = draw.curves(
        bounds.assign(time=time, quantity=bounds.quantity.map(ENDS)),
        ("time", f"{COSTS[name][1]}, relative to {title(REFERENCE)}"),
        ("value", f"nats per test {per}"),
    )
    shapes = alt.Scale(domain=[*ENDS.values()], range=["circle", "diamond"])
    points = chart.layer[1].encode(shape=alt.Shape("quantity:N", scale=shapes, title=None))
    chart.layer[1] = points.mark_point(filled=True, size=90, opacity=1)
    return captioned(__file__, "flexibility", chart, elbos=spoken_each(elbos))


def _gap_figure(found: Found, frame: pd.DataFrame, per: str) -> Figure | None:
    gaps = _of(found, "inference_gap")
    if not gaps:
        return None
    parts = draw.named(frame.assign(part=frame.quantity.map(PARTS)).dropna(subset="part"))
    axis, opacity = draw.variant_axis(gaps), alt.Scale(domain=[*PARTS.values()], range=[1, 0.35])
    bars = alt.Chart(parts).encode(
        x=alt.X("value:Q", title=f"inference gap log p(x) − ELBO (nats per test {per})"),
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
