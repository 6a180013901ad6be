"""Does the gradient's noise matter? Training with each estimator."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE as VARIANT
from bench.report import estimators
from bench.report.claims import Claim, claims, grouped, sentence
from bench.report.estimators import table
from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, paragraphs, prose
from bench.report.style import title
from bench.report.table import Cell, Column, decimal
from bench.statistics import Estimate, paired_difference, summary

BUDGETS = {"equal_steps": "equal steps", "equal_time": "equal predicted time"}
KEYS = ["budget", "estimator"]
REFERENCE = "pathwise"
SIDES = ("above pathwise, in nats:", "below pathwise, in nats:")
OPEN = {
    "": "undecided against pathwise:",
    "below": "undecided, with every seed below pathwise's:",
    "above": "undecided, with every seed above pathwise's:",
}
Found = Mapping[str, list[Claim]]
"""Budget → how each estimator compares with pathwise."""
Sides = Mapping[tuple[str, str], str]
"""(budget, estimator) → the side of all of pathwise's seeds on which all of its lie."""


def sections(results: Results) -> list[Section]:
    """The section on training by estimator; [] where it was not measured."""
    rows = results.of("estimator_training")
    if rows.empty:
        return []
    labels = estimators.labels(rows.estimator.dropna())
    final = select(rows, metric="elbo")
    finite = final[np.isfinite(final.value)]
    elbo = summary(finite, KEYS)
    differences = {
        (budget, name): paired_difference(select(finite, budget=budget), name, REFERENCE, KEYS[1])
        for budget, name in itertools.product(BUDGETS, labels)
        if (budget, name) in elbo and name != REFERENCE
    }
    compared = claims(differences)
    found = {
        budget: [replace(c, subject=labels[c.subject[1]]) for c in compared if budget in c.subject]
        for budget in BUDGETS
    }
    sides, spans = _apart(final, labels)
    verdicts = {
        c.subject: c.verdict + spans.get((c.subject[0], labels[c.subject[1]]), "") for c in compared
    }
    entries = {
        Column("S", 0): _means(final, "S"),
        Column("steps", 0): _means(final, "steps"),
        Column("test ELBO, nats", best="max"): elbo | _lacking(final, elbo),
        Column("difference to pathwise, nats", sign=True): differences,
        Column("verdict (Holm)"): verdicts,
        Column("seconds taken", 1): _means(select(rows, metric="training_seconds"), "value"),
    }
    printed = {"budget": BUDGETS, "estimator": labels}
    caption = f"Trainings of {title(VARIANT)} with each estimator."
    tables = [table("estimator_training", caption, printed, KEYS, entries, 1)]
    notes = prose(__file__, variant=title(VARIANT)), estimators.absences(rows, "estimator")
    asked, takeaway = "Does the gradient's noise matter?", _takeaway(finite, found, sides)
    answer, figures = _answer(found, sides), [_curves(rows, labels)]
    return [Section(asked, takeaway, answer, tables, figures, paragraphs(*notes))]


def _means(rows: pd.DataFrame, column: str) -> dict[tuple, float]:
    return rows[rows.reason.isna()].groupby(KEYS)[column].mean().astype(float).to_dict()


def _lacking(final: pd.DataFrame, elbo: Mapping[tuple, Estimate]) -> dict[tuple, Cell]:
    """The test ELBO where a seed diverged or an estimator was left out, with the reason."""
    found = {}
    for row in final[~np.isfinite(final.value)].itertuples():
        left_out = not pd.isna(row.reason)
        why, seed = (row.reason, "") if left_out else ("diverged", f" (seed {row.seed} diverged)")
        for budget in BUDGETS if row.budget == "any" else [row.budget]:
            key = (budget, row.estimator)
            cell = found.get(key) or Cell.of(elbo.get(key, Cell(reason=why)))
            found[key] = replace(cell, text=cell.text + seed)
    return found


def _apart(final: pd.DataFrame, labels: Mapping[str, str]) -> tuple[Sides, dict]:
    """On which side of all of pathwise's seeds all of an estimator's lie, and that in words; of
    two seeds or more, all finite."""
    groups = final.groupby(KEYS).value
    ends = groups.agg(["min", "max"])[(groups.count() == groups.size()) & (groups.size() > 1)]
    sides, spans = {}, {}
    for (budget, name), (low, high) in ends.iterrows():
        reference = (budget, REFERENCE)
        least, most = ends.loc[reference] if reference in ends.index else (low, high)
        if high < least or low > most:
            key, side = (budget, labels[name]), "below" if high < least else "above"
            span = " to ".join(decimal(end, 2 if low > -1000 else 0) for end in (low, high))
            sides[key], spans[key] = side, f"; every seed {side} pathwise's ({span})"
    return sides, spans


