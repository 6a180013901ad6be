"""How learning rates, and hyperparameters such as the fixed variance's s, were chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import altair as alt
import pandas as pd

from bench.report.figure import Figure, by_variant, curves, named
from bench.report.results import Results
from bench.report.rows import HYPERPARAMETER, hyperparameters, select
from bench.report.section import Section, captioned, item, prose
from bench.report.style import title, words
from bench.report.table import Cell, Column, Table, decimal

BOUNDS = {"valid_elbo": "validation ELBO", "valid_objective": "validation objective"}
"""What is higher for the better candidate; an autoencoder's cross-entropy is lower."""
RANGE = (Column("lowest seed"), Column("highest seed"))
COLUMNS = (Column("loss against the chosen"), Column("seeds", 0))


def sections(results: Results) -> list[Section]:
    """One section on learning rates, and one a variant that had hyperparameters to choose."""
    rows = results.of("tuning")
    rows = rows[rows.steps.isna()]  # trainings of so many steps are those of an estimator
    per = item(results)
    found = [_rates(results, rows, per)] if rows.learning_rate.notna().any() else []
    bounds = select(rows, metric=[*BOUNDS]).dropna(subset="value")
    for variant in results.variants(bounds):
        mine = _of_the_longest(select(bounds, variant=variant))
        if hyperparameters(mine):
            found.append(_section(variant, mine, per))
    return found


def _of_the_longest(rows: pd.DataFrame) -> pd.DataFrame:
    """Candidates of the longest training that differ from the chosen in hyperparameters alone."""
    rows = rows[rows.epochs.isna() | rows.epochs.eq(rows.epochs.max()).fillna(False)]
    rates = rows[rows.chosen.fillna(False)].learning_rate.dropna().unique()
    return rows[rows.learning_rate.isin(rates)] if len(rates) else rows


def _range(rates: Sequence[float]) -> str:
    """Ascending learning rates, as one says them."""
    if len(rates) == 1:
        return f"a learning rate of {rates[0]:g} for all"
    return f"learning rates from {rates[0]:g} to {rates[-1]:g}"


def _rates(results: Results, rows: pd.DataFrame, per: str) -> Section:
    """A line a variant and length: what was chosen, and what its neighbours would cost."""
    columns = [
        "variant",
        Column("epochs", 0),
        Column("learning rate", exact=True),
        "hyperparameters",
    ]
    columns += [Column("validation score"), Column("nats lost at half the rate")]
    columns += [Column("nats lost at twice the rate"), Column("candidates", 0), Column("seeds", 0)]
    lines, edges = [], []
    for variant in results.variants(rows):
        for epochs, group in select(rows, variant=variant).groupby("epochs"):
            line = _chosen(group)
            if line is not None:
                lines.append([title(variant), epochs, *line])
                if group.metric.isin(BOUNDS).all():  # an autoencoder's cross-entropy is another
                    edges += [(epochs, loss) for loss in line[3:5] if loss == loss]
    caption = (
        f"The chosen learning rate of every length of training; nats per {per}, higher is better "
        "(an autoencoder's score is minus its cross-entropy)"
    )
    names = [line[0] for line in lines]
    table = Table("learning_rates", columns, lines, caption, variants=names)
    rates = sorted({line[2] for line in lines})
    lost = ", where it does not diverge" if rows.reason.notna().any() else ""
    takeaway = ""
    if edges:
        # of the longest alone: the largest of all lengths is some short training's
        longest, _ = max(edges)
        costs = [loss for epochs, loss in edges if epochs == longest]
        takeaway = (
            f"The choice on validation data, for each variant and length, gave {_range(rates)}; "
            f"for the variants with an ELBO, half or twice the rate at {longest} epochs would cost "
            f"{decimal(min(costs))} to {decimal(max(costs))} nats of validation ELBO{lost}."
        )
    notes = prose(__file__)
    return Section("How the learning rates were chosen", takeaway, tables=[table], notes=notes)


