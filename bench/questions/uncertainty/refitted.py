"""The encoder's change of entropy beside that of the locally optimised posterior: whose it is."""

from __future__ import annotations

from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.report.claims import grouped, listing, signs
from bench.report.figure import Figure, by_variant, named, panels, tooltips
from bench.report.rows import select
from bench.report.section import captioned, prose
from bench.report.style import title
from bench.report.table import Column, Table, decimal, spoken
from bench.statistics import Estimate, interval, ratio_of_means

KEYS = ["variant", "trained_on", "posterior", "corruption"]
REFITTED = {
    "opposite": "of the opposite sign to the best posterior's",
    "below": "below the best posterior's",
    "above": "above the best posterior's",
    "difference undecided": "undecided against the best posterior's, which moves significantly",
    "undecided": "undecided, the best posterior's too",
}
FILTERS = ("corruption", "trained_on")


def origins(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a posterior, corruption and level of binary images: the encoder's change of entropy,
    that of the locally optimised posterior, their difference and ratio, and whose change it is."""
    names = {"encoder": "encoder", "refitted": "fitted", "difference": "fitted_minus_encoder"}
    metrics = {f"{name}_entropy_change": column for column, name in names.items()}
    mine = select(rows, metric=[*metrics]).assign(column=lambda frame: frame.metric.map(metrics))
    keys, found, images = [*KEYS, "level"], {}, {}
    for key, seeds in mine.groupby(keys, sort=False):
        values = seeds.pivot_table("value", "seed", "column")
        if len(values) > 1:
            found |= {(key, column): interval(values[column]) for column in names}
            found[key, "ratio"] = ratio_of_means(values.encoder, values.refitted)
            images[key] = seeds.n.min()
    told = signs({at: e for at, e in found.items() if at[1] != "ratio"})
    lines = []
    for key in dict.fromkeys(key for key, _ in found):
        encoder, refitted, difference = (told[key, name] for name in names)
        ratio = found[key, "ratio"] if refitted else Estimate()
        kind = origin(encoder, refitted, difference)
        lines.append((*key, *(found[key, column] for column in names), ratio, kind, images[key]))
    return pd.DataFrame(lines, columns=[*keys, *names, "ratio", "origin", "images"])


def origin(encoder: int, refitted: int, difference: int) -> str:
    """Whose change of entropy it is, one of `REFITTED`, by the significant signs: of both changes
    and of the best posterior's less the encoder's, which decides."""
    if difference:
        if encoder * refitted < 0:
            return "opposite"
        return "below" if difference > 0 else "above"
    return "difference undecided" if refitted else "undecided"


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
    phrases = {
        "opposite": "is of the opposite sign, both significant, with",
        "below": "is below it with",
        "above": "is above it with",
    }
    told = grouped(((line.origin, _sizes(line)) for line in mine.itertuples()), phrases)
    rest = mine[~mine.origin.isin([*phrases])]
    others = ""
    if len(rest):
        most = max(rest.itertuples(), key=lambda line: abs(line.difference.mean))
        apart = replace(most.difference, mean=abs(most.difference.mean))
        alone = sum(
            abs(line.difference.mean) > line.difference.half_width for line in rest.itertuples()
        )
        others = (
            f"is undecided against it in {len(rest)} of {len(mine)} changes (in {alone} of these "
            f"the difference's own interval excludes 0), of which the farthest is "
            f"{spoken(apart, 1)} nats from it ({most.corruption} at {most.level:g})"
        )
    found = "; ".join(filter(None, [told, others]))
    return (
        f"Beside the best posterior's change of entropy, found for {mine.images.min()} of each "
        f"seed's images, that of `{title(REFERENCE)}` {found}."
        if found
        else ""
    )


def answer(table: pd.DataFrame) -> str:
    """Where the reference's change is of the opposite sign to the best posterior's; "" nowhere."""
    mine = table[(table.posterior == title(REFERENCE)) & (table.origin == "opposite")]
    said = listing(_sizes(line) for line in mine.itertuples())
    return f"its change is of the opposite sign to the best posterior's with {said}" if said else ""


def _sizes(line: tuple) -> str:
    """`salt at 0.4 (−1.2 against the best's +0.3 nats, 1.5 ± 0.4 apart)`."""
    encoder, best = (decimal(e.mean, 1, "+") for e in (line.encoder, line.refitted))
    apart = spoken(replace(line.difference, mean=abs(line.difference.mean)), 1)
    both = f"{encoder} against the best's {best} nats"
    return f"{line.corruption} at {line.level:g} ({both}, {apart} apart)"


def text(table: pd.DataFrame) -> str:
    """How the comparison was made; "" for none."""
    if table.empty:
        return ""
    sizes = {"changes": len(table), "family": 3 * len(table), "images": table.images.min()}
    return prose(__file__, "refitted", counts=_counted(table), **sizes)


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
    each = pd.DataFrame(ends).groupby(table.corruption.to_numpy())
    ends |= {
        "lowest": each[["encoder low", "refitted low"]].transform("min").min(axis=1),
        "highest": each[["encoder high", "refitted high"]].transform("max").max(axis=1),
    }
    columns = table[["variant", "trained_on", "corruption", "level", "origin"]]
    frame = named(columns.assign(strength=np.where(last, "strongest", "middle"), **ends))
    grid = alt.Axis(grid=True, tickCount=6)
    across = alt.X("encoder mean:Q", title="encoder's change of entropy (nats)", axis=grid)
    up = alt.Y("refitted mean:Q", title="the best posterior's (nats)", axis=grid)
    sizes = alt.Scale(domain=["middle", "strongest"], range=[30, 140])
    whole = alt.Chart(frame)
    base = whole.encode(color=by_variant(table.variant.unique()))
    chart = alt.layer(
        whole.mark_rule(color="#bbb").encode(
            x="lowest:Q", y="lowest:Q", x2="highest:Q", y2="highest:Q"
        ),
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
    facets = facets.resolve_scale(x="independent", y="independent")
    seen = {"changes": len(table), "counts": _counted(table)}
    return captioned(__file__, "uncertainty_refitted", facets, FILTERS, **seen)