def _takeaway(rows: pd.DataFrame, found: Found, sides: Sides) -> str:
    """How each budget's estimators compare with pathwise."""
    parts = []
    for budget, mine in found.items():
        if mine:
            here = select(rows, budget=budget)
            steps = select(here, estimator=REFERENCE).steps.max()
            steps = "" if pd.isna(steps) else f"{steps} steps of pathwise, "
            seeds = here.seed.nunique()
            decided = sentence([c for c in mine if c.decided], *SIDES, "")
            open_ = [(sides.get((budget, c.subject), ""), c) for c in mine if not c.decided]
            rest = grouped([(side, f"`{c.subject}`") for side, c in open_], OPEN)
            parts.append(
                f"At {BUDGETS[budget]} ({steps}{seeds} seed{'s' * (seeds > 1)}) the test ELBO is "
                f"{'; '.join(filter(None, [decided, rest]))}."
            )
    return " ".join(parts) or "Too few estimators were trained to compare."


def _answer(found: Found, sides: Sides) -> str:
    """The verdicts at equal steps, or else at equal predicted time."""
    for budget, mine in found.items():
        decided = [claim for claim in mine if claim.decided]
        open_ = [claim for claim in mine if not claim.decided]
        clear = sum((budget, claim.subject) in sides for claim in open_)
        more = f", {clear} of them with every seed on one side of pathwise's" if clear else ""
        if decided:
            verdict = sentence(decided, *SIDES, "")
            rest = f"; undecided: {len(open_)} more{more}" if open_ else ""
            return f"yes; at {BUDGETS[budget]} {verdict}{rest}"
        if mine:
            most = max(mine, key=lambda claim: claim.difference.mean)
            return (
                f"undecided at {BUDGETS[budget]} for all {len(mine)}{more}; the highest is "
                f"`{most.subject}`, by {most.spoken()} nats"
            )
    return ""


def _curves(rows: pd.DataFrame, labels: Mapping[str, str]) -> Figure | None:
    """Validation ELBO against steps and against seconds, mean over seeds."""
    along = select(rows, metric=["valid_elbo", "elapsed"])
    wide = along.pivot_table(index=[*KEYS, "step", "seed"], columns="metric", values="value")
    if not {"valid_elbo", "elapsed"} <= {*wide}:
        return None
    groups = wide[np.isfinite(wide.valid_elbo)].groupby([*KEYS, "step"])
    elbo = groups.valid_elbo.agg(["mean", "min", "max"])
    below = elbo["max"].max() - elbo
    frame = below.rename(columns={"mean": "below", "min": "high", "max": "low"})
    frame = frame.assign(elbo=elbo["mean"], seconds=groups.elapsed.mean()).round(3).reset_index()
    frame = frame.assign(estimator=frame.estimator.map(labels), budget=frame.budget.map(BUDGETS))
    # linear near the best and logarithmic far from it
    scale = alt.Scale(type="symlog", constant=1, reverse=True, nice=False, padding=8)
    fine = (0.2, 0.5, 2, 5) if frame.low.max() < 30 else ()
    ticks = [0, *fine, *(m * 10**k for k in range(7) for m in (1, 3))]
    up = alt.Y("below:Q", title="validation ELBO, nats below the best", scale=scale)
    up = up.axis(estimators.axis_at(sorted(ticks)))
    charts, seen = [], []
    for name, x in zip(BUDGETS.values(), (("step", "steps"), ("seconds", "seconds taken"))):
        here = select(frame, budget=name)
        size = {"ticks": here.step.unique() if x[0] == "step" else (), "width": 400, "height": 380}
        lacking = " · ".join(label for label in labels.values() if label not in {*here.estimator})
        head = name + f" (without {lacking})" * bool(lacking)
        charts.append(estimators.lines(here, x, up, labels, **size).properties(title=head))
        last = here[here.step == here.groupby("estimator").step.transform("max")]
        seen.append(f"{name}: {estimators.ranking(last, 'below')}")
    chart = alt.hconcat(*charts).resolve_scale(y="shared")
    ends = ". At ".join(seen)
    return captioned(__file__, "learning_curves_by_estimator", chart, ("estimator",), ends=ends)
