"""Does the autoencoder overfit, and does the prior help? Gaps, curves, perturbed codes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.measure.generalization import DRAWN_SCALES
from bench.report.common import (
    Estimate,
    Results,
    Section,
    colour,
    embolden,
    markdown,
    name_row,
    new_figure,
    over_seeds,
    save,
    show,
    tiles,
    title,
    write_table,
)

PLACE = 52
MEASUREMENT = "generalization"
RELATIVE = 0.5
"""The perturbation the takeaway quotes, in standard deviations of the codes."""


def sections(results: Results) -> list[Section]:
    """Two sections, of overfitting and of perturbed codes; [] where nothing was measured."""
    rows = results.measured(MEASUREMENT)
    if rows.empty:
        return []
    return [_overfitting(results, rows), _perturbation(results, rows)]


def _present(results: Results, rows: pd.DataFrame) -> list[str]:
    return [v for v in results.variants() if v in set(rows.variant)]


def without_prior(results: Results, rows: pd.DataFrame) -> list[str]:
    """The variants without an ELBO: plain autoencoders."""
    with_elbo = set(rows[rows.metric == "elbo_gap"].variant)
    return [v for v in _present(results, rows) if v not in with_elbo]


def paired(rows: pd.DataFrame, one: str, other: str) -> Estimate:
    """Mean of `one` − `other` over the seeds both have; rows of one metric and setting."""
    values = [rows[rows.variant == variant].set_index("seed").value for variant in (one, other)]
    return over_seeds((values[0] - values[1]).dropna())


def _signed(estimate: Estimate, digits: int = 1) -> str:
    sign = "+" if estimate.mean > 0 else ""
    return sign + estimate.text(digits)


# --- overfitting -----------------------------------------------------------------------------

NOTES = (
    "Nats per image, means over seeds with 95 % t-intervals. The cross-entropy is −log p(x|z) at "
    "the code, for a VAE at a sampled code; *gap* is test − train at the end, or at the epoch of "
    "the best validation score. Training images are drawn afresh each time they are seen; here "
    "they are one fixed draw, as the test images are. Every list but the longest trains for the "
    "same number of steps. **Bold**: the lowest test cross-entropy and the smallest gap."
)


def _overfitting(results: Results, rows: pd.DataFrame) -> Section:
    table = gaps(results, rows)
    takeaway = overfitting_takeaway(results, rows)
    text = _gaps_markdown(table)
    write_table(results, "generalization", table, takeaway, f"{text}\n\n{NOTES}")
    figures = [_gap_figure(results, table), *_curves_figure(results, rows)]
    files = ["generalization.csv", "generalization.md"]
    name = "Does the autoencoder overfit, and does the prior help?"
    return Section(name, takeaway, text, figures, files, NOTES)


COLUMNS = {
    ("train_cross_entropy", "end"): "train, end",
    ("test_cross_entropy", "end"): "test, end",
    ("cross_entropy_gap", "end"): "gap, end",
    ("test_cross_entropy", "best"): "test, best epoch",
    ("cross_entropy_gap", "best"): "gap, best epoch",
    ("elbo_gap", "end"): "ELBO gap, end",
}


def gaps(results: Results, rows: pd.DataFrame) -> pd.DataFrame:
    """One line a number of training images and variant."""
    lines = []
    staged = rows[rows.stage.notna()]
    for (images, steps), group in staged.groupby(["images", "steps"]):
        for variant in _present(results, group):
            mine = group[group.variant == variant]
            line = {"images": int(images), "steps": int(steps), "variant": variant}
            for metric, stage in COLUMNS:
                values = mine[(mine.metric == metric) & (mine.stage == stage)].value
                estimate = over_seeds(values)
                name = f"{metric}_{stage}"
                line[name], line[f"{name}_half_width"] = estimate.mean, estimate.half_width
            lines.append(line | {"seeds": mine.seed.nunique()})
    return pd.DataFrame(lines)


def overfitting_takeaway(results: Results, rows: pd.DataFrame) -> str:
    """The gap on the shortest list without and with a prior, and what it does to test images."""
    staged = rows[rows.stage.notna()]
    fewest = staged[staged.images == staged.images.min()]
    end = fewest[fewest.stage == "end"]
    gap, test = (end[end.metric == m] for m in ("cross_entropy_gap", "test_cross_entropy"))
    sentences = []
    for plain in without_prior(results, rows):
        own = over_seeds(gap[gap.variant == plain].value)
        regret = overtraining(fewest, plain)
        sentences.append(
            f"With {int(fewest.images.min())} training images and no early stopping the "
            f"`{title(plain)}`'s test cross-entropy ends {own.text(1)} nats above its training "
            f"one ({early_stopping(regret)})."
        )
        smaller, lower = [], []
        for variant in _present(results, rows):
            if variant != plain:
                smaller.append((variant, paired(gap, variant, plain)))
                lower.append((variant, paired(test, variant, plain)))
        if smaller:
            sentences.append(
                f"Against it, the gap is {_compared(smaller, 'smaller', 'larger')}; the test "
                f"cross-entropy itself is {_compared(lower, 'lower', 'higher')}."
            )
    if not sentences:
        values = ", ".join(
            f"`{title(v)}` {over_seeds(gap[gap.variant == v].value).text(1)}"
            for v in _present(results, gap)
        )
        return f"Test − train cross-entropy with {int(fewest.images.min())} images: {values} nats."
    return " ".join(sentences)


def overtraining(fewest: pd.DataFrame, variant: str) -> Estimate:
    """Test cross-entropy at the end minus at the best epoch: what early stopping would save."""
    mine = fewest[(fewest.metric == "test_cross_entropy") & (fewest.variant == variant)]
    by_stage = {stage: group.set_index("seed").value for stage, group in mine.groupby("stage")}
    return over_seeds(by_stage["end"] - by_stage["best"])


def early_stopping(regret: Estimate) -> str:
    """What the regret says of early stopping, in words."""
    if regret.low == regret.high == 0:
        return "the best epoch is the last: a training too short to gain from early stopping"
    if regret.low > 0:
        return f"early stopping would have saved {regret.text(1)} of them"
    verdict = "what early stopping would have saved is undecided"
    if regret.high <= 0.05:
        verdict = "early stopping would have saved nothing"
    return f"{verdict}: {_signed(regret)} nats from best epoch to end"


def _compared(differences: list[tuple[str, Estimate]], less: str, more: str) -> str:
    """`smaller for a (−3.1 ± 0.2), b (…); larger for c (…)`, by the intervals."""
    unclear = "undecided" if any(e.n > 1 for _, e in differences) else "undecided (one seed)"
    groups: dict[str, list[str]] = {less: [], more: [], unclear: []}
    for variant, estimate in differences:
        kind = less if estimate.high < 0 else more if estimate.low > 0 else unclear
        groups[kind].append(f"`{title(variant)}` ({_signed(estimate)})")
    return "; ".join(f"{kind} for {', '.join(names)}" for kind, names in groups.items() if names)


def _gaps_markdown(table: pd.DataFrame) -> str:
    lines = []
    names = [f"{metric}_{stage}" for metric, stage in COLUMNS]
    bold = {"test_cross_entropy_end", "cross_entropy_gap_end", "test_cross_entropy_best",
            "cross_entropy_gap_best"}  # fmt: skip
    for (images, steps), group in table.groupby(["images", "steps"]):
        columns = []
        for name in names:
            halves = group[f"{name}_half_width"]
            cells = [Estimate(m, h, 0).text(1) for m, h in zip(group[name], halves)]
            columns.append(embolden(cells, list(group[name]), "min") if name in bold else cells)
        for variant, *cells in zip(group.variant, *columns):
            lines.append([title(variant), f"{images:,}", f"{steps:,}", *cells])
    return markdown(["variant", "images", "steps", *COLUMNS.values()], lines)


def _gap_figure(results: Results, table: pd.DataFrame) -> tuple[str, str]:
    figure, (left, right) = new_figure(10.5, 5, ncols=2)
    for variant in _present(results, table):
        mine = table[table.variant == variant].sort_values("images")
        style = {"color": colour(variant), "marker": "o", "ms": 6, "lw": 2}
        left.plot(mine.images, mine.test_cross_entropy_end, label=title(variant), **style)
        left.plot(mine.images, mine.train_cross_entropy_end, ls="--", **style)
        right.errorbar(mine.images, mine.cross_entropy_gap_end, _shown(mine), capsize=4, **style)
    left.set_ylabel("cross-entropy (nats per image)")
    left.set_title("test (solid), train (dashed)", fontsize=13)
    right.set_ylabel("test − train (nats per image)")
    right.set_title("gap at the end of training", fontsize=13)
    right.axhline(0, color="0.6", lw=1)
    sizes = sorted(table.images.unique())
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("training images")
    figure.legend(loc="outside lower center", ncols=3)
    how = (
        "Without early stopping. The vertical distance of a colour's two lines on the left is its "
        "gap on the right, with 95 % intervals over seeds."
    )
    return save(results, figure, "generalization"), how


def _shown(mine: pd.DataFrame) -> pd.Series | None:
    half = mine.cross_entropy_gap_end_half_width
    return None if half.isna().all() else half


def _curves_figure(results: Results, rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Cross-entropy against training steps, a panel each number of images."""
    sizes = sorted({int(k.rsplit("_", 1)[1]) for k in results.pictures if _is_curve(k)})
    if not sizes:
        return
    steps = rows.dropna(subset=["stage"]).groupby("images").steps.max()
    figure, panels = new_figure(5 * len(sizes) + 0.5, 5.4, ncols=len(sizes), squeeze=False)
    for size, axes in zip(sizes, panels[0]):
        highest = []
        for variant in results.variants():
            names = [k for k in results.pictures if _is_curve(k, variant, size)]
            if not names:
                continue
            train, _, test = np.mean([results.pictures[k] for k in names], axis=0).T
            step = np.arange(1, len(test) + 1) * steps[size] / len(test)
            axes.plot(step, test, color=colour(variant), lw=2, label=title(variant))
            axes.plot(step, train, color=colour(variant), lw=2, ls="--")
            highest.append(test[len(test) // 4 :].max())
        axes.set_ylim(top=1.08 * max(highest))
        axes.set_title(f"{size:,} training images", fontsize=13)
        axes.set_xlabel("training steps")
    panels[0, 0].set_ylabel("cross-entropy (nats per image)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    how = (
        "Solid: test images; dashed: training images, means over seeds. A solid line that turns "
        "up while its dashed one goes on falling is overfitting."
    )
    yield save(results, figure, "generalization_curves"), how


def _is_curve(key: str, variant: str | None = None, size: int | None = None) -> bool:
    measurement, of, _, name = key.split("/")
    return (
        measurement == MEASUREMENT
        and name.startswith("curves_")
        and (variant is None or of == variant)
        and (size is None or name == f"curves_{size}")
    )


# --- perturbed codes -------------------------------------------------------------------------

PERTURBED_NOTES = (
    "Test cross-entropy, nats per image, of decode(code + s ε), ε from N(0, I), at the end of "
    "training; a VAE's code is its posterior mean. s is in standard deviations of the codes "
    "(their root mean square over latents, given beside), or, in the figure's left half, in "
    "latent units. IW bounds do not exist for an autoencoder; this number exists for all."
)


def _perturbation(results: Results, rows: pd.DataFrame) -> Section:
    perturbed = rows[rows.metric == "perturbed_cross_entropy"]
    takeaway = perturbed_takeaway(results, rows, perturbed)
    lines, cells = [], []
    relative = perturbed[perturbed.scale == "relative"]
    levels = sorted(relative.s.unique())
    for variant in _present(results, perturbed):
        mine = relative[relative.variant == variant]
        spread = rows[(rows.metric == "code_std") & (rows.variant == variant)].value
        estimates = [over_seeds(mine[mine.s == s].value) for s in levels]
        for s, estimate in zip(levels, estimates):
            lines.append({"variant": variant, "s": s, "cross_entropy": estimate.mean,
                          "half_width": estimate.half_width, "seeds": estimate.n,
                          "code_std": spread.mean()})  # fmt: skip
        cells.append([title(variant), over_seeds(spread).text(), *(e.text(1) for e in estimates)])
    text = markdown(["variant", "std of codes", *(f"s = {s:g} std" for s in levels)], cells)
    write_table(results, "perturbed_codes", pd.DataFrame(lines), takeaway,
                f"{text}\n\n{PERTURBED_NOTES}")  # fmt: skip
    figures = [_perturbed_figure(results, perturbed), *_drawn_figure(results)]
    files = ["perturbed_codes.csv", "perturbed_codes.md"]
    return Section("How far does a code reach?", takeaway, text, figures, files, PERTURBED_NOTES)


def rise(perturbed: pd.DataFrame) -> pd.DataFrame:
    """Cross-entropy at `RELATIVE` minus unperturbed, a line each variant and seed."""
    relative = perturbed[perturbed.scale == "relative"]
    at = [relative[relative.s == s].set_index(["variant", "seed"]).value for s in (RELATIVE, 0)]
    return (at[0] - at[1]).rename("value").reset_index()


def perturbed_takeaway(results: Results, rows: pd.DataFrame, perturbed: pd.DataFrame) -> str:
    """What the quoted perturbation costs without and with a prior."""
    risen = rise(perturbed)
    plain = without_prior(results, rows)
    own = ", ".join(
        f"`{title(v)}` {over_seeds(risen[risen.variant == v].value).text(1)}"
        for v in plain or _present(results, risen)
    )
    text = (
        f"Noise of {RELATIVE:g} standard deviations of the codes raises the test cross-entropy of "
        f"{own} nats"
    )
    differences = [
        (v, paired(risen, v, p)) for p in plain for v in _present(results, risen) if v != p
    ]
    if not differences:
        return f"{text}."
    return f"{text}; against that, the rise is {_compared(differences, 'smaller', 'larger')}."


def _perturbed_figure(results: Results, perturbed: pd.DataFrame) -> tuple[str, str]:
    figure, panels = new_figure(10.5, 5.2, ncols=2, sharey=True)
    labels = {"absolute": "s (latent units)", "relative": "s (standard deviations of the codes)"}
    for scale, axes in zip(labels, panels):
        for variant in _present(results, perturbed):
            mine = perturbed[(perturbed.variant == variant) & (perturbed.scale == scale)]
            means = mine.groupby("s").value.mean()
            axes.plot(means.index, means, color=colour(variant), lw=2, marker="o", ms=6,
                      label=title(variant) if scale == "absolute" else None)  # fmt: skip
        axes.set_xlabel(labels[scale])
    panels[0].set_ylabel("test cross-entropy (nats per image)")
    figure.legend(loc="outside lower center", ncols=3)
    how = (
        "How the reconstruction of test images suffers when their code is moved by N(0, s² I). "
        "The scale of an autoencoder's codes is arbitrary, so the right half is the fair one."
    )
    return save(results, figure, "perturbed_codes"), how


def _drawn_figure(results: Results) -> Iterator[tuple[str, str]]:
    """Decoded perturbed codes of a few test images, a row each variant."""
    drawn = {
        variant: results.pictures[f"{MEASUREMENT}/{variant}/0/noised_codes"]
        for variant in results.variants()
        if f"{MEASUREMENT}/{variant}/0/noised_codes" in results.pictures
    }
    if not drawn:
        return
    figure, panels = new_figure(
        10.5, 0.65 * len(drawn) + 0.5, nrows=len(drawn), ncols=len(DRAWN_SCALES), squeeze=False
    )
    figure.get_layout_engine().set(wspace=0.06)
    for row, (variant, images) in zip(panels, drawn.items()):
        for axes, some in zip(row, images):
            show(axes, tiles(some, len(some)))
        name_row(row[0], variant)
    for axes, s in zip(panels[0], DRAWN_SCALES):
        axes.set_title(f"s = {s:g} std", fontsize=13)
    how = "Test images decoded from their codes moved by N(0, s²), s in standard deviations of the codes."  # noqa: E501
    yield save(results, figure, "noised_codes"), how
