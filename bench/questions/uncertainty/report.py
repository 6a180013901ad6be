"""Does noise raise the encoder's uncertainty? Verdicts by corruption, and what moves it."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.data.corruptions import LABELS
from bench.report.claims import listing
from bench.report.figure import Figure, by_variant, curves, named, panels, tooltips
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
    "log_scale": ("sigma_by_level", "mean log σ over the active units", "mean log σ"),
}


def sections(results: Results) -> list[Section]:
    """One section; [] where uncertainty was not measured."""
    rows = results.of("uncertainty")
    if "entropy_spearman" not in set(rows.metric):
        return []
    rows = printed(rows)
    table, refitted = verdicts(rows), origins(rows)
    sources = listing([words(source) for source in rows.source.dropna().unique()])
    sources = f"Other images: {sources}." if sources else ""
    return [
        Section(
            "Does noise raise the encoder's uncertainty?",
            *takeaway_of(table),
            [_table(table), _refitted_table(refitted), _levels_table(rows)],
            [*(_levels_figure(rows, metric) for metric in DRAWN), _refitted_figure(refitted)],
            paragraphs(prose(__file__, turn=TURN), sources, _refitted_text(refitted)),
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
    """Yes, no or sometimes, for every posterior, with the reference's intervals.

    Also the answer in a few words: the reference's, or else the first posterior's that moves.
    """
    moving = table.groupby("posterior").verdict.transform(lambda v: (v != "flat").any())
    rho = table[["spearman", "spearman_low", "spearman_high"]].map(decimal).to_numpy()
    intervals = [f" (ρ {mean} [{low}, {high}])" for mean, low, high in rho]
    table, sentences, answers = table.assign(detailed=table.corruption + intervals), [], {}
    for name, mine in table[moving].groupby("posterior", sort=False):
        by_kind = {kind: mine[mine.verdict == kind] for kind in KINDS}
        count = len(by_kind["rises"])
        answer = {0: "no", len(mine): "yes"}.get(count, "sometimes")
        told = "detailed" if mine.variant.iloc[0] == REFERENCE else "corruption"
        parts = [
            f"{KINDS[kind]} {', '.join(some[told])}" for kind, some in by_kind.items() if len(some)
        ]
        sentences.append(f"`{name}`: **{answer}**; {'; '.join(parts)}.")
        rising = f": {', '.join(by_kind['rises'].detailed)}" if count else ""
        answers[name] = f"{answer}, {name}'s rises with {count} of {len(mine)} corruptions{rising}"
    flat = table[~moving]
    if len(flat):
        names = listing([f"`{name}`" for name in flat.posterior.unique()])
        sentences.append(
            f"{names}: **flat** by construction, no image's entropy moves by more than "
            f"{flat.largest_change.max():.1g} nats."
        )
    first = next(iter(answers.values()), "no, flat by construction")
    return " ".join(sentences), answers.get(title(REFERENCE), first)


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
    columns = ["variant", "trained_on", "corruption", "level", "origin", *ends]
    frame = named(table.assign(**ends)[columns])
    across = alt.X("encoder mean:Q", title="encoder's change of entropy (nats)")
    up = alt.Y("refitted mean:Q", title="the best posterior's (nats)")
    low, high = (alt.datum(float(v)) for v in (min(ends["encoder low"]), max(ends["encoder high"])))
    whole = alt.Chart(frame)
    base, points = whole.encode(color=by_variant(table.variant.unique())), {"x": across, "y": up}
    shape = alt.Shape("trained_on:N", title="trained on")
    chart = alt.layer(
        whole.mark_rule(color="#bbb").encode(x=low, y=low, x2=high, y2=high),
        base.mark_rule().encode(x=alt.X("encoder low:Q"), x2=alt.X2("encoder high"), y=up),
        base.mark_rule().encode(x=across, y=alt.Y("refitted low:Q"), y2=alt.Y2("refitted high")),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            **points, shape=shape, tooltip=tooltips(frame)
        ),
    )
    counts = table.origin.value_counts()
    return Figure(
        "uncertainty_refitted",
        "The encoder's change of entropy beside the best posterior's",
        "A point each level, with 95 % intervals over images. On the grey line the change is the "
        "model's, away from it the encoder's.",
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


def _levels_figure(rows: pd.DataFrame, metric: str) -> Figure:
    """A panel a corruption: a metric's change from clean images against the level."""
    name, what, axis = DRAWN[metric]
    columns = ["variant", "trained_on", "corruption", "level"]
    moved = select(rows[rows.corruption != "none"], metric=metric)
    moved = moved.groupby(columns, sort=False).change.mean().round(3).reset_index()
    start = moved[columns[:-1]].drop_duplicates().assign(level=0.0, change=0.0)
    frame = pd.concat([start, moved])
    chart = curves(
        frame,
        ("level", "level"),
        ("change", f"change of {axis}"),
        dash=alt.StrokeDash("trained_on:N", title="trained on", sort=["clean"]),
        width=250,
        height=190,
    )
    order = frame.corruption.unique()
    return Figure(
        name,
        f"Change of {what} with corruption",
        "Corrupted minus clean test images: above 0 the encoder is less sure, flat posteriors lie "
        "on one another at 0.",
        f"From {frame.change.min():.1f} to {frame.change.max():.1f}; panels: {listing(order)}.",
        panels(chart, "corruption", order).resolve_scale(x="independent"),
        filters=("corruption", "trained_on"),
    )
