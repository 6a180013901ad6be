"""Does noise raise the encoder's uncertainty? Verdicts by corruption, and what moves it."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.data.corruptions import CORRUPTIONS, LABELS
from bench.questions.uncertainty import TIE, refitted
from bench.questions.uncertainty.refitted import FILTERS, KEYS
from bench.report.claims import BEATS, TRAILS, UNDECIDED, Claim, claims, grouped, listing, signs
from bench.report.figure import Figure, as_frame, curves, panels
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, has_images, paragraphs, points, prose
from bench.report.style import ordered, title, words
from bench.report.table import Cell, Column, Table, decimal, spoken
from bench.statistics import Estimate, interval, summary

KINDS = {
    "rises": "rises with",
    "rises after a dip": "rises after a dip with",
    "falls at first": "falls at first with",
    "falls": "falls with",
    "falls after a rise": "falls after a rise with",
    "rises at first": "rises at first with",
    "turns": "turns more than once with",
    "no shape": "has no significant shape with",
    "undecided": "is undecided with",
    "flat": "is flat with",
}
UNTOLD = ("no shape", "undecided", "flat")
OF_ROWS = ("row_occlusion",)
"""Corruptions that make no sense where an image is one row of values."""
ENDS = {1: "higher", -1: "lower", 0: "undecided"}
"""Sign of the final change → where the entropy ends, against the clean images'."""
HELD = {
    "entropy": Column("entropy", interval=False),
    "active_entropy": Column("active units' entropy", interval=False),
    "rate": Column("rate", interval=False),
    "iw_bound": Column("IW bound", interval=False),
}
NOISY = {BEATS: "higher with", TRAILS: "lower with", UNDECIDED: "undecided with"}
DASHES = alt.Scale(range=[[1, 0], [8, 5], [2, 5], [8, 4, 2, 4]])
DRAWN = {
    "entropy": ("uncertainty", "entropy (nats)"),
    "active_entropy": ("active_units_uncertainty", "active units' entropy (nats)"),
}
"""Metric → figure and axis."""


def sections(results: Results) -> list[Section]:
    """One section; [] where uncertainty was not measured."""
    rows = results.of("uncertainty")
    if "entropy" not in set(rows.metric):
        return []
    left_out = () if has_images(results) else OF_ROWS
    rows = printed(rows[~rows.corruption.isin(left_out)])
    table, fitted = verdicts(rows), refitted.origins(rows)
    shown = (c for name, c in CORRUPTIONS.items() if name not in left_out)
    levels = [f"- *{c.label}*: {c.corrupt.__doc__}" for c in shown]
    others = "- *other images*: Each pixel is taken from {} with probability `level`."
    levels += [others.format(words(source)) for source in rows.source.dropna().unique()]
    asked = "Does noise raise the encoder's uncertainty?"
    said, answer = sentences_of(table)
    answer = "; ".join(filter(None, [answer, refitted.answer(fitted)]))
    noisy, short = noise_claims(rows), length_claims(rows)
    trained = [_noise_sentence(rows, noisy), _length_sentence(rows, short)]
    takeaway = points(*said, *trained, refitted.sentence(fitted))
    tables = [_table(table), _trained_table(noisy, short), refitted.table_of(fitted)]
    tables.append(_levels_table(rows))
    figures = [*(_levels_figure(rows, metric) for metric in DRAWN), refitted.figure(fitted)]
    notes = paragraphs(prose(__file__), "\n".join(levels), refitted.text(fitted))
    return [Section(asked, takeaway, answer, tables, figures, notes)]