def _chosen(group: pd.DataFrame) -> list | None:
    """Rate, hyperparameters, score, losses beside it, candidates and seeds of one contest."""
    higher = group.metric.isin(BOUNDS).map({True: 1.0, False: -1.0})
    names = hyperparameters(group)
    keys = ["learning_rate", *(HYPERPARAMETER + name for name in names)]
    scored = group.assign(score=group.value * higher, chosen=group.chosen.fillna(False))
    each = scored.groupby(keys).agg(
        score=("score", lambda values: values.mean(skipna=False)),
        chosen=("chosen", "any"),
        seeds=("seed", "nunique"),
    )
    best = each[each.chosen].reset_index()
    if best.empty:
        return None
    (best,) = best.itertuples(index=False)
    scores = each.score.to_dict()
    at = tuple(best[1 : len(keys)])

    def loss(factor: float) -> float:
        rate = next((r for r in each.index.unique(0) if math.isclose(r, best[0] * factor)), None)
        score = scores.get((rate, *at) if at else rate, math.nan)
        return best.score - score

    said = ", ".join(f"{words(name)} {value:g}" for name, value in zip(names, at, strict=True))
    return [best[0], said, best.score, loss(0.5), loss(2), len(each), best.seeds]


def _section(variant: str, rows: pd.DataFrame, per: str) -> Section:
    names, bound = hyperparameters(rows), BOUNDS[rows.metric.iloc[0]]
    groups = rows[["value"]].assign(
        **{name: rows[HYPERPARAMETER + name] for name in names}, chosen=rows.chosen.fillna(False)
    )
    groups = groups.groupby(names)
    tried = groups.value.agg(ELBO="mean", low="min", high="max", seeds="count")
    tried = tried.assign(chosen=groups.chosen.any()).reset_index()
    best = tried.sort_values(["chosen", "ELBO"]).iloc[-1]
    of_seeds = tried.seeds.max() > 1
    lines = [
        [
            *(f"{line[name]:g}" for name in names),
            Cell(line.ELBO, bold=place == best.name),
            *((line.low, line.high) if of_seeds else ()),
            *(best.ELBO - line.ELBO, line.seeds),
        ]
        for place, line in tried.iterrows()
    ]
    caption = (
        f"V{bound[1:]} of every candidate at a chosen learning rate, nats per {per}; "
        "the chosen one is bold"
    )
    columns = [*map(words, names), Column(bound), *(RANGE if of_seeds else ()), *COLUMNS]
    table = Table(f"{variant}_tuning", columns, lines, caption)
    figures = [_figure(variant, names[0], tried, best, per, bound)] if len(names) == 1 else []
    heading = f"How {title(variant)}'s {' and '.join(map(words, names))} was chosen"
    takeaway = f"`{title(variant)}`: {_what_others_cost(tried, best, names, bound)}."
    return Section(heading, takeaway, tables=[table], figures=figures)


def _what_others_cost(tried: pd.DataFrame, best: pd.Series, names: list[str], bound: str) -> str:
    others = tried.drop(best.name).dropna(subset="ELBO").sort_values("ELBO", ascending=False)
    at_edge = any(best[name] in (tried[name].min(), tried[name].max()) for name in names)

    def said(line: pd.Series) -> str:
        return ", ".join(f"{words(name)} {line[name]:g}" for name in names)

    text = f"{said(best)} has the highest {bound} ({decimal(best.ELBO)} nats)"
    if len(others):
        nearest, worst = others.iloc[0], others.iloc[-1]
        text += f"; {said(worst)} would cost {best.ELBO - worst.ELBO:.1f} nats"
        if len(others) > 1:
            text += f", and {said(nearest)}, the next best, {decimal(best.ELBO - nearest.ELBO)}"
    return text + ("; the best lies at the edge of the grid" if at_edge else "")


def _figure(
    variant: str, name: str, tried: pd.DataFrame, best: pd.Series, per: str, bound: str
) -> Figure:
    frame, what = named(tried.assign(variant=variant)), f"{words(name)} of {title(variant)}"
    lines = curves(
        frame,
        (name, what),
        ("ELBO", f"{bound} (nats per {per})"),
        by_variant([variant]).legend(None),
        log="x" if (tried[name] > 0).all() else "",
        ticks=list(tried[name]),
    )
    ring = alt.Chart(frame.loc[[best.name]]).mark_point(size=350, strokeWidth=2, color="#888")
    chart = lines + ring.encode(x=f"{name}:Q", y="ELBO:Q")
    said = {
        "bound": bound,
        "title": f"V{bound[1:]}",
        "what": what,
        "words": words(name),
        "count": len(tried),
        "best": best[name],
    }
    said["seeds"] = (
        "Means over seeds, bars from the lowest to the highest"
        if tried.seeds.max() > 1
        else "Of one seed"
    )
    said |= {"highest": decimal(best.ELBO), "lowest": decimal(tried.ELBO.min())}
    return replace(captioned(__file__, "tuning", chart, **said), name=f"{variant}_tuning")
