"""How a hyperparameter such as the fixed variance's s was chosen: every candidate."""

from __future__ import annotations

from dataclasses import replace

import altair as alt
import pandas as pd

from bench.report.figure import Figure, by_variant, curves, named
from bench.report.results import Results
from bench.report.rows import HYPERPARAMETER, hyperparameters, select
from bench.report.section import Section, captioned, item
from bench.report.style import title, words
from bench.report.table import Cell, Column, Table, decimal

COLUMNS = (
    Column("validation ELBO"),
    Column("lowest seed"),
    Column("highest seed"),
    Column("loss against the chosen"),
    Column("seeds", 0),
)


def sections(results: Results) -> list[Section]:
    """One section a variant that had hyperparameters to choose."""
    rows = results.of("tuning", "valid_elbo").dropna(subset="value")
    parts = [(v, select(rows, variant=v)) for v in results.variants(rows)]
    per = item(results)
    return [_section(variant, mine, per) for variant, mine in parts if hyperparameters(mine)]


def _section(variant: str, rows: pd.DataFrame, per: str) -> Section:
    names = hyperparameters(rows)
    groups = rows[["value"]].assign(
        **{name: rows[HYPERPARAMETER + name] for name in names}, chosen=rows.chosen.fillna(False)
    )
    groups = groups.groupby(names)
    tried = groups.value.agg(ELBO="mean", low="min", high="max", seeds="count")
    tried = tried.assign(chosen=groups.chosen.any()).reset_index()
    best = tried.sort_values(["chosen", "ELBO"]).iloc[-1]
    worst = tried.loc[tried.ELBO.idxmin()]
    at_edge = any(best[name] in (tried[name].min(), tried[name].max()) for name in names)
    best_text, worst_text = (
        ", ".join(f"{words(name)} {line[name]:g}" for name in names) for line in (best, worst)
    )
    takeaway = (
        f"`{title(variant)}`: {best_text} has the highest validation ELBO "
        f"({decimal(best.ELBO)} nats); {worst_text} would cost {best.ELBO - worst.ELBO:.1f} nats"
        f"{'; the best lies at the edge of the grid' if at_edge else ''}."
    )
    lines = [
        [
            *(f"{line[name]:g}" for name in names),
            Cell(line.ELBO, bold=place == best.name),
            *(line.low, line.high, best.ELBO - line.ELBO, line.seeds),
        ]
        for place, line in tried.iterrows()
    ]
    caption = f"Validation ELBO of every candidate, nats per {per}; the chosen one is bold"
    table = Table(f"{variant}_tuning", [*map(words, names), *COLUMNS], lines, caption)
    figures = [_figure(variant, names[0], tried, best, per)] if len(names) == 1 else []
    heading = f"How {title(variant)}'s {' and '.join(map(words, names))} was chosen"
    return Section(heading, takeaway, tables=[table], figures=figures)


def _figure(variant: str, name: str, tried: pd.DataFrame, best: pd.Series, per: str) -> Figure:
    frame, what = named(tried.assign(variant=variant)), f"{words(name)} of {title(variant)}"
    lines = curves(
        frame,
        (name, what),
        ("ELBO", f"validation ELBO (nats per {per})"),
        by_variant([variant]).legend(None),
        log="x" if (tried[name] > 0).all() else "",
        ticks=list(tried[name]),
    )
    ring = alt.Chart(frame.loc[[best.name]]).mark_point(size=350, strokeWidth=2, color="#888")
    chart = lines + ring.encode(x=f"{name}:Q", y="ELBO:Q")
    said = {"what": what, "words": words(name), "count": len(tried), "best": best[name]}
    said |= {"highest": decimal(best.ELBO), "lowest": decimal(tried.ELBO.min())}
    return replace(captioned(__file__, "tuning", chart, **said), name=f"{variant}_tuning")
