"""Does the autoencoder overfit, and does the prior help? Gaps, curves, perturbed codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from bench.report.section import Section, prose
from bench.report.style import in_order, ordered, title
from bench.report.table import Column, Table, spoken
from bench.statistics import Estimate, paired_difference, summary

QUESTION = "generalization"
COLUMNS = {
    ("train_cross_entropy", "end"): Column("train, end", 1),
    ("test_cross_entropy", "end"): Column("test, end", 1, best="min"),
    ("cross_entropy_gap", "end"): Column("gap, end", 1, best="min"),
    ("test_cross_entropy", "best"): Column("test, best epoch", 1, best="min"),
    ("cross_entropy_gap", "best"): Column("gap, best epoch", 1, best="min"),
    ("elbo_gap", "end"): Column("ELBO gap, end", 1),
}
SPLITS = {"train_cross_entropy": "train", "test_cross_entropy": "test"}
CROSS_ENTROPY = "cross-entropy (nats per image)"
UNITS = {"absolute": "s in latent units", "relative": "s in standard deviations of the codes"}


def sections(results: Results) -> list[Section]:
    """Two sections, of overfitting and of perturbed codes; [] where nothing was measured."""
    rows = results.of(QUESTION)
    staged, perturbed = rows[rows.stage.notna()], select(rows, metric="perturbed_cross_entropy")
    bounded = set(select(rows, metric="elbo_gap").variant)
    plain, found = [v for v in results.variants(rows) if v not in bounded], []
    if len(staged):
        found = [
            Section(
                "Does the autoencoder overfit, and does the prior help?",
                *overfitting_takeaway(staged, plain),
                [_gaps_table(staged)],
                [_gap_figure(staged), _curves_figure(results, staged)],
                prose(__file__),
            )
        ]
    if len(perturbed):
        found += [
            Section(
                "How far does a code reach?",
                perturbed_takeaway(perturbed, plain),
                "",
                [_perturbed_table(rows, perturbed)],
                [_perturbed_figure(perturbed), _decoded_figure(results)],
                prose(__file__, "perturbed"),
            )
        ]
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
        own = spoken(gaps[plain], 1)
        sentences.append(
            f"With {images} and no early stopping the `{title(plain)}`'s test cross-entropy ends "
            f"{own} nats above its training one ({early_stopping(overtraining(fewest, plain))})."
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
    if not sentences:
        sentences = [f"Test − train cross-entropy with {images}: {_spoken(gaps)} nats."]
    return " ".join(sentences), answer


def _spoken(found: Mapping[str, Estimate]) -> str:
    return listing([f"`{title(v)}` {spoken(found[v], 1)}" for v in ordered(found)])


def overtraining(fewest: pd.DataFrame, variant: str) -> Estimate:
    """Test cross-entropy at the end minus at the best epoch: what early stopping would save."""
    mine = select(fewest, metric="test_cross_entropy", variant=variant)
    return paired_difference(mine, "end", "best", by="stage")


def early_stopping(regret: Estimate) -> str:
    """What the regret says of early stopping, in words."""
    if regret.low == regret.high == 0:
        return "the best epoch is the last: a training too short to gain from early stopping"
    if regret.low > 0:
        return f"early stopping would have saved {spoken(regret, 1)} of them"
    verdict = "what early stopping would have saved is undecided"
    if regret.high <= 0.05:
        verdict = "early stopping would have saved nothing"
    return f"{verdict}: {spoken(regret, 1, sign=True)} nats from best epoch to end"


def _gaps_table(staged: pd.DataFrame) -> Table:
    keys = ["images", "steps", "variant"]
    found = summary(in_order(staged, *keys), [*keys, "metric", "stage"])
    keys = list(dict.fromkeys(key[:3] for key in found))
    lines = [
        [title(key[2]), *key[:2], *(found.get((*key, *column)) for column in COLUMNS)]
        for key in keys
    ]
    columns = ["variant", Column("images", 0), Column("steps", 0), *COLUMNS.values()]
    caption = "Cross-entropy of training and test images."
    sizes, variants = [key[0] for key in keys], [key[2] for key in keys]
    return Table("generalization", columns, lines, caption, sizes, variants)


def _sizes(images: Iterable[int]) -> dict[int, str]:
    return {size: f"{size:,} training images" for size in sorted(set(images))}


def _gap_figure(staged: pd.DataFrame) -> Figure:
    sizes = _sizes(staged.images)
    found = summary(select(staged, stage="end"), ["variant", "images", "metric"])
    gaps = {key[:2]: e for key, e in found.items() if key[2] == "cross_entropy_gap"}
    lines = [
        (
            variant,
            sizes[size],
            SPLITS[metric],
            e.mean,
            spoken(gaps.get((variant, size), Estimate()), 1),
        )
        for (variant, size, metric), e in found.items()
        if metric in SPLITS
    ]
    frame = pd.DataFrame(lines, columns=["variant", "images", "split", "cross-entropy", "gap"])
    largest = max(gaps.values(), key=lambda gap: gap.mean, default=Estimate())
    chart = draw.joined(
        frame,
        ("cross-entropy", CROSS_ENTROPY),
        ("split", {"train": "diamond", "test": "circle"}),
        width=330,
    )
    return Figure(
        "generalization",
        "Training and test cross-entropy",
        "The distance between a variant's two points is its gap at the end, a mean over seeds.",
        f"Panels: {listing(sizes.values())}. The largest gap is {spoken(largest, 1)} nats.",
        draw.panels(chart, "images", [*sizes.values()], columns=2),
        filters=("images",),
    )


def _curves_figure(results: Results, staged: pd.DataFrame) -> Figure | None:
    """Cross-entropy against training steps, a panel each number of images."""
    lines, sizes = [], _sizes(staged.images)
    for (size, variant), mine in staged.groupby(["images", "variant"]):
        keys = [f"{QUESTION}/{variant}/{seed}/curves_{size}" for seed in mine.seed.unique()]
        each = [results.pictures[key] for key in keys if key in results.pictures]
        train, _, test = np.mean(each, axis=0).T if each else [[]] * 3
        steps = np.arange(1, len(test) + 1) * mine.steps.max() / max(len(test), 1)
        lines += [
            (variant, sizes[size], split, step, round(value, 1))
            for split, values in {"test": test, "train": train}.items()
            for step, value in zip(steps, values)
        ]
    if not lines:
        return None
    frame = pd.DataFrame(lines, columns=["variant", "images", "split", "step", "cross-entropy"])
    chart = draw.curves(
        frame,
        ("step", "training steps"),
        ("cross-entropy", CROSS_ENTROPY),
        dash=alt.StrokeDash("split:N", scale=alt.Scale(domain=["test", "train"]), title=None),
        width=300,
    )
    return Figure(
        "generalization_curves",
        "Cross-entropy while training",
        "A test line that turns up while its training line goes on falling is overfitting.",
        f"Test and training cross-entropy by steps: {listing(frame.images.unique())}.",
        draw.panels(chart, "images", [*sizes.values()]),
        filters=("images", "split"),
    )


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
        f"Noise of {RELATIVE:g} standard deviations of the codes raises the test cross-entropy of "
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
    frame = perturbed.assign(unit=perturbed.noise_unit.map(UNITS))
    means = frame.groupby(["variant", "unit", "noise_scale"], sort=False).value.mean()
    least, most = means.min(), means.max()
    lines = draw.curves(
        means.reset_index(name="cross-entropy"),
        ("noise_scale", "scale s of the noise"),
        ("cross-entropy", CROSS_ENTROPY),
        ticks=[0, 0.5, 1, 1.5, 2],
        width=330,
    )
    return Figure(
        "perturbed_codes",
        "Reconstruction from perturbed codes",
        "Codes of test images moved by N(0, s² I). The scale of an autoencoder's codes is "
        "arbitrary, so the right half is the fair one.",
        f"With the noise the cross-entropy grows from {least:.0f} to at most {most:.0f} nats.",
        draw.panels(lines, "unit", [*UNITS.values()]),
    )


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

    return Figure(
        "noised_codes",
        "Images decoded from perturbed codes",
        "Codes of test images moved by N(0, s² I), s in standard deviations of the codes.",
        f"Shapes dissolve to the right, where noise grows; rows: {listing(map(title, decoded))}.",
        draw=canvas,
    )
