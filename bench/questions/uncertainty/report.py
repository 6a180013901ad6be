"""Does noise raise the encoder's uncertainty? Verdicts by corruption, and what moves it."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.data.corruptions import CORRUPTIONS, LABELS
from bench.report.claims import grouped, listing, signs, weakest
from bench.report.estimators import estimates
from bench.report.figure import Figure, as_frame, by_variant, curves, named, panels, tooltips
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, paragraphs, prose
from bench.report.style import ordered, title, words
from bench.report.table import Cell, Column, Table, decimal
from bench.statistics import Estimate, from_error, summary

KEYS = ["variant", "trained_on", "posterior", "corruption"]
KINDS = {
    "rises": "entropy rises with",
    "falls": "falls with",
    "turns": "turns (falls, then rises, or the reverse) with",
    "undecided": "undecided with",
    "flat": "flat with",
}
TURN = 0.1
"""Nats; a mean entropy nearer to the clean one is on neither side of it."""
MEANS = ["spearman", "spearman_low", "spearman_high", "rises", "change"]
HELD = {
    "entropy": Column("entropy", interval=False),
    "log_scale": Column("mean log σ", interval=False),
    "rate": Column("rate", interval=False),
    "iw_bound": Column("IW bound", interval=False),
}
REFITTED = {
    "model": "are the model's (refitting moves the entropy the same way)",
    "encoder": "are the encoder's alone (refitting takes them back)",
    "missed": "are missed by the encoder (only refitting moves the entropy)",
    "undecided": "are undecided",
}
DRAWN = {"entropy": ("uncertainty", "entropy (nats)"), "log_scale": ("sigma_by_level", "log σ")}
"""Metric → figure and axis."""
FILTERS = ("corruption", "trained_on")


def sections(results: Results) -> list[Section]:
    """One section; [] where uncertainty was not measured."""
    rows = results.of("uncertainty")
    if "entropy_spearman" not in set(rows.metric):
        return []
    rows = printed(rows)
    table, refitted = verdicts(rows), origins(rows)
    levels = [f"- *{c.label}*: {c.corrupt.__doc__}" for c in CORRUPTIONS.values()]
    others = "- *other images*: Each pixel is taken from {} with probability `level`."
    levels += [others.format(words(source)) for source in rows.source.dropna().unique()]
    asked, takeaway = "Does noise raise the encoder's uncertainty?", takeaway_of(table)
    tables = [_table(table), _refitted_table(refitted), _levels_table(rows)]
    figures = [*(_levels_figure(rows, metric) for metric in DRAWN), _refitted_figure(refitted)]
    notes = paragraphs(prose(__file__, turn=TURN), "\n".join(levels), _refitted_text(refitted))
    return [Section(asked, *takeaway, tables, figures, notes)]


def printed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by variant, what it was trained on (clean images first) and corruption, in words.

    Added columns: `posterior`, `input-dependent + bit flips` where it was trained with noise;
    `change`, of the value from that of clean images in the same seed.
    """
    place = {name: i for i, name in enumerate([*ordered(rows.variant), "clean", *LABELS])}
    rows = rows.sort_values(
        ["variant", "trained_on", "corruption", "level"],
        kind="stable",
        key=lambda c: c if c.name == "level" else c.map(place),
    )
    for column in ("trained_on", "corruption"):
        rows[column] = [LABELS.get(name, words(name)) for name in rows[column]]
    noise = (" + " + rows.trained_on).replace(" + clean", "")
    rows = rows.assign(posterior=rows.variant.map(title) + noise)
    clean = rows.value.where(rows.corruption == "none")
    same = [rows.posterior, rows.metric, rows.seed]
    return rows.assign(change=rows.value - clean.groupby(same).transform("first"))


