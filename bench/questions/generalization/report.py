"""Does the autoencoder overfit, and does the prior help? Gaps, curves, perturbed codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from bench.questions.generalization import DRAWN_SCALES, RELATIVE
from bench.report import figure as draw
from bench.report.claims import BEATS, Claim, claims, listing, sentence
from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, prose
from bench.report.style import in_order, ordered, title
from bench.report.table import Column, Table, spoken
from bench.statistics import Estimate, paired_difference, summary

QUESTION = "generalization"
COLUMNS = {
    "train_cross_entropy end": Column("train, end", 1),
    "test_cross_entropy end": Column("test, end", 1, best="min"),
    "cross_entropy_gap end": Column("gap, end", 1, best="min"),
    "test_cross_entropy best": Column("test, best epoch", 1, best="min"),
    "cross_entropy_gap best": Column("gap, best epoch", 1, best="min"),
    "elbo_gap end": Column("ELBO gap, end", 1),
}
CROSS_ENTROPY = "cross-entropy (nats per image)"
UNITS = {"absolute": "s in latent units", "relative": "s in standard deviations of the codes"}


def sections(results: Results) -> list[Section]:
    """Two sections, of overfitting and of perturbed codes; [] where nothing was measured."""
    rows = results.of(QUESTION)
    perturbed = select(rows, metric="perturbed_cross_entropy")
    staged = in_order(rows[rows.stage.notna()], "images", "steps", "variant")
    amounts = zip(staged.images, staged.steps)
    staged["training"] = [f"{n:,} training images, {steps:,} steps" for n, steps in amounts]
    bounded, found = set(select(rows, metric="elbo_gap").variant), []
    plain = [variant for variant in results.variants(rows) if variant not in bounded]
    if len(staged):
        asked = "Does the autoencoder overfit, and does the prior help?"
        figures = [_gap_figure(staged), _curves_figure(results, staged)]
        said = overfitting_takeaway(staged, plain)
        found.append(Section(asked, *said, [_gaps_table(staged)], figures, prose(__file__)))
    if len(perturbed):
        tables, notes = [_perturbed_table(rows, perturbed)], prose(__file__, "perturbed")
        figures = [_perturbed_figure(perturbed), _decoded_figure(results)]
        said = perturbed_takeaway(perturbed, plain)
        found.append(Section("How far does a code reach?", said, "", tables, figures, notes))
    return found


def against(plain: str, measured: Mapping[str, pd.DataFrame]) -> dict[str, list[Claim]]:
    """Each other variant's difference to `plain` in each quantity; all verdicts hold together."""
    differences = {
        (quantity, variant): paired_difference(rows, variant, plain)
        for quantity, rows in measured.items()
        for variant in ordered(rows.variant)
        if variant != plain
    }
    found: dict[str, list[Claim]] = {quantity: [] for quantity in measured}
    for claim in claims(differences, higher_is_better=False):
        quantity, variant = claim.subject
        found[quantity].append(replace(claim, subject=title(variant)))
    return found


def _claimed(found: list[Claim], less: str, more: str) -> str:
    return sentence(found, f"{less} for", f"{more} for", "undecided for", digits=1, sign=True)


# --- overfitting -----------------------------------------------------------------------------


def overfitting_takeaway(staged: pd.DataFrame, plain_ones: list[str]) -> tuple[str, str]:
    """The gap on the shortest list without and with a prior, and what it does to test images.

    Also the answer in a few words.
    """
    fewest = staged[staged.images == staged.images.min()]
    images = f"{fewest.images.min():,} training images"
    gap = select(fewest, metric="cross_entropy_gap", stage="end")
    test = select(fewest, metric="test_cross_entropy", stage="end")
    gaps = summary(gap, "variant")
    sentences, answer = [], ""
    for plain in [v for v in plain_ones if gaps.get(v)]:
        own, regret = spoken(gaps[plain], 1), overtraining(fewest, plain)
        turn = early_stopping(regret, fewest.steps.max())
        sentences.append(
            f"With {images} the `{title(plain)}`'s test cross-entropy ends {own} nats above its "
            f"training one ({turn})."
        )
        found = against(plain, {"gap": gap, "test": test})
        if found["gap"]:
            sentences.append(
                f"Against it, the gap is {_claimed(found['gap'], 'smaller', 'larger')}; the test "
                f"cross-entropy itself is {_claimed(found['test'], 'lower', 'higher')}."
            )
        (claim,) = claims({plain: gaps[plain]})
        verdict = "yes" if claim.verdict == BEATS else "no" if claim.decided else "undecided"
        answer = f"{verdict}: its gap with {images} is {own} nats"
        if verdict == "yes" and not regret.low > 0:
            answer = f"gap of {own} nats with {images}, but {turn}"
    if not sentences:
        sentences = [f"Test − train cross-entropy with {images}: {_spoken(gaps)} nats."]
    return " ".join(sentences), answer


