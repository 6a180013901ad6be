"""Does the ranking survive its budget and its learning rate?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.questions.exact_likelihood import TOLERANCE, tolerance_of
from bench.report.claims import (
    BEATS,
    EQUAL,
    TRAILS,
    UNDECIDED,
    Claim,
    claims,
    grouped,
    listing,
    sentence,
    sentence_case,
)
from bench.report.figure import Figure, curves, line_at, scale_of
from bench.report.provenance import schedule_of
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, item, points, prose
from bench.report.style import title
from bench.report.table import Cell, Column, Table, decimal
from bench.statistics import (
    Estimate,
    between,
    interval,
    on_chord,
    paired_difference,
    read_between,
    summary,
)

Found = Mapping[tuple[str, int], Claim]
"""(variant, epochs) → how it compares with the reference after a training of this length."""
CONVERGED = 0.1
"""Nats: a last doubling that is told to change less no longer matters to a table; where less counts
as equal (`tolerance_of`), that."""
WITHIN, OPEN = f"within {TOLERANCE} nats of it", "undecided against it"
SHORTEST = 1e-6
"""Of the reference's time: less than any step takes."""
BELOW = 0.25
"""Of the range of the best ELBOs: what lies lower by more is cut off the figure."""
ASKED = "Does the ranking survive its budget?"


def sections(results: Results) -> list[Section]:
    """The section on budgets; [] where they were not measured."""
    rows = results.of("budget")
    elbo = select(rows, metric="elbo").dropna(subset="value")
    if REFERENCE not in set(elbo.variant):
        return []
    within = tolerance_of(results)
    found, per = _compared(elbo, within), item(results)
    survives = _survives(found) if found else ""
    parts = [sentence_case(survives), _gains(elbo, within or CONVERGED), _equal_time_said(results)]
    parts.append(_rates_said(results, found))
    takeaway = points(*parts) or f"`{title(REFERENCE)}` alone was trained."
    drawn = [_differences_figure(results, found, per)] if found else []
    figures = [*drawn, _rates_figure(results, per)]
    tables = [_table(results, rows, elbo, found)]
    notes = prose(__file__, item=per, schedule=schedule_of(results))
    return [Section(ASKED, takeaway, survives, tables, figures, notes)]


def _compared(elbo: pd.DataFrame, within: float) -> Found:
    """The verdicts of the longest trainings hold together, as the headline's do, and those of all
    shorter ones."""
    differences = {
        (variant, epochs): paired_difference(group, variant, REFERENCE)
        for epochs, group in elbo.groupby("epochs")
        for variant in group.variant.unique()
        if variant != REFERENCE
    }
    longest = max((epochs for _, epochs in differences), default=0)
    shorter = {at: its for at, its in differences.items() if at[1] < longest}
    whole = {at: its for at, its in differences.items() if at[1] == longest}
    told = claims(shorter, tolerance=within) + claims(whole, tolerance=within)
    return {claim.subject: claim for claim in told}


def at_equal_time(results: Results, part: float = 1.0) -> dict[str, Estimate]:
    """Variant → its test ELBO less the reference's at the time that both were trained for, or a
    part of it that is no less than both had; {} where no budgets were measured.

    ELBOs between two lengths are interpolated in the logarithm of the training's seconds. Its
    interval holds what the difference would be at either end of that of how much longer a step
    takes, and on a chord in place of the curve.
    """
    rows = results.of("budget")
    values = rows.pivot_table(index=["variant", "seed", "epochs"], columns="metric", values="value")
    values = values.reindex(columns=["elbo", "training_seconds"]).dropna()
    if REFERENCE not in values.index.unique("variant"):
        return {}
    ratios = step_ratios(results)
    found = {}
    for variant in values.index.unique("variant"):
        if variant == REFERENCE or variant not in ratios:
            continue
        ratio, both = ratios[variant], values.elbo[[variant, REFERENCE]]
        known = _read(both, variant, ratio.mean, part)
        error = np.nan_to_num(ratio.half_width)
        # of few seeds it may reach below 0: hardly any time, which reads the shortest trainings
        ends = (max(ratio.mean + d, SHORTEST) for d in (-error, error))
        low, high = (_read(both, variant, end, part).mean for end in ends)
        half = math.hypot(known.half_width, (high - low) / 2)
        found[variant] = replace(known, half_width=half)
    return {variant: estimate for variant, estimate in found.items() if estimate}