# --- verdicts ------------------------------------------------------------------------------


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a posterior and corruption: the computed verdict, and means over seeds."""
    keys = [*KEYS, "seed"]
    of = {metric: mine.set_index(keys).value for metric, mine in rows.groupby("metric")}
    seeds = {m.removeprefix("entropy_"): v for m, v in of.items() if m.startswith("entropy_")}
    images = select(rows, metric="entropy_spearman").set_index(keys).n.astype(int)
    groups = [*pd.DataFrame(seeds | {"images": images}).groupby(KEYS, sort=False)]
    told = signs({(key, what): e for key, mine in groups for what, e in tested(mine).items()})
    changes = select(rows, metric="entropy").pivot_table("change", keys, "level")
    lines = []
    for key, mine in groups:
        found = (told.get((key, what), 0) for what in ("ρ", "share"))
        kind = verdict(*found, changes.reindex(mine.index), flat=mine.flat.min() == 1)
        lines.append((*key, kind, *mine[MEANS].mean(), mine.largest_change.max()))
    return pd.DataFrame(lines, columns=[*KEYS, "verdict", *MEANS, "largest_change"])


def tested(seeds: pd.DataFrame) -> dict[str, Estimate]:
    """ρ, and the share of images that rise less one half, of the seed that shows it least."""
    rho = [
        Estimate(line.spearman, (line.spearman_high - line.spearman_low) / 2, line.images)
        for line in seeds.itertuples()
    ]
    error = 0.5 / np.sqrt(seeds.images)  # a binomial's, where the share is one half
    share = map(from_error, seeds.rises - 0.5, error, seeds.images)
    return {"ρ": weakest(rho), "share": weakest(share)}


def verdict(rho: int, share: int, changes: pd.DataFrame, flat: bool) -> str:
    """What the entropy does, one of `KINDS`, from the signs that hold for every seed.

    It `turns` where that of ρ is contradicted by that of the share of images or, in all seeds, by
    the mean change at a level.
    """
    if flat:
        return "flat"
    if rho and (share == -rho or (rho * changes <= -TURN).all().any()):
        return "turns"
    if share != rho or not rho:
        return "undecided"
    return "rises" if rho > 0 else "falls"


def takeaway_of(table: pd.DataFrame) -> tuple[str, str]:
    """What the reference's entropy does (or the first posterior's that moves), and of the others
    with how many corruptions it rises. Also the answer in a few words.
    """
    still = table.groupby("posterior").verdict.transform(lambda v: (v == "flat").all())
    moving = dict([*table[~still].groupby("posterior", sort=False)])
    counts = {n: f"{(m.verdict == 'rises').sum()} of {len(m)}" for n, m in moving.items()}
    sentences, answer = [], "no, flat by construction"
    if moving:
        name = title(REFERENCE) if title(REFERENCE) in moving else next(iter(moving))
        said = [(line.verdict, line.corruption + _rho(line)) for line in moving[name].itertuples()]
        rising, count = [text for kind, text in said if kind == "rises"], counts.pop(name)
        short = {0: "no", len(said): "yes"}.get(len(rising), "sometimes")
        sentences.append(f"`{name}`: **{short}**; {grouped(said, KINDS)}.")
        answer = f"{short}, {name}'s rises with {count} corruptions"
        answer += f": {listing(rising)}" if rising else ""
    if counts:
        others = listing(f"{count} for `{name}`" for name, count in counts.items())
        sentences.append(f"It rises with {others}.")
    if still.any():
        names = listing(f"`{name}`" for name in table[still].posterior.unique())
        most = table[still].largest_change.max()
        moves = f"moves by more than {most:.1g} nats" if most else "moves"
        sentences.append(f"{names}: **flat** by construction, no image's entropy {moves}.")
    return " ".join(sentences), answer


def _rho(line: tuple) -> str:
    """ρ with its interval where the entropy rises."""
    mean, *ends = map(decimal, (line.spearman, line.spearman_low, line.spearman_high))
    return f" (ρ {mean} [{', '.join(ends)}])" if line.verdict == "rises" else ""


def _table(table: pd.DataFrame) -> Table:
    columns = ["posterior", "corruption", "entropy", "ρ", "ρ, low", "ρ, high"]
    columns += [Column("higher, %", 0), Column("change, nats", sign=True)]
    marked = [Cell(text=verdict, bold=verdict == "rises") for verdict in table.verdict]
    shown = table.assign(verdict=marked, rises=100 * table.rises)
    lines = shown[["posterior", "corruption", "verdict", *MEANS]].to_numpy().tolist()
    caption = "What corruption does to the posterior's entropy."
    return Table("uncertainty", columns, lines, caption, variants=[*table.posterior])


# --- the encoder beside the locally optimised posterior --------------------------------------


def origins(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a posterior, corruption and level of the first seed: the encoder's change of
    entropy, that of the locally optimised posterior, their difference, and where it comes from."""
    names = {"encoder": "encoder", "refitted": "fitted", "difference": "fitted_minus_encoder"}
    keys, found = [*KEYS, "level"], {}
    for column, name in names.items():
        here = select(rows, metric=f"{name}_entropy_change", seed=0)
        found |= {(*key, column): e for key, e in estimates(here, *keys).items()}
    told = signs(found)
    lines = []
    for key in dict.fromkeys(key[:-1] for key in found):
        kind = origin(*(told.get((*key, column), 0) for column in names))
        lines.append((*key, *(found.get((*key, column), Estimate()) for column in names), kind))
    return pd.DataFrame(lines, columns=[*keys, *names, "origin"])