def _spoken(found: Mapping[str, Estimate]) -> str:
    return listing([f"`{title(v)}` {spoken(found[v], 1)}" for v in ordered(found)])


def overtraining(fewest: pd.DataFrame, variant: str) -> Estimate:
    """Test cross-entropy at the end minus at the best epoch: what early stopping would save."""
    mine = select(fewest, metric="test_cross_entropy", variant=variant)
    return paired_difference(mine, "end", "best", by="stage")


def early_stopping(regret: Estimate, steps: int) -> str:
    """Whether the test cross-entropy turned up within the steps, in words."""
    if regret.low > 0:
        return f"stopping at the best epoch would have lowered it by {spoken(regret, 1)}"
    if regret.high <= 0.05:
        return f"no turn within {steps:,} steps"
    return f"a turn within {steps:,} steps is undecided: {spoken(regret, 1, sign=True)} nats"


def _gaps_table(staged: pd.DataFrame) -> Table:
    rows = staged.assign(variant=staged.variant.map(title))
    rows["column"] = rows.metric + " " + rows.stage
    found = summary(rows, ["variant", "images", "steps", "column"])
    settings = ["variant", Column("images", 0), Column("steps", 0)]
    caption = "Cross-entropy of training and test images."
    return Table.of_settings("generalization", settings, COLUMNS, found, caption, group=1)


def _gap_figure(staged: pd.DataFrame) -> Figure:
    """The gap at the end, a panel each number of images."""
    ends = select(staged, metric="cross_entropy_gap", stage="end")
    frame = draw.named(draw.as_frame(summary(ends, ["variant", "training"]), "variant", "training"))
    variants = ends.variant.unique()
    chart = draw.intervals(
        frame,
        ("value", "test − train cross-entropy (nats per image)"),
        draw.variant_axis(variants),
        draw.by_variant(variants).legend(None),
        width=330,
        step=26,
    )
    chart = draw.panels(chart, "training", ends.training.unique(), columns=2)
    chart = chart.resolve_scale(x="independent")
    gaps = _ranges(frame, "value")
    return captioned(__file__, "generalization", chart, ("training",), gaps=gaps)


def _ranges(frame: pd.DataFrame, column: str) -> str:
    """`1.2 to 3.4 nats with 250 training images, 1,500 steps; …`."""
    found = frame.groupby("training", sort=False)[column].agg(["min", "max"]).itertuples()
    return "; ".join(
        f"{low:.1f} to {high:.1f} nats with {training}" for training, low, high in found
    )


def _curves_figure(results: Results, staged: pd.DataFrame) -> Figure | None:
    """Cross-entropy against training steps, a panel each number of images."""
    lines, keys = [], ["training", "images", "variant"]
    for (training, size, variant), mine in staged.groupby(keys, sort=False):
        names = [f"{QUESTION}/{variant}/{seed}/curves_{size}" for seed in mine.seed.unique()]
        each = [results.pictures[name] for name in names if name in results.pictures]
        train, _, test = np.mean(each, axis=0).T if each else [[]] * 3
        steps = np.arange(1, len(test) + 1) * mine.steps.max() / max(len(test), 1)
        lines += [
            (variant, training, split, step, round(value, 1))
            for split, values in {"test": test, "train": train}.items()
            for step, value in zip(steps, values)
        ]
    if not lines:
        return None
    frame = pd.DataFrame(lines, columns=["variant", "training", "split", "step", "cross-entropy"])
    chart = draw.curves(
        frame,
        ("step", "training steps"),
        ("cross-entropy", CROSS_ENTROPY),
        dash=alt.StrokeDash("split:N", scale=alt.Scale(domain=["test", "train"]), title=None),
        width=300,
    )
    ends = frame[(frame.step == frame.step.max()) & (frame.split == "test")]
    chart, filters = draw.panels(chart, "training", frame.training.unique()), ("training", "split")
    ends = _ranges(ends, "cross-entropy")
    return captioned(__file__, "generalization_curves", chart, filters, ends=ends)