def _read(elbo: pd.Series, variant: str, ratio: float, part: float) -> Estimate:
    """The difference to the reference where an epoch takes `ratio` times its own."""
    times = {variant: ratio, REFERENCE: 1.0}
    lengths = {name: elbo[name].index.unique("epochs") for name in times}
    until = part * min(times[name] * lengths[name].max() for name in times)
    if part < 1 and until < max(times[name] * lengths[name].min() for name in times):
        return Estimate()
    differences = []
    for way in (between, on_chord):
        reached = [
            elbo[name].groupby("seed").apply(_at_time, times[name], until, way)
            for name in (variant, REFERENCE)
        ]
        differences.append((reached[0] - reached[1]).dropna())
    return read_between(*differences)


def _at_time(elbo: pd.Series, ratio: float, until: float, way: Callable) -> float:
    """One seed's ELBO by epochs, at a time between those of its trainings."""
    elbo = elbo.droplevel("seed").sort_index()
    return way(ratio * elbo.index.to_numpy(dtype=float), elbo, until)


def step_ratios(results: Results) -> dict[str, Estimate]:
    """Variant → how many times as long as the reference's its longest training's epoch takes, over
    the seeds: both as they train, compiled where that pays."""
    took = results.of("budget", "training_seconds")
    longest = took[took.epochs == took.groupby("variant").epochs.transform("max")]
    each = (longest.value / longest.epochs.astype(float)).groupby([longest.variant, longest.seed])
    each = each.mean()
    if REFERENCE not in each.index:
        return {}
    return {
        variant: interval((each[variant] / each[REFERENCE]).dropna())
        for variant in each.index.unique("variant")
    }


def _equal_times(results: Results) -> pd.DataFrame:
    """Differences at halves of the time that both were trained for, in the reference's seconds."""
    times, ratios = _reference_times(results), step_ratios(results)
    lines = [
        _point(variant, difference) | {"seconds": seconds * min(1.0, ratios[variant].mean)}
        for seconds in times
        for variant, difference in at_equal_time(results, seconds / times[-1]).items()
    ]
    return pd.DataFrame(lines)


def _reference_times(results: Results) -> list[float]:
    """Seconds of the reference's longest training, and its parts at the other lengths."""
    took = results.of("budget", "training_seconds", variant=REFERENCE)
    lengths = sorted(took.epochs.unique())
    longest = took[took.epochs == lengths[-1]].value.median()
    return [longest * float(epochs / lengths[-1]) for epochs in lengths]


def _point(variant: str, difference: Estimate) -> dict[str, object]:
    ends = {"low": difference.low, "high": difference.high}
    return {"variant": variant, "difference": difference.mean} | ends


# --- sentences -------------------------------------------------------------------------------


def _survives(found: Found) -> str:
    """Of every variant, from which length on its verdict is the last one, or where it crosses."""
    said: list[tuple[str, str]] = []
    phrases = {BEATS: "above it", TRAILS: "below it", EQUAL: WITHIN, UNDECIDED: OPEN}
    for variant in dict.fromkeys(variant for variant, _ in found):
        mine = {epochs: claim for (v, epochs), claim in found.items() if v == variant}
        (*_, longest), last = sorted(mine), mine[max(mine)]
        changed = [epochs for epochs in sorted(mine) if mine[epochs].verdict != last.verdict]
        opposed = [e for e in changed if {mine[e].verdict, last.verdict} == {BEATS, TRAILS}]
        text, is_late = f"`{title(variant)}` ({last.spoken(sign=True)}", False
        if opposed:
            each = listing(f"{mine[e].spoken(sign=True)} at {e}" for e in opposed)
            text += f"; {each} epochs: the order reverses"
        elif last.decided and not changed:
            text += f"; {phrases[last.verdict]} at every budget"
        elif last.decided:
            since = min(epochs for epochs in mine if epochs > changed[-1])
            is_late = since == longest
            text += "" if is_late else f"; {phrases[last.verdict]} from {since} epochs on"
        listed = changed if opposed or is_late or not last.decided else []
        for verdict in {mine[e].verdict: None for e in listed if e not in opposed}:
            when = listing(str(epochs) for epochs in changed if mine[epochs].verdict == verdict)
            text += f"; {phrases[verdict]} at {when} epochs"
        said.append((last.verdict, f"{text})"))
    epochs = max(epochs for _, epochs in found)
    return f"ELBO against {title(REFERENCE)}'s after {epochs} epochs, in nats: " + grouped(
        said, phrases
    )


