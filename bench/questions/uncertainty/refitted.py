"""The encoder's change of entropy beside that of the locally optimised posterior: whose it is."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.report.claims import grouped, signs
from bench.report.figure import Figure, by_variant, named, panels, tooltips
from bench.report.rows import select
from bench.report.section import captioned, prose
from bench.report.style import title
from bench.report.table import Column, Table
from bench.statistics import Estimate, interval, ratio_of_means

KEYS = ["variant", "trained_on", "posterior", "corruption"]
REFITTED = {
    "falls short": "fall short of the best posterior's",
    "exceeds": "exceed the best posterior's",
    "not told apart": "are not told from the best posterior's, which is told to move",
    "undecided": "are undecided",
}
FILTERS = ("corruption", "trained_on")


def origins(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a posterior, corruption and level of binary images: the encoder's change of entropy,
    that of the locally optimised posterior, their difference and ratio, and whose change it is."""
    names = {"encoder": "encoder", "refitted": "fitted", "difference": "fitted_minus_encoder"}
    metrics = {f"{name}_entropy_change": column for column, name in names.items()}
    mine = select(rows, metric=[*metrics]).assign(column=lambda frame: frame.metric.map(metrics))
    keys, found = [*KEYS, "level"], {}
    for key, seeds in mine.groupby(keys, sort=False):
        values = seeds.pivot_table("value", "seed", "column")
        if len(values) > 1:
            found |= {(key, column): interval(values[column]) for column in names}
            found[key, "ratio"] = ratio_of_means(values.encoder, values.refitted)
    told = signs({at: e for at, e in found.items() if at[1] in ("refitted", "difference")})
    lines = []
    for key in dict.fromkeys(key for key, _ in found):
        refitted, difference = told[key, "refitted"], told[key, "difference"]
        ratio = found[key, "ratio"] if refitted else Estimate()
        kind = origin(refitted, difference)
        lines.append((*key, *(found[key, column] for column in names), ratio, kind))
    return pd.DataFrame(lines, columns=[*keys, *names, "ratio", "origin"])


def origin(refitted: int, difference: int) -> str:
    """Whose change of entropy it is, one of `REFITTED`, by the signs that are told of the best
    posterior's change, and of that less the encoder's, which decides."""
    if difference:
        return "falls short" if difference > 0 else "exceeds"
    return "not told apart" if refitted else "undecided"


def table_of(table: pd.DataFrame) -> Table:
    """What `origins` gives, a line each."""
    names, changes = ["posterior", "corruption", "level"], ["encoder", "refitted", "difference"]
    lines = table[[*names, *changes, "ratio", "origin"]].to_numpy().tolist()
    columns = [*names, *(Column(name, 1, sign=True) for name in changes)]
    columns += [Column("encoder ÷ refitted"), "the encoder's"]
    caption = "Change of entropy from clean to corrupted images, nats, and whose it is."
    return Table("uncertainty_refitted", columns, lines, caption, variants=[*table.posterior])


def _counted(table: pd.DataFrame) -> str:
    """`3 fall short of …; 2 are undecided`."""
    counts = table.origin.value_counts()
    return "; ".join(f"{counts[kind]} {text}" for kind, text in REFITTED.items() if kind in counts)


def sentence(table: pd.DataFrame) -> str:
    """How the reference's changes compare with the best posterior's, trained on clean images."""
    mine = table[table.posterior == title(REFERENCE)]
    said = [(line.origin, f"{line.corruption} at {line.level:g}") for line in mine.itertuples()]
    phrases = {"falls short": "falls short of it with", "exceeds": "exceeds it with"}
    told = grouped(said, phrases)
    rest = sum(kind not in phrases for kind, _ in said)
    others = f"is not told from it in {rest} of {len(said)} changes" if rest else ""
    found = "; ".join(filter(None, [told, others]))
    return (
        f"Beside the change of the best posterior, that of `{title(REFERENCE)}` {found}."
        if found
        else ""
    )


def text(table: pd.DataFrame) -> str:
    """How the comparison was made; "" for none."""
    if table.empty:
        return ""
    return prose(__file__, "refitted", changes=len(table), counts=_counted(table))


def figure(table: pd.DataFrame) -> Figure | None:
    """Both changes of entropy against each other, a panel a corruption."""
    if table.empty:
        return None
    ends = {
        f"{name} {end}": [round(getattr(e, end), 3) for e in table[name]]
        for name in ("encoder", "refitted")
        for end in ("mean", "low", "high")
    }
    last = table.level == table.groupby("corruption")["level"].transform("max")
    columns = table[["variant", "trained_on", "corruption", "level", "origin"]]
    frame = named(columns.assign(strength=np.where(last, "strongest", "middle"), **ends))
    grid = alt.Axis(grid=True, tickCount=6)
    across = alt.X("encoder mean:Q", title="encoder's change of entropy (nats)", axis=grid)
    up = alt.Y("refitted mean:Q", title="the best posterior's (nats)", axis=grid)
    low, high = alt.datum(min(ends["encoder low"])), alt.datum(max(ends["encoder high"]))
    sizes = alt.Scale(domain=["middle", "strongest"], range=[30, 140])
    whole = alt.Chart(frame)
    base = whole.encode(color=by_variant(table.variant.unique()))
    chart = alt.layer(
        whole.mark_rule(color="#bbb").encode(x=low, y=low, x2=high, y2=high),
        base.mark_rule().encode(x=alt.X("encoder low:Q"), x2=alt.X2("encoder high"), y=up),
        base.mark_rule().encode(x=across, y=alt.Y("refitted low:Q"), y2=alt.Y2("refitted high")),
        base.mark_point(filled=True, opacity=1).encode(
            x=across,
            y=up,
            shape=alt.Shape("trained_on:N", title="trained on", sort=["clean"]),
            size=alt.Size("strength:N", title="level", scale=sizes),
            tooltip=tooltips(frame),
        ),
    )
    chart = chart.properties(width=240, height=240)
    facets = panels(chart, "corruption", table.corruption.unique())
    seen = {"changes": len(table), "counts": _counted(table)}
    return captioned(__file__, "uncertainty_refitted", facets, FILTERS, **seen)