# --- perturbed codes -------------------------------------------------------------------------


def rise(perturbed: pd.DataFrame) -> pd.DataFrame:
    """Cross-entropy at `RELATIVE` minus unperturbed, a line each variant and seed."""
    relative = select(perturbed, noise_unit="relative").set_index(["variant", "seed"])
    at = [relative[relative.noise_scale == s].value for s in (RELATIVE, 0)]
    return (at[0] - at[1]).rename("value").reset_index()


def perturbed_takeaway(perturbed: pd.DataFrame, plain_ones: list[str]) -> str:
    """What the quoted perturbation costs without and with a prior."""
    risen = rise(perturbed)
    costs = summary(risen, "variant")
    text = (
        f"With noise of {RELATIVE:g} standard deviations of the codes test cross-entropy rises: "
        f"{_spoken({v: costs[v] for v in plain_ones if v in costs} or costs)} nats"
    )
    found = [claim for plain in plain_ones for claim in against(plain, {"rise": risen})["rise"]]
    if not found:
        return f"{text}."
    return f"{text}; against that, the rise is {_claimed(found, 'smaller', 'larger')}."


def _perturbed_table(rows: pd.DataFrame, perturbed: pd.DataFrame) -> Table:
    relative = select(perturbed, noise_unit="relative")
    found = summary(relative, ["variant", "noise_scale"])
    found |= summary(select(rows, metric="code_std"), ["variant", "metric"])
    scales = {s: Column(f"s = {s:g} std", 1) for s in sorted(set(relative.noise_scale))}
    caption = "Cross-entropy of test images decoded from perturbed codes."
    columns = {"code_std": Column("std of codes")} | scales
    return Table.of_variants("perturbed_codes", columns, found, caption)


def _perturbed_figure(perturbed: pd.DataFrame) -> Figure:
    keys = ["variant", "unit", "s"]
    rows = perturbed.assign(unit=perturbed.noise_unit.map(UNITS), s=perturbed.noise_scale)
    frame = draw.as_frame(summary(rows, keys), *keys)
    spread, scales = {"nice": False, "padding": 10}, sorted(frame.s.unique())
    across = alt.Axis(values=scales, format="~g", tickCount=len(scales))
    up = alt.Axis(values=[step * 10**power for power in range(4) for step in (1, 1.5, 2, 3, 5, 7)])
    lines = draw.curves(
        frame,
        # the small scales, which a linear axis would crush
        alt.X("s:Q", title="scale s", scale=alt.Scale(type="sqrt", **spread), axis=across),
        alt.Y("value:Q", title=CROSS_ENTROPY, scale=draw.scale_of(log=True, **spread), axis=up),
        width=330,
    )
    chart = draw.panels(lines, "unit", [*UNITS.values()])
    low, high = frame.value.min(), frame.value.max()
    return captioned(__file__, "perturbed_codes", chart, low=low, high=high)


def _decoded_figure(results: Results) -> Figure | None:
    """Decoded perturbed codes of a few test images, a row each variant."""
    decoded = results.arrays(QUESTION, "noised_codes")
    if not decoded:
        return None

    def canvas():
        size = 10.5, 0.65 * len(decoded) + 0.7
        whole, axes = draw.subplots(*size, nrows=len(decoded), ncols=len(DRAWN_SCALES))
        whole.get_layout_engine().set(wspace=0.06)
        for row, (variant, images) in zip(axes, decoded.items()):
            for place, some in zip(row, images):
                draw.show(place, draw.tiles(some, len(some)))
            draw.name_row(row[0], variant)
        for place, s in zip(axes[0], DRAWN_SCALES):
            place.set_title(f"s = {s:g} std", fontsize=13)
        return whole

    return captioned(__file__, "noised_codes", draw=canvas, rows=listing(map(title, decoded)))
