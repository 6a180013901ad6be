"""Does the gradient's noise matter? Training with each estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE as VARIANT
from bench.config import Run
from bench.report import estimators
from bench.report.claims import (
    BEATS,
    TRAILS,
    UNDECIDED,
    Claim,
    claims,
    listing,
    sentence,
)
from bench.report.estimators import table
from bench.report.figure import Figure, line_at
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, paragraphs, points, prose
from bench.report.style import title
from bench.report.table import Cell, Column, decimal, spoken
from bench.statistics import Estimate, between, interval, on_chord, read_between, summary

BUDGETS = {"equal_steps": "equal steps", "equal_time": "equal time"}
AGAINST = {"equal_steps": "pathwise's with the same S", "equal_time": "pathwise's (S = 1)"}
"""Budget → what an estimator is compared with."""
WHERE = {BEATS: "higher for", TRAILS: "lower for", UNDECIDED: "undecided for"}
KEYS = ["budget", "estimator", "S"]
TIMED = ["estimator", "S"]
REFERENCE = "pathwise"
SAME = "pathwise_sobol"
"""With one sample pathwise in all but how its noise is drawn."""
SCATTER = 10
"""An estimator whose seeds spread so many times wider than pathwise's has no mean to speak of."""
WIDE = 3
"""Where they spread so many times wider, a few of them make the mean: they are named."""
SHOWN = 2
"""By so many equal times the figure goes on in seconds."""
ENOUGH = 0.85
"""Share of the equal time that the longest training must take to be read at it, as it ended."""
MANY = 3
"""So many estimators of one verdict are no longer listed in the short answer."""
Key = tuple[str, str, int]
"""(budget, estimator, S)."""


def sections(results: Results) -> list[Section]:
    """The section on training by estimator; [] where it was not measured (before: not tuned, or its
    steps not timed in turns)."""
    rows = results.of("estimator_training")
    if rows.learning_rate.isna().all() or _step_seconds(rows).empty:
        return []
    labels = estimators.labels(rows.estimator.dropna())
    scores = scores_of(rows)
    differences, spans = _differences(scores), _scattered(scores)
    compared = claims({k: d for k, d in differences.items() if k not in spans})
    found = {claim.subject: claim for claim in compared}
    verdicts = {key: claim.verdict for key, claim in found.items()} | spans
    finite = scores[np.isfinite(scores.value)]
    means = scores.groupby(KEYS)[["steps", "rate", "seconds"]].mean()
    entries = {
        Column("steps", 0): means.steps.to_dict(),
        Column("learning rate", exact=True): means.rate.to_dict(),
        Column("test ELBO, nats", best="max"): summary(finite, KEYS) | _lacking(rows),
        Column("difference to pathwise, nats", sign=True): {
            key: difference for key, difference in differences.items() if key not in spans
        },
        Column("verdict (Holm)"): verdicts,
        Column("seconds taken", 1): means.seconds.to_dict(),
    }
    samples = {s: str(s) for s in sorted(rows.S.dropna().unique())}
    printed = {"budget": BUDGETS, "estimator": labels, "S": samples | {0: "–"}}
    caption = (
        f"Trainings of {title(VARIANT)} with each estimator; the difference is to pathwise: "
        "with the same S at equal steps, with S = 1 at equal time."
    )
    tables = [table("estimator_training", caption, printed, KEYS, entries, 1)]
    notes = prose(__file__, variant=title(VARIANT)), estimators.absences(rows, "estimator")
    said = {b: _said(b, found, spans, labels) for b in BUDGETS}
    parts = [f"At {BUDGETS[b]} ({_budget(scores, b)}) {text}." for b, text in said.items() if text]
    more = [_spread_said(scores, spans, labels), _elsewhere(rows, labels)]
    more += [_timing_said(rows, labels)]
    takeaway = points(*parts, *more) if parts else ""
    asked, figures = "Does the gradient's noise matter?", [_curves(rows, labels)]
    takeaway = takeaway or "Too few estimators were trained to compare."
    answer = _answer(scores, found, spans, labels, _epochs_said(results, scores))
    return [Section(asked, takeaway, answer, tables, figures, paragraphs(*notes))]


# --- scores ----------------------------------------------------------------------------------


