"""Does noise raise the encoder's uncertainty? Verdicts by corruption, and what moves it."""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.data.corruptions import CORRUPTIONS, LABELS
from bench.report.claims import listing
from bench.report.figure import Figure, as_frame, by_variant, curves, named, panels, tooltips
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, paragraphs, prose
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
HELD = {"entropy": "entropy", "log_scale": "mean log σ", "rate": "rate", "iw_bound": "IW bound"}
REFITTED = {
    "model": "are the model's (refitting moves the entropy the same way)",
    "encoder": "the encoder's alone (refitting leaves it or moves it the other way)",
    "missed": "are missed by the encoder (only refitting moves it)",
    "none": "are within the interval of no change",
}
DRAWN = {
    "entropy": ("uncertainty", "posterior entropy", "entropy (nats)"),
    "log_scale": ("sigma_by_level", "log σ, mean over the active units,", "log σ"),
}


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
    return [
        Section(
            "Does noise raise the encoder's uncertainty?",
            *takeaway_of(table),
            [_table(table), _refitted_table(refitted), _levels_table(rows)],
            [*(_levels_figure(rows, metric) for metric in DRAWN), _refitted_figure(refitted)],
            paragraphs(prose(__file__, turn=TURN), "\n".join(levels), _refitted_text(refitted)),
        )
    ]


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
    keys, lines = [*KEYS, "seed"], []
    of = {metric: mine.set_index(keys).value for metric, mine in rows.groupby("metric")}
    seeds = {m.removeprefix("entropy_"): v for m, v in of.items() if m.startswith("entropy_")}
    changes = select(rows, metric="entropy").pivot_table("change", keys, "level")
    for key, mine in pd.DataFrame(seeds).groupby(KEYS, sort=False):
        ends, flat = (mine.spearman_low, mine.spearman_high), mine.flat.min() == 1
        found = verdict(*ends, mine.rises, changes.reindex(mine.index), flat)
        lines.append((*key, found, *mine[MEANS].mean(), mine.largest_change.max()))
    return pd.DataFrame(lines, columns=[*KEYS, "verdict", *MEANS, "largest_change"])


def verdict(
    low: pd.Series, high: pd.Series, rises: pd.Series, changes: pd.DataFrame, flat: bool
) -> str:
    """What the entropy does where the seeds agree: one of `KINDS`.

    It `turns` where ρ, the share of images and the mean changes at the levels contradict.
    """
    if flat:
        return "flat"
    if low.min() > 0:
        dips = (changes <= -TURN).all().any()
        return "rises" if rises.min() > 0.5 and not dips else "turns"
    if high.max() < 0:
        climbs = (changes >= TURN).all().any()
        return "falls" if rises.max() < 0.5 and not climbs else "turns"
    return "undecided"


def takeaway_of(table: pd.DataFrame) -> tuple[str, str]:
    """What the reference's entropy does (or the first posterior's that moves), and of the others
    with how many corruptions it rises. Also the answer in a few words.
    """
    rho = table[["spearman", "spearman_low", "spearman_high"]].map(decimal).to_numpy()
    intervals = [f" (ρ {mean} [{low}, {high}])" for mean, low, high in rho]
    detailed = (table.corruption + intervals).where(table.verdict == "rises", table.corruption)
    still = table.groupby("posterior").verdict.transform(lambda v: (v == "flat").all())
    moving = dict([*table.assign(detailed=detailed)[~still].groupby("posterior", sort=False)])
    sentences, answer = [], "no, flat by construction"
    counts = {n: f"{(m.verdict == 'rises').sum()} of {len(m)}" for n, m in moving.items()}
    if moving:
        name = title(REFERENCE) if title(REFERENCE) in moving else next(iter(moving))
        by_kind = dict([*moving[name].groupby("verdict").detailed])
        rising, count = by_kind.get("rises", ()), counts.pop(name)
        verdict = {0: "no", len(moving[name]): "yes"}.get(len(rising), "sometimes")
        parts = [f"{KINDS[k]} {listing(by_kind[k])}" for k in KINDS if k in by_kind]
        sentences.append(f"`{name}`: **{verdict}**; {'; '.join(parts)}.")
        answer = f"{verdict}, {name}'s rises with {count} corruptions"
        answer += f": {listing(rising)}" if len(rising) else ""
    others = [f"{count} for `{name}`" for name, count in counts.items()]
    if others:
        sentences.append(f"It rises with {listing(others)}.")
    if still.any():
        names = listing([f"`{name}`" for name in table[still].posterior.unique()])
        most = table[still].largest_change.max()
        moves = f"moves by more than {most:.1g} nats" if most else "moves"
        sentences.append(f"{names}: **flat** by construction, no image's entropy {moves}.")
    return " ".join(sentences), answer


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
    """One line a posterior, corruption and level: the encoder's change of entropy, that of the
    locally optimised posterior, their difference, and where the change comes from.

    Half-widths are over images, which the seeds share: they do not shrink with more seeds.
    """
    names = [f"{name}_entropy_change" for name in ("encoder", "fitted", "fitted_minus_encoder")]
    lines = []
    for key, mine in rows[rows.metric.isin(names)].groupby([*KEYS, "level"], sort=False):
        found = [over_images(mine[mine.metric == name]) for name in names]
        lines.append((*key, *found, origin(*found[:2]), int(mine.n.max()), mine.seed.nunique()))
    columns = [*KEYS, "level", "encoder", "refitted", "difference", "origin", "images", "seeds"]
    return pd.DataFrame(lines, columns=columns)