def last_gain(elbo: pd.DataFrame) -> Estimate:
    """What the last doubling of one variant's budget has gained, paired by seed."""
    *_, half, whole = sorted(elbo.epochs.unique())
    values = [elbo[elbo.epochs == epochs].set_index("seed").value for epochs in (whole, half)]
    return interval((values[0] - values[1]).dropna())


def _gains(elbo: pd.DataFrame, within: float) -> str:
    gains = {
        title(variant): last_gain(group)
        for variant, group in elbo.groupby("variant", sort=False)
        if len(set(group.epochs)) > 1
    }
    told = claims(gains, tolerance=within)
    if not told:
        return ""
    alike = f"is within {within} nats for"
    phrases = ("still gains, in nats, for", "loses, in nats, for", "is undecided for")
    said = sentence(told, *phrases, alike=alike)
    word = "Not shown to be converged"
    if all(claim.verdict == EQUAL for claim in told):
        word = "Converged"
    elif any(claim.verdict == BEATS and claim.difference.low > within for claim in told):
        word = "Not converged"
    return f"{word}: the last doubling {said}."


def equal_time_claims(results: Results) -> list[Claim]:
    """Every variant against the reference at equal time; the verdicts hold together."""
    found = {title(v): estimate for v, estimate in at_equal_time(results).items()}
    return claims(found, tolerance=tolerance_of(results))


def _equal_time_said(results: Results) -> str:
    found = equal_time_claims(results)
    said = sentence(found, "above it", "below it", OPEN, sign=True, alike=WITHIN)
    lead = f"ELBO at equal time, as measured here, against {title(REFERENCE)}'s, in nats"
    return f"{lead}: {said}." if said else ""


def _tuning(results: Results) -> pd.DataFrame:
    """Mean validation ELBO of every variant, budget and rate, at the best hyperparameters."""
    rows = results.of("tuning", "valid_elbo").dropna(subset=["epochs", "learning_rate"])
    # others are the comparison's of estimators, or of a length that is no budget
    rows = rows[rows.steps.isna() & rows.epochs.isin(results.of("budget").epochs)]
    keys = ["variant", "epochs", "learning_rate"]
    hyper = [c for c in rows if c.startswith("hyperparameter_") and rows[c].notna().any()]
    groups = rows.groupby([*keys, *hyper], dropna=False, sort=False)
    # a candidate with a run that failed has no mean, as for the choice
    means = groups.agg(
        mean=("value", lambda values: values.mean(skipna=False)),
        count=("value", "count"),
        chosen=("chosen", "max"),
    )
    means = means.reset_index().dropna(subset="mean")
    return means.sort_values("mean").groupby(keys, as_index=False).last()


def _signed(value: float) -> str:
    return decimal(value, sign="+")


def _rates_said(results: Results, found: Found) -> str:
    """Whether all chose one rate for the longest training; else which orders that were told would
    be reversed with a common one, of those that any chose."""
    epochs = max((epochs for _, epochs in found), default=0)
    tried = _tuning(results)
    tried = tried[tried.epochs == epochs]
    picked = tried[tried.chosen.fillna(False).astype(bool)].set_index("variant")
    if not {REFERENCE, *(v for v, e in found if e == epochs)} <= set(picked.index):
        return ""
    rates = sorted(picked.learning_rate.unique())
    if len(rates) == 1:
        return f"Every variant with an ELBO chose the rate {rates[0]:g} for {epochs} epochs."
    common = tried.pivot_table(index="learning_rate", columns="variant", values="mean")
    turned = [
        f"`{title(variant)}` at {rate:g} ({_signed(difference)}, tuned "
        f"{_signed(picked['mean'][variant] - picked['mean'][REFERENCE])})"
        for (variant, length), claim in found.items()
        if length == epochs and claim.decided
        for rate, difference in (common[variant] - common[REFERENCE]).reindex(rates).items()
        if difference * claim.difference.mean < 0
    ]
    if not turned:
        return ""
    seeds = int(tried["count"].min())
    return (
        f"One learning rate for all would reverse the order of `{title(REFERENCE)}` and "
        f"{listing(turned)}, in nats of validation ELBO ({seeds} seed{'s' * (seeds > 1)})."
    )


# --- table and figures -----------------------------------------------------------------------