def printed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by variant, what it was trained on (clean images first, longest first) and corruption,
    in words; a training shorter than its variant's longest has its length in them.

    Added columns: `noisy`, whether it was trained with noise; `posterior`, `input-dependent` or
    `input-dependent + bit flips, 60 epochs`; `change`, of the value from that of clean images in
    the same seed.
    """
    place = {name: i for i, name in enumerate([*ordered(rows.variant), "clean", *LABELS])}
    rows = rows.sort_values(
        ["variant", "trained_on", "epochs", "corruption", "level"],
        ascending=[True, True, False, True, True],
        kind="stable",
        key=lambda c: c if c.name in ("epochs", "level") else c.map(place),
    )
    noisy = rows.trained_on != "clean"
    for column in ("trained_on", "corruption"):
        rows[column] = [LABELS.get(name, words(name)) for name in rows[column]]
    shorter = (rows.epochs < rows.groupby("variant").epochs.transform("max")).fillna(False)
    rows["trained_on"] += (", " + rows.epochs.astype("str") + " epochs").where(shorter, "")
    noise = (" + " + rows.trained_on).str.replace(" + clean", "", regex=False)
    rows = rows.assign(noisy=noisy, posterior=rows.variant.map(title) + noise)
    clean = rows.value.where(rows.corruption == "none")
    same = [rows.posterior, rows.metric, rows.seed]
    return rows.assign(change=rows.value - clean.groupby(same).transform("first"))


# --- verdicts ------------------------------------------------------------------------------


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a posterior and corruption: what the entropy does, where it ends, its lowest change
    and that at the strongest level, in all latents and in the active units.

    All steps hold together, so do all final changes, and so do those of the active units; those
    of a flat posterior, which nothing moves, are not counted.
    """
    still = select(rows, metric="entropy_largest_change").groupby(KEYS).value.max()
    moved = select(rows[rows.corruption != "none"], metric="entropy")
    changes = {
        key: mine.pivot_table("change", "seed", "level")
        for key, mine in moved.groupby(KEYS, sort=False)
    }
    steps, ends = {}, {}
    for key, change in changes.items():
        if still.get(key, np.inf) > TIE:
            increments = change.diff(axis=1).fillna(change.iloc[:, [0]])
            steps |= {(key, level): interval(increments[level]) for level in change}
            ends[key] = interval(change.iloc[:, -1])
    told, told_ends, active = signs(steps), signs(ends), _active_changes(rows)
    told_active = signs({key: change for key, change in active.items() if key in ends})
    lines = []
    for key, change in changes.items():
        of_steps = [told.get((key, level), 0) for level in change]
        last = told_ends.get(key, 0)
        kind, end = "flat", "flat"
        if key in ends:
            kind, end = shape(of_steps, last, change.mean().tolist()), ENDS[last]
        low, strongest = change.mean().idxmin(), interval(change.iloc[:, -1])
        dip = (low, interval(change[low])) if key in ends else (np.nan, Estimate())
        units = (Estimate(), "")
        if key in active:
            units = active[key], ENDS[told_active.get(key, 0)] if key in ends else "flat"
        lines.append((*key, kind, *dip, max(change), strongest, end, *units))
    names = ["verdict", "lowest", "dip", "strongest", "change", "end", "active", "active_end"]
    return pd.DataFrame(lines, columns=[*KEYS, *names])


def _active_changes(rows: pd.DataFrame) -> dict[tuple, Estimate]:
    """Posterior and corruption → change of the active units' entropy at the strongest level."""
    last = _at_the_strongest(select(rows, metric="active_entropy"))
    return {key: interval(its) for key, its in last.groupby(KEYS, sort=False).change}