def over_images(rows: pd.DataFrame) -> Estimate:
    """Seeds' means of the same images, with the interval of one of them."""
    error = math.sqrt((rows.standard_error**2).mean())
    return from_error(rows.value.mean(), error, int(rows.n.min()))


def origin(encoder: Estimate, refitted: Estimate) -> str:
    """Where a change of entropy comes from, by 95 % intervals.

    `model` where the best posterior moves as the encoder's does, `encoder` where it does not,
    `missed` where it alone moves, `none` where neither does.
    """
    signs = [int(e.low > 0) - int(e.high < 0) for e in (encoder, refitted)]
    if signs[0] == signs[1]:
        return "model" if signs[0] else "none"
    return "encoder" if signs[0] else "missed"


def _refitted_text(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    counts = table.origin.value_counts()
    parts = [f"{counts[kind]} {text}" for kind, text in REFITTED.items() if kind in counts]
    known = {"images": table.images.max(), "seeds": table.seeds.max()}
    return prose(__file__, "refitted", changes=len(table), counts=", ".join(parts), **known)


def _refitted_table(table: pd.DataFrame) -> Table:
    names, changes = ["posterior", "corruption", "level"], ["encoder", "refitted", "difference"]
    lines = table[[*names, *changes, "origin"]].to_numpy().tolist()
    columns = [*names, *(Column(name, 1, sign=True) for name in changes), "origin of the change"]
    caption = "Change of entropy from clean to corrupted images, nats, and where it comes from."
    return Table("uncertainty_refitted", columns, lines, caption, variants=[*table.posterior])


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
    counts = table.origin.value_counts()
    return Figure(
        "uncertainty_refitted",
        "The encoder's change of entropy beside the best posterior's",
        "A point each level, with 95 % intervals over images. A change of the same sign is the "
        "model's; the distance from the grey line, where both are equal, is the encoder's error.",
        f"Of {len(table)} changes of entropy, {counts.get('model', 0)} are the model's and "
        f"{counts.get('encoder', 0)} the encoder's alone.",
        panels(chart.properties(width=240, height=240), "corruption", table.corruption.unique()),
        filters=("corruption", "trained_on"),
    )


# --- all levels ------------------------------------------------------------------------------


def _levels_table(rows: pd.DataFrame) -> Table:
    """Every metric at every level."""
    found = summary(select(rows, metric=[*HELD]), ["posterior", "corruption", "level", "metric"])
    keys = list(dict.fromkeys(key[:-1] for key in found))
    lines = [[*key, *(found.get((*key, metric)) for metric in HELD)] for key in keys]
    columns = ["posterior", "corruption", "level"]
    columns += [Column(name, interval=False) for name in HELD.values()]
    caption = "The posterior at every level of corruption: means over seeds, nats per image."
    return Table("uncertainty_levels", columns, lines, caption, variants=[key[0] for key in keys])


def _levels_figure(rows: pd.DataFrame, metric: str) -> Figure | None:
    """A panel a corruption: a metric's change from clean images against the level."""
    name, what, axis = DRAWN[metric]
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
    return Figure(
        name,
        f"Change of {what} with corruption",
        "Corrupted minus clean test images, with 95 % t-intervals over seeds. Above 0 the encoder "
        f"is less sure than at 0{stay}.",
        f"Change of {axis}: {listing(ranges)}.",
        panels(chart, "corruption", frame.corruption.unique()).resolve_scale(x="independent"),
        filters=("corruption", "trained_on"),
    )
