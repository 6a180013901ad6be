"""How far a code reaches: the cross-entropy at perturbed codes."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from bench.questions.generalization import DRAWN_SCALES, RELATIVE
from bench.questions.generalization.paired import against, claimed, of_quantity, spoken_of
from bench.report import figure as draw
from bench.report.claims import claims, listing
from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.rows import most_images, select
from bench.report.section import Section, captioned, has_images, points, prose
from bench.report.style import ordered, title
from bench.report.table import Column, Table
from bench.statistics import summary

UNITS = {
    "covariance": "noise shaped as the codes, s in std",
    "absolute": "isotropic noise, s in latent units",
}


def sections(results: Results, plain_ones: Sequence[str]) -> list[Section]:
    """The section on perturbed codes, beside those of autoencoders; [] where none was measured."""
    rows = results.of("generalization")
    perturbed = select(rows, metric="perturbed_cross_entropy", noise_unit=[*UNITS])
    if "covariance" not in set(perturbed.noise_unit):
        return []
    tables, notes = (
        [_perturbed_table(rows, perturbed)],
        prose(__file__, "perturbed", images=most_images(perturbed)),
    )
    figures = [_perturbed_figure(perturbed), _decoded_figure(results)]
    said = takeaway(perturbed, plain_ones)
    return [Section("How far does a code reach?", said, "", tables, figures, notes)]


def level(perturbed: pd.DataFrame, unit: str, scale: float = RELATIVE) -> pd.DataFrame:
    """Cross-entropy at a scale of noise, a line each variant and seed."""
    there = select(perturbed, noise_unit=unit)
    return there[there.noise_scale == scale][["variant", "seed", "value"]]


def rise(perturbed: pd.DataFrame) -> pd.DataFrame:
    """Cross-entropy at `RELATIVE` minus unperturbed, a line each variant and seed."""
    keys = ["variant", "seed"]
    at = [level(perturbed, "covariance", s).set_index(keys).value for s in (RELATIVE, 0)]
    return (at[0] - at[1]).rename("value").reset_index()


def takeaway(perturbed: pd.DataFrame, plain_ones: Sequence[str]) -> str:
    """What the quoted perturbation costs without and with a prior, where it leads, and where
    isotropic noise of the same s does; all verdicts against an autoencoder hold together."""
    risen = rise(perturbed)
    measured = {"rise": risen} | {unit: level(perturbed, unit) for unit in UNITS}
    costs = summary(risen, "variant")
    own = spoken_of({v: costs[v] for v in plain_ones if v in costs} or costs)
    text = (
        f"Noise shaped like the codes, at {RELATIVE:g} of their standard deviations, raises the "
        f"test cross-entropy: {own} nats"
    )
    told = [claim for p in plain_ones for claim in claims(against(p, measured), False)]
    said = {name: claimed(of_quantity(told, name), "lower", "higher") for name in UNITS}
    risen = claimed(of_quantity(told, "rise"), "smaller", "larger")
    parts = [text + (f"; against that, the rise is {risen}" if risen else "")]
    if shaped := said["covariance"]:
        parts.append(f"At that noise the cross-entropy itself is {shaped}")
        parts += [crossing(perturbed, plain) for plain in plain_ones]
    if isotropic := said["absolute"]:
        parts.append(
            f"With isotropic noise of s = {RELATIVE:g}, which is another share of each one's code, "
            f"it is {isotropic}"
        )
    return points(*(f"{part}." for part in parts if part))


def crossing(perturbed: pd.DataFrame, plain: str) -> str:
    """Up to which noise a mean cross-entropy is above an autoencoder's, where it is below from
    there on; "" for none."""
    shaped = select(perturbed, noise_unit="covariance")
    means = shaped.pivot_table("value", "variant", "noise_scale")
    if plain not in means.index:
        return ""
    above, until = means.gt(means.loc[plain]).drop(index=plain), {}
    for variant in ordered(above.index):
        higher = above.loc[variant]
        if higher.any() and not higher.all() and higher.is_monotonic_decreasing:
            until.setdefault(higher[higher].index.max(), []).append(f"`{title(variant)}`")
    ends = {s: f"up to s = {s:g}" if s else "at s = 0 only" for s in sorted(until)}
    said = [f"{end} for {listing(until[s])}" for s, end in ends.items()]
    lead = f"In the mean, without a verdict, it is above the `{title(plain)}`'s"
    return f"{lead} {'; '.join(said)}; with more noise below it" if said else ""


def _perturbed_table(rows: pd.DataFrame, perturbed: pd.DataFrame) -> Table:
    shaped = select(perturbed, noise_unit="covariance")
    found = summary(shaped, ["variant", "noise_scale"])
    found |= summary(select(rows, metric="code_std"), ["variant", "metric"])
    scales = {s: Column(f"s = {s:g} std", 1) for s in sorted(set(shaped.noise_scale))}
    caption = "Cross-entropy of test images decoded from perturbed codes."
    columns = {"code_std": Column("std of codes")} | scales
    return Table.of_variants("perturbed_codes", columns, found, caption)


def _perturbed_figure(perturbed: pd.DataFrame) -> Figure:
    keys = ["variant", "unit", "s"]
    rows = perturbed.assign(unit=perturbed.noise_unit.map(UNITS), s=perturbed.noise_scale)
    frame = draw.as_frame(summary(rows, keys), *keys)
    spread, scales = {"nice": False, "padding": 10}, sorted(frame.s.unique())
    across = alt.Axis(values=scales, format="~g", tickCount=len(scales))
    up = draw.scale_of(log=True, **spread)
    marks = alt.Axis(
        values=[step * 10**power for power in range(4) for step in (1, 1.5, 2, 3, 4, 5, 7)]
    )
    lines = draw.curves(
        frame,
        # the small scales, which a linear axis would crush
        alt.X("s:Q", title="scale s", scale=alt.Scale(type="sqrt", **spread), axis=across),
        alt.Y("value:Q", title="cross-entropy (nats per image)", scale=up, axis=marks),
        width=330,
    )
    chart = draw.panels(lines, "unit", [*UNITS.values()])
    low, high = frame.value.min(), frame.value.max()
    return captioned(__file__, "perturbed_codes", chart, low=low, high=high)


def _decoded_figure(results: Results) -> Figure | None:
    """Decoded perturbed codes of a few test images, a row each variant."""
    decoded = results.arrays("generalization", "noised_codes")
    if not decoded or not has_images(results):
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