def _at_the_strongest(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of each corruption's strongest level."""
    moved = rows[rows.corruption != "none"]
    return moved[moved["level"] == moved.groupby("corruption")["level"].transform("max")]


def shape(steps: Sequence[int], end: int, changes: Sequence[float]) -> str:
    """What the entropy does, one of `KINDS`, from signs: of its steps from level to level, the
    first from the clean images, and of its change at the last; 0 where none is sure. The mean
    `changes` from the clean images, a level each, say whether the first such step comes first."""
    told = [step for step in steps if step] or [end]
    first, last = told[0], told[-1]
    if not first:
        return "undecided"
    if end == last and -end not in told:
        return "rises" if end > 0 else "falls"
    if first == last and -first in told:
        return "turns"
    until = next((place for place, step in enumerate(steps) if step), 0) + 1
    if any(change * first <= 0 for change in changes[:until]):
        return "no shape"  # of another sign before it: the step is none from the clean images
    if end == last and first == -end:
        return "rises after a dip" if end > 0 else "falls after a rise"
    return "rises at first" if first > 0 else "falls at first"


def sentences_of(table: pd.DataFrame) -> tuple[list[str], str]:
    """What the reference's entropy does (or the first variant's that moves), and with how many
    corruptions that of the others ends higher, lower and undecided, all trained on clean images.
    Also the answer in a few words; "" where there are none.
    """
    table = table[table.posterior == table.variant.map(title)]
    still = table.groupby("posterior").verdict.transform(lambda v: (v == "flat").all())
    moving = dict([*table[~still].groupby("posterior", sort=False)])
    sentences, answer = [], "no, flat" if still.any() else ""
    if moving:
        name = title(REFERENCE) if title(REFERENCE) in moving else next(iter(moving))
        mine = moving.pop(name)
        said = [(at.verdict, f"{at.corruption} ({_sizes(at)})") for at in mine.itertuples()]
        short = in_short(mine)
        units = _of_active_units(mine)
        sentences.append(
            f"`{name}`: **{short}**. Its entropy (change at the strongest level, which is given) "
            f"{grouped(said, KINDS)}."
        )
        if units:
            sentences.append(
                f"Of its active units alone, entropy at the strongest level is {units}."
            )
        said = [pair for pair in said if pair[0] not in UNTOLD] or said
        answer = f"{short}: {name}'s entropy {grouped(said, KINDS)}"
        answer += f"; that of its active units alone is {units}" if units else ""
    if moving:
        others = "; for ".join(f"`{name}`, {_counts(mine)}" for name, mine in moving.items())
        sentences.append(f"At the strongest level entropy is, for {others}.")
    if still.any():
        names = listing(f"`{name}`" for name in table[still].posterior.unique())
        sentences.append(f"{names}: **flat**, no image's entropy moves by more than {TIE:g} nats.")
    return sentences, answer


def in_short(table: pd.DataFrame) -> str:
    """Whether noise raises one posterior's entropy, by where it ends."""
    higher, lower = ((table.end == end).sum() for end in ("higher", "lower"))
    if (table.verdict == "rises").all():
        return "yes"
    if higher:
        also = f", lower with {listing(table[table.end == 'lower'].corruption)}" if lower else ""
        return f"higher with {higher} of {len(table)} corruptions{also}"
    if lower:
        return f"no, lower with {lower} of {len(table)} corruptions, higher with none"
    return "undecided" if "undecided" in set(table.end) else "no"


def _of_active_units(table: pd.DataFrame) -> str:
    """Where the entropy of one posterior's active units ends, and its changes; "" of a posterior
    without axes."""
    said = [
        (at.active_end, f"{at.corruption} ({spoken(at.active, 1, sign=True)})")
        for at in table.itertuples()
    ]
    return grouped(said, {end: f"{end} with" for end in ENDS.values()})


def _counts(table: pd.DataFrame) -> str:
    """`higher with 2, lower with 0 and undecided with 4 of 6 corruptions`; flat, where any is."""
    counts = table.end.value_counts()
    kinds = [*ENDS.values(), *(["flat"] if "flat" in counts else [])]
    said = listing(f"{kind} with {counts.get(kind, 0)}" for kind in kinds)
    return f"{said} of {len(table)} corruptions"


def _sizes(line: tuple) -> str:
    """The change at the strongest level, after that at the lowest where it dips."""
    dips = (
        line.verdict in ("rises after a dip", "falls at first")
        and line.dip.mean != line.change.mean
    )
    lowest = f", at the lowest {spoken(line.dip, 1, sign=True)}" if dips else ""
    return f"{spoken(line.change, 1, sign=True)} nats at {line.strongest:g}{lowest}"


def _table(table: pd.DataFrame) -> Table:
    columns = ["posterior", "corruption", "entropy", Column("lowest at")]
    columns += [
        Column("change there, nats", sign=True),
        Column("at the strongest, nats", sign=True),
        "ends",
        Column("of it in active units, nats", sign=True),
        "these end",
    ]
    marked = [Cell(text=verdict, bold=verdict == "rises") for verdict in table.verdict]
    names = ["lowest", "dip", "change", "end", "active", "active_end"]
    shown = table.assign(verdict=marked)[["posterior", "corruption", "verdict", *names]]
    caption = "What corruption does to the posterior's entropy."
    lines = shown.to_numpy().tolist()
    return Table("uncertainty", columns, lines, caption, variants=[*table.posterior])


# --- trained with noise, trained shorter -----------------------------------------------------


def noise_claims(rows: pd.DataFrame) -> list[Claim]:
    """By corruption: the reference's change of entropy at the strongest level after a training
    with noise, less that after as many steps on clean images; all hold together."""
    last = _at_the_strongest(select(rows, metric="entropy", variant=REFERENCE))
    keys = ["epochs", "corruption", "seed"]
    values = last.dropna(subset="epochs").pivot_table("change", keys, "noisy", sort=False)
    values = values.reindex(columns=[True, False]).dropna()
    differences = (values[True] - values[False]).groupby("corruption", sort=False)
    return claims({corruption: interval(its) for corruption, its in differences})


def length_claims(rows: pd.DataFrame) -> list[Claim]:
    """By corruption: the reference's change of entropy at the strongest level after the shorter
    training on clean images, less that after the longest; all hold together."""
    last = _at_the_strongest(select(rows[~rows.noisy], metric="entropy", variant=REFERENCE))
    keys = ["corruption", "seed"]
    values = last.dropna(subset="epochs").pivot_table("change", keys, "epochs", sort=False)
    if values.shape[1] != 2:
        return []
    differences = (values[values.columns.min()] - values[values.columns.max()]).dropna()
    by = differences.groupby("corruption", sort=False)
    return claims({corruption: interval(its) for corruption, its in by})


def _length_sentence(rows: pd.DataFrame, found: list[Claim]) -> str:
    if not found:
        return ""
    lengths = rows[~rows.noisy & (rows.variant == REFERENCE)].epochs
    lead = f"Trained on clean images for {lengths.min():g} epochs in place of {lengths.max():g}"
    told = f"`{title(REFERENCE)}` has a change of entropy that at the strongest level is"
    return f"{lead}, {told} {_said(found)}."


def _said(found: list[Claim]) -> str:
    said = [(claim.verdict, f"{claim.subject} ({claim.spoken(1, sign=True)})") for claim in found]
    return grouped(said, NOISY)


def _noise_sentence(rows: pd.DataFrame, found: list[Claim]) -> str:
    noise = listing(rows[rows.noisy].trained_on.str.split(",").str[0].unique())
    subject = f"`{title(REFERENCE)}` trained on {noise} too"
    told = f"{subject} has a change of entropy that at the strongest level is"
    lead = f"Compared with as many steps on clean images, {told}"
    return f"{lead} {_said(found)}." if found else ""


def _trained_table(noisy: list[Claim], short: list[Claim]) -> Table:
    """Both comparisons, a line a corruption."""
    compared = {"with noise − without, nats": noisy, "shorter − longest, nats": short}
    verdicts, columns = {BEATS: "higher", TRAILS: "lower"}, ["corruption"]
    lines = {claim.subject: [claim.subject] for found in compared.values() for claim in found}
    for heading, found in compared.items():
        if found:
            columns += [Column(heading, sign=True), "verdict"]
            said = {c.subject: [c.difference, verdicts.get(c.verdict, c.verdict)] for c in found}
            for subject, line in lines.items():
                line += said.get(subject, ["", ""])
    caption = (
        "What a training with noise, and a shorter one on clean images, do to the change of "
        "entropy at the strongest level."
    )
    return Table("uncertainty_trained_otherwise", columns, [*lines.values()], caption)


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
    left_out = [title(variant) for variant in moved[still].variant.unique()]
    verb = "stays and is" if len(left_out) == 1 else "stay and are"
    stay = f", where {listing(left_out)} {verb} not drawn" if left_out else ""
    keys = ["variant", "trained_on", "corruption", "level"]
    moved = moved[~still].assign(value=moved.change)
    found = as_frame(summary(moved, keys), *keys).round(3)
    start = found[keys[:-1]].drop_duplicates().assign(level=0.0, value=0.0)
    frame = pd.concat([start, found])
    chart = curves(
        frame,
        ("level", "level"),
        ("value", "change of entropy (nats)"),
        dash=alt.StrokeDash(
            "trained_on:N",
            title="trained on",
            sort=["clean"],
            scale=DASHES,
            legend=alt.Legend(symbolSize=1600),  # long enough to tell the dashes apart
        ),
        width=250,
        height=190,
    )
    ends = found.groupby("corruption", sort=False).value.agg(["min", "max"]).itertuples()
    ranges = [f"{decimal(low, 1)} to {decimal(high, 1)} with {c}" for c, low, high in ends]
    facets = panels(chart, "corruption", frame.corruption.unique()).resolve_scale(x="independent")
    seen = {"axis": axis, "ranges": listing(ranges), "stay": stay}
    return captioned(__file__, name, facets, FILTERS, **seen)