def _table(results: Results, rows: pd.DataFrame, elbo: pd.DataFrame, found: Found) -> Table:
    """A line a variant and length."""
    columns = ["variant", Column("epochs", 0), Column("steps", 0), Column("training s", 0)]
    columns += [Column("learning rate", exact=True), Column("ELBO", best="max")]
    columns += [Column(f"difference to {title(REFERENCE)}", sign=True), "verdict"]
    columns.append(Column("gained by doubling", sign=True))
    reached = summary(elbo, ["variant", "epochs"])
    medians = rows.groupby(["variant", "epochs", "metric"]).value.median()
    lines, groups = [], []
    for variant in results.variants(elbo):
        mine = elbo[elbo.variant == variant]
        for epochs in sorted(mine.epochs.unique()):
            claim = found.get((variant, epochs))
            at = mine[mine.epochs == epochs]
            until = mine[mine.epochs <= epochs]
            took = [medians.get((variant, epochs, f"training_{m}")) for m in ("steps", "seconds")]
            lines.append(
                [
                    *(title(variant), epochs, *took, at.learning_rate.iloc[0]),
                    reached[variant, epochs],
                    claim.difference if claim else Cell(),
                    claim.verdict if claim else "",
                    last_gain(until) if epochs > mine.epochs.min() else Cell(),
                ]
            )
            groups.append(epochs)
    caption = "Test ELBO after trainings of lengths that double, each tuned at its own length"
    variants = [line[0] for line in lines]
    return Table("budget", columns, lines, caption, groups, variants)


def _differences_figure(results: Results, found: Found, per: str) -> Figure:
    steps = results.of("budget", "training_steps").groupby(["variant", "epochs"]).value.median()
    lines = [_point(at[0], claim.difference) | {"steps": steps[at]} for at, claim in found.items()]
    frame, timed = pd.DataFrame(lines), _equal_times(results)
    y = ("difference", f"ELBO − {title(REFERENCE)}'s (nats per {per})")
    size = {"width": 330, "height": 280}
    panels = [("steps", ("steps", "training steps"), sorted(frame.steps.unique()), frame)]
    if len(timed):
        doubling = [float(f"{seconds:.2g}") for seconds in _reference_times(results)]
        panels += [("time", ("seconds", "training time (s)"), doubling, timed)]
    charts = [
        (curves(its, axis, y, log="x", ticks=ticks, **size) + line_at(0)).properties(
            title=f"at equal {what}"
        )
        for what, axis, ticks, its in panels
    ]
    last = {v: c for (v, epochs), c in found.items() if epochs == max(e for _, e in found)}
    ends = ", ".join(f"{title(v)} {c.spoken(sign=True)}" for v, c in last.items())
    chart = alt.hconcat(*charts).resolve_scale(y="shared")
    return captioned(__file__, "budget_difference", chart, ends=ends)


def _rates_figure(results: Results, per: str) -> Figure | None:
    tried = _tuning(results)
    if tried.empty:
        return None
    tried = tried.rename(columns={"mean": "ELBO", "learning_rate": "rate"})
    tried = tried[["variant", "epochs", "rate", "ELBO"]]
    # a rate that is far off would leave the others one line
    chosen = tried.groupby(["variant", "epochs"]).ELBO.max()
    room = BELOW * (chosen.max() - chosen.min())
    ends = [chosen.min() - room, chosen.max() + room / 5]
    cut = {"domain": ends, "nice": False} if tried.ELBO.min() < ends[0] else {}
    tried = tried[tried.groupby("rate").ELBO.transform("max") >= ends[0]].copy()
    domain = [f"{rate:g}" for rate in sorted(tried.rate.unique())]
    tried["rate"] = tried.rate.map("{:g}".format)
    colours = alt.Color("rate:O", title="learning rate", sort=domain)
    colours = colours.scale(domain=domain, scheme="viridis")
    up = alt.Y("ELBO:Q", title=f"validation ELBO (nats per {per})", scale=scale_of(False, **cut))
    panels = [
        curves(
            tried[tried.variant == variant],
            ("epochs", "epochs"),
            up,
            colours,
            log="x",
            ticks=sorted(tried.epochs.unique()),
            width=230,
            height=210,
        ).properties(title=title(variant))
        for variant in results.variants(tried)
    ]
    best = tried.loc[tried.groupby("variant").ELBO.idxmax()]
    seen = ", ".join(f"{title(v)} {r}" for v, r in zip(best.variant, best.rate))
    chart = alt.concat(*panels, columns=3).resolve_scale(y="shared")
    return captioned(__file__, "budget_rates", chart, best=seen)