def scores_of(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a budget, estimator, S and seed: the ELBO, and the steps, rate and seconds behind it.

    At equal steps it is that of the longest trainings; at equal time it is read, where pathwise's
    longest training with one sample ends, between two lengths, in the logarithm of the seconds.
    """
    final = _trainings(rows)
    whole = final[final.steps == final.steps.max()].assign(budget="equal_steps")
    whole = whole.assign(chord=whole.value)
    until = _until(final)
    there = _spans(final)
    there = there[(there["min"] <= until) & (there["max"] >= ENOUGH * until)].index
    read = [
        {"estimator": name, "S": s, "seed": seed} | _at_time(group.sort_values("steps"), until)
        for (name, s, seed), group in final.groupby(["estimator", "S", "seed"])
        if (name, s) in there
    ]
    return pd.concat([whole, pd.DataFrame(read).assign(budget="equal_time")], ignore_index=True)


def _trainings(rows: pd.DataFrame) -> pd.DataFrame:
    """A line a training: its ELBO, and the seconds that its steps take, timed in turns with
    pathwise's; once a seed, so that what is read at a time holds the error of timing too."""
    final = select(rows, metric="elbo").dropna(subset="learning_rate")
    final = final.join(_step_seconds(rows), on=TIMED).rename(columns={"learning_rate": "rate"})
    timed = select(rows, metric="step_seconds").groupby([*TIMED, "seed"]).value.median()
    plain = select(timed.reset_index(), estimator=REFERENCE, S=1).set_index("seed").value
    final = final.join(timed.rename("own"), on=[*TIMED, "seed"])
    in_turn = final.own / final.seed.map(plain) * plain.median()
    final["seconds"] = final.steps * in_turn.fillna(final.step_seconds)
    return final[[*TIMED, "steps", "seed", "value", "rate", "seconds"]]


def _spans(final: pd.DataFrame) -> pd.DataFrame:
    """Of an (estimator, S), the seconds of the shortest and the longest training, medians over
    seeds."""
    each = final.groupby([*TIMED, "steps"]).seconds.median()
    return each.groupby(TIMED).agg(["min", "max"])


def _step_seconds(rows: pd.DataFrame) -> pd.Series:
    """Of an (estimator, S), the median over seeds."""
    found = select(rows, metric="step_seconds")
    return found.groupby(TIMED).value.median().rename("step_seconds")


def _until(final: pd.DataFrame) -> float:
    """Seconds of pathwise's longest training with one sample."""
    plain = final[(final.estimator == REFERENCE) & (final.S == 1)]
    return plain[plain.steps == final.steps.max()].seconds.median()


def _at_time(group: pd.DataFrame, until: float) -> dict[str, float]:
    """One seed's trainings of several lengths, read at a time."""
    longest, points = group.iloc[-1], (group.seconds, group.value, until)
    seconds = min(until, longest.seconds)
    steps = seconds * longest.steps / longest.seconds
    read = {"value": between(*points), "chord": on_chord(*points)}
    return read | {"steps": steps, "seconds": seconds, "rate": math.nan}


def _differences(scores: pd.DataFrame) -> dict[Key, Estimate]:
    """Each estimator less pathwise, paired by seed; at equal steps with as many samples."""
    found = {}
    values = scores.set_index([*KEYS, "seed"])[["value", "chord"]].sort_index()
    for budget, name, s in values.index.droplevel("seed").unique():
        other = (budget, REFERENCE, s if budget == "equal_steps" else 1)
        if (budget, name, s) != other and other in values.index.droplevel("seed"):
            pairs = values.loc[budget, name, s] - values.loc[other]
            pairs = pairs.replace([np.inf, -np.inf], np.nan).dropna()
            found[budget, name, s] = read_between(pairs.value, pairs.chord)
    return found


def _scattered(scores: pd.DataFrame) -> dict[Key, str]:
    """Estimators some of whose seeds diverge, or lie far apart and on one side of pathwise's."""
    found = {}
    for budget, here in scores.groupby("budget"):
        reference = here[(here.estimator == REFERENCE) & (here.S == 1)].value
        for (name, s), group in here.groupby(["estimator", "S"]):
            values = group.value[np.isfinite(group.value)]
            lost = len(reference) - len(values)
            apart = values.max() < reference.min() or values.min() > reference.max()
            if lost:
                found[budget, name, s] = f"diverges in {lost} of {len(reference)} seeds"
            elif apart and np.ptp(values) > SCATTER * np.ptp(reference):
                span = " to ".join(decimal(end, 0) for end in (values.min(), values.max()))
                side = "below" if values.max() < reference.min() else "above"
                found[budget, name, s] = (
                    f"scatters: its seeds' ELBOs range from {span}, all {side} pathwise's"
                )
    return found


def _lacking(rows: pd.DataFrame) -> dict[Key, Cell]:
    """Estimators that were left out, with the reason."""
    left_out = select(rows, metric="elbo").dropna(subset="reason")
    return {
        ("equal_steps", row.estimator, 0): Cell(reason=row.reason) for row in left_out.itertuples()
    }


# --- sentences -------------------------------------------------------------------------------


def _budget(scores: pd.DataFrame, budget: str) -> str:
    here = scores[(scores.budget == budget) & (scores.estimator == REFERENCE) & (scores.S == 1)]
    seeds = scores[scores.budget == budget].seed.nunique()
    count = f"{seeds} seed{'s' * (seeds > 1)}"
    if here.empty:
        return count
    what = f"{here.steps.max():,.0f} steps"
    if budget == "equal_time":
        what = f"the {here.seconds.median():.1f} s of {what} of pathwise"
    return f"{what}, {count}"


def _said(
    budget: str, found: Mapping[Key, Claim], spans: Mapping[Key, str], labels: Mapping[str, str]
) -> str:
    """How the estimators compare with pathwise, and which of them scatter or diverge."""
    mine = [replace(c, subject=_name(key, labels)) for key, c in found.items() if key[0] == budget]
    compared = sentence(mine, *WHERE.values(), sign=True)
    told = compared and f"the test ELBO, compared with {AGAINST[budget]}, in nats, is {compared}"
    return "; ".join(filter(None, [told, *_wild(budget, spans, labels)]))


def _wild(budget: str, spans: Mapping[Key, str], labels: Mapping[str, str]) -> list[str]:
    """Which estimators scatter or diverge."""
    return [f"`{_name(key, labels)}` {span}" for key, span in spans.items() if key[0] == budget]


def _answer(
    scores: pd.DataFrame,
    found: Mapping[Key, Claim],
    spans: Mapping[Key, str],
    labels: Mapping[str, str],
    epochs: str,
) -> str:
    """In short, at both budgets, the longest trainings' length first: which differ from pathwise
    and by how much, how many are undecided, and, told once, which scatter or diverge."""
    steps = scores[scores.budget == "equal_steps"].steps.max()
    parts: list[str] = []
    told: set[tuple[str, int]] = set()
    for budget, words in BUDGETS.items():
        mine = {_name(key, labels): claim for key, claim in found.items() if key[0] == budget}
        said = [
            f"{where} {_in_short(group, len(mine))}"
            for verdict, where in WHERE.items()
            if (group := {n: c for n, c in mine.items() if c.verdict == verdict})
        ]
        wild = {key[1:]: text for key, text in spans.items() if key[0] == budget}
        again = [f"`{_name((budget, *key), labels)}`" for key in wild if key in told]
        said += _wild(budget, {k: text for k, text in spans.items() if k[1:] not in told}, labels)
        said += [f"no verdict of {listing(again)} here either"] * bool(again)
        told |= set(wild)
        if said:
            parts.append(f"at {words}, against {AGAINST[budget]}, {'; '.join(said)}")
    lead = f"{title(VARIANT)}'s test ELBO after the last of {steps:,.0f} steps{epochs}, in nats"
    return f"{lead}: {'; '.join(parts)}" if parts else ""


def _epochs_said(results: Results, scores: pd.DataFrame) -> str:
    """How often the longest trainings saw an image, where that is known."""
    config = results.environment.get("config", {})
    images = results.environment.get("images", {}).get("train")
    if not images:
        return ""
    seen = scores.steps.max() * config.get("batch_size", Run.batch_size)
    return f" ({seen / (config.get('train_size') or images):.1f} epochs)"


def _in_short(group: Mapping[str, Claim], among: int) -> str:
    """Of one verdict: each by name, or of many how many, the nearest to pathwise and the farthest,
    of those undecided none."""
    near = sorted(group, key=lambda name: abs(group[name].difference.mean))
    each = [
        f"`{name}`" + f" ({group[name].spoken(sign=True)})" * group[name].decided for name in near
    ]
    if len(group) < MANY:
        return listing(each)
    decided = group[near[0]].decided
    return f"{len(group)} of the {among} compared" + f", from {each[0]} to {each[-1]}" * decided


def _name(key: Key, labels: Mapping[str, str]) -> str:
    return f"{labels[key[1]]} (S = {key[2]})"


def _spread_said(scores: pd.DataFrame, spans: Mapping[Key, str], labels: Mapping[str, str]) -> str:
    """Whose seeds, after equal steps, spread far more than pathwise's, on both of its sides."""
    here = scores[(scores.budget == "equal_steps") & np.isfinite(scores.value)]
    reference = here[(here.estimator == REFERENCE) & (here.S == 1)].value
    said = []
    for (name, s), values in here.groupby(["estimator", "S"]).value:
        wide = len(reference) > 1 and np.ptp(values) > WIDE * np.ptp(reference)
        if wide and ("equal_steps", name, s) not in spans:
            ends = " to ".join(decimal(end, 1) for end in (values.min(), values.max()))
            said.append(f"`{labels[name]} (S = {s})` ({ends})")
    if not said:
        return ""
    return f"The seeds of {listing(said)} spread more than {WIDE} times as widely as pathwise's."


def _elsewhere(rows: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """Whose trainings are all longer than the equal time, or all too short to be read at it."""
    final = _trainings(rows)
    until = _until(final)
    spans = _spans(final).join(final.groupby(TIMED).steps.agg(fewest="min", most="max"))
    aside = spans[(spans["min"] > until) | (spans["max"] < ENOUGH * until)]
    said = []
    for words, some in {
        "since their trainings end before": aside[aside["max"] < until],
        "since their trainings are all longer": aside[aside["min"] > until],
    }.items():
        named = [
            f"`{labels[name]} (S = {s})` ({_range(low, high, '.1f')} s, "
            f"{_range(fewest, most, ',.0f')} steps)"
            for (name, s), low, high, fewest, most in some.itertuples()
        ]
        if named:
            said.append(f"Not read at {until:.1f} s, {words}: {listing(named)}.")
    return " ".join(said)


def _range(low: float, high: float, form: str) -> str:
    return " to ".join(dict.fromkeys(f"{end:{form}}" for end in (low, high)))


def _timing_said(rows: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """How exact the equal time is, by one that differs from pathwise in its noise alone."""
    timed = select(rows, metric="step_seconds", S=1)
    each = timed.pivot_table(index="seed", columns="estimator", values="value", aggfunc="median")
    if not {SAME, REFERENCE} <= set(each.columns):
        return ""
    ratio = interval((each[SAME] / each[REFERENCE]).dropna())
    return (
        f"`{labels[SAME]}` with one sample differs from pathwise only in how its noise is drawn: "
        f"its step takes {spoken(ratio)} times as long, which shows what drawing it takes and the "
        "error of timing."
    )


# --- figure ----------------------------------------------------------------------------------


def _curves(rows: pd.DataFrame, labels: Mapping[str, str]) -> Figure | None:
    """Validation ELBO of the longest trainings, mean over seeds, against steps and seconds."""
    along = select(rows, metric="valid_elbo")
    along = along[along.steps == along.steps.max()]
    along = along[along.groupby("estimator").S.transform("min") == along.S]
    finite = along[np.isfinite(along.value)].join(_step_seconds(rows), on=TIMED)
    if finite.empty:
        return None
    by_step = finite.groupby(["estimator", "step"])
    elbo = by_step.value.agg(["mean", "min", "max"])
    below = elbo["max"].max() - elbo
    frame = below.rename(columns={"mean": "below", "min": "high", "max": "low"})
    frame = frame.assign(elbo=elbo["mean"], seconds=by_step.step_seconds.median()).reset_index()
    frame["seconds"] *= frame.step
    frame = frame.round(3)
    frame = frame.assign(estimator=frame.estimator.map(labels))
    # linear near the best and logarithmic far from it
    scale = alt.Scale(type="symlog", constant=1, reverse=True, nice=False, padding=8)
    fine = (0.2, 0.5, 2, 5) if frame.low.max() < 30 else ()
    ticks = [0, *fine, *(m * 10**k for k in range(7) for m in (1, 3))]
    up = alt.Y("below:Q", title="validation ELBO, nats below the best", scale=scale)
    up = up.axis(estimators.axis_at(sorted(ticks)))
    size = {"width": 400, "height": 380}
    until = _until(_trainings(rows))
    near = frame[~(frame.seconds > SHOWN * until)]
    timed = estimators.lines(near, ("seconds", "seconds taken"), up, labels, **size)
    charts = [
        estimators.lines(frame, ("step", "steps"), up, labels, **size),
        timed + line_at(until, "x") if math.isfinite(until) else timed,
    ]
    last = frame[frame.step == frame.groupby("estimator").step.transform("max")]
    chart = alt.hconcat(*charts).resolve_scale(y="shared")
    ends = estimators.ranking(last, "below")
    return captioned(
        __file__, "learning_curves_by_estimator", chart, ("estimator",), ends=ends, shown=SHOWN
    )
