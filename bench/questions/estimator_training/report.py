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
from bench.report.claims import Claim, claims, sentence
from bench.report.estimators import table
from bench.report.figure import Figure, curves
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, paragraphs, prose
from bench.report.style import title
from bench.report.table import Cell, Column, spoken
from bench.statistics import Estimate, paired_difference, summary

BUDGETS = {"equal_steps": "equal steps", "equal_time": "equal wall time"}
KEYS = ["budget", "estimator"]
REFERENCE = "pathwise"
Found = Mapping[str, list[Claim]]
"""Budget → how each estimator compares with pathwise."""


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
    takeaway = _takeaway(finite, elbo, found, labels)
    entries = {
        Column("S", 0): _means(final, "S"),
        Column("steps", 0): _means(final, "steps"),
        Column("test ELBO, nats", best="max"): elbo | _lacking(final, elbo),
        Column("difference to pathwise, nats", sign=True): differences,
        Column("verdict"): {claim.subject: claim.verdict for claim in compared},
        Column("seconds", 1): _means(select(rows, metric="training_seconds"), "value"),
    }
    printed = {"budget": BUDGETS, "estimator": labels}
    caption = f"Trainings of {title(VARIANT)} with each estimator."
    notes = prose(__file__, variant=title(VARIANT))
    return [
        Section(
            "Does the gradient's noise matter?",
            takeaway,
            _answer(found),
            [table("estimator_training", caption, printed, KEYS, entries, 1)],
            [_curves(rows, labels, takeaway)],
            paragraphs(notes, estimators.absences(rows, "estimator")),
        )
    ]


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


def _takeaway(rows: pd.DataFrame, elbo: Mapping, found: Found, labels: Mapping[str, str]) -> str:
    """Each budget's best and worst estimator, and how all compare with pathwise."""
    parts = []
    for budget, name in BUDGETS.items():
        mine = sorted((e.mean, n) for (its, n), e in elbo.items() if its == budget)
        if len(mine) < 2:
            continue
        low, high = (
            f"`{labels[n]}`, {spoken(elbo[budget, n])} nats" for _, n in (mine[0], mine[-1])
        )
        here = select(rows, budget=budget)
        steps = select(here, estimator=REFERENCE).steps.max()
        steps = "" if pd.isna(steps) else f"{steps} steps of pathwise, "
        seeds = here.seed.nunique()
        against = sentence(found[budget], "above pathwise:", "below pathwise:", "not told from it:")
        parts.append(
            f"At {name} ({steps}{seeds} seed{'s' * (seeds > 1)}) the mean test ELBO of "
            f"`{title(VARIANT)}` is highest with {high}, and lowest with {low}"
            f"{'; ' if against else ''}{against}."
        )
    return " ".join(parts) or "Too few estimators were trained to compare."


def _answer(found: Found) -> str:
    """The verdicts at equal steps, or else at equal wall time."""
    for budget, mine in found.items():
        decided = [claim for claim in mine if claim.decided]
        rest = len(mine) - len(decided)
        if decided:
            verdict = sentence(decided, "above pathwise, in nats:", "below pathwise, in nats:", "")
            more = f"; undecided: {rest} more" if rest else ""
            return f"yes; at {BUDGETS[budget]} {verdict}{more}"
        if mine:
            most = max(mine, key=lambda claim: claim.difference.mean)
            return (
                f"undecided at {BUDGETS[budget]}: none of {rest} is told from pathwise; the "
                f"highest is `{most.subject}`, by {spoken(most.difference, sign=True)} nats"
            )
    return ""


def _curves(rows: pd.DataFrame, labels: Mapping[str, str], takeaway: str) -> Figure | None:
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
    ticks = alt.Axis(values=[0, *(m * 10**k for k in range(7) for m in (1, 3))], format="d")
    up = alt.Y("below:Q", title="nats below the best", scale=scale, axis=ticks)
    colours, dash = estimators.looks(labels)
    charts = [
        curves(
            select(frame, budget=name), x, up, colours, dash=dash, width=400, height=380
        ).properties(title=name)
        for name, x in (
            (BUDGETS["equal_steps"], ("step", "steps")),
            (BUDGETS["equal_time"], ("seconds", "seconds of training")),
        )
    ]
    return Figure(
        "learning_curves_by_estimator",
        "Validation ELBO while training with each estimator",
        "Mean over seeds in nats below the best of all seeds, bars from the lowest to the highest "
        "seed; higher is better. The axis is linear down to 1 nat and logarithmic below, so that "
        "trainings that diverge stay in sight.",
        f"A line an estimator, against steps and against seconds. {takeaway}",
        alt.hconcat(*charts).resolve_scale(y="shared"),
        filters=("estimator",),
    )