def origin(encoder: int, refitted: int, difference: int) -> str:
    """Where a change of entropy comes from, by the signs that are told of it.

    `model` where the best posterior moves as the encoder's does, `encoder` where refitting takes
    the encoder's move back, `missed` where it moves what the encoder did not.
    """
    if encoder and encoder == refitted:
        return "model"
    if encoder and difference == -encoder:
        return "encoder"
    return "missed" if refitted and difference == refitted else "undecided"


def _refitted_table(table: pd.DataFrame) -> Table:
    names, changes = ["posterior", "corruption", "level"], ["encoder", "refitted", "difference"]
    lines = table[[*names, *changes, "origin"]].to_numpy().tolist()
    columns = [*names, *(Column(name, 1, sign=True) for name in changes), "origin of the change"]
    caption = "Change of entropy from clean to corrupted images, nats, and where it comes from."
    return Table("uncertainty_refitted", columns, lines, caption, variants=[*table.posterior])


def _refitted_text(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    counts = table.origin.value_counts()
    parts = [f"{counts[kind]} {text}" for kind, text in REFITTED.items() if kind in counts]
    images = table.encoder.iloc[0].n
    return prose(__file__, "refitted", changes=len(table), counts=", ".join(parts), images=images)


def _refitted_figure(table: pd.DataFrame) -> Figure | None:
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
    counts = dict.fromkeys(REFITTED, 0) | dict(table.origin.value_counts())
    return captioned(
        __file__, "uncertainty_refitted", facets, FILTERS, changes=len(table), **counts
    )


# --- all levels ------------------------------------------------------------------------------


def _levels_table(rows: pd.DataFrame) -> Table:
    """Every metric at every level."""
    settings = ["posterior", "corruption", "level"]
    found = summary(select(rows, metric=[*HELD]), [*settings, "metric"])
    caption = "The posterior at every level of corruption: means over seeds, nats per image."
    return Table.of_settings("uncertainty_levels", settings, HELD, found, caption)


def _levels_figure(rows: pd.DataFrame, metric: str) -> Figure | None:
    """A panel a corruption: a metric's change from clean images against the level."""
    name, axis = DRAWN[metric]
    moved = select(rows[rows.corruption != "none"], metric=metric).dropna(subset="change")
    still = moved.groupby("variant").change.transform(lambda change: change.abs().max() == 0)
    if still.all():
        return None
    left_out = listing(title(variant) for variant in moved[still].variant.unique())
    keys = ["variant", "trained_on", "corruption", "level"]
    moved = moved[~still].assign(value=moved.change)
    found = as_frame(summary(moved, keys), *keys).round(3)
    start = found[keys[:-1]].drop_duplicates().assign(level=0.0, value=0.0)
    frame = pd.concat([start, found])
    chart = curves(
        frame,
        ("level", "level"),
        ("value", f"change of {axis}"),
        dash=alt.StrokeDash("trained_on:N", title="trained on", sort=["clean"]),
        width=250,
        height=190,
    )
    ends = found.groupby("corruption", sort=False).value.agg(["min", "max"]).itertuples()
    ranges = [f"{decimal(low, 1)} to {decimal(high, 1)} with {c}" for c, low, high in ends]
    stay = f", where {left_out} stay and are not drawn" if left_out else ""
    facets = panels(chart, "corruption", frame.corruption.unique()).resolve_scale(x="independent")
    seen = {"axis": axis, "ranges": listing(ranges), "stay": stay}
    return captioned(__file__, name, facets, FILTERS, **seen)
