"""Pictures people look at: samples, the units in use, and a two-dimensional latent space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from bench.questions.headline import ACTIVE_VARIANCE
from bench.report import figure as drawn
from bench.report.claims import grouped
from bench.report.figure import NUMBERS, Figure, by_variant, curves, line_at, scale_of
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, has_images, prose
from bench.report.style import title
from bench.report.table import Column, Table, decimal
from bench.statistics import summary

if TYPE_CHECKING:
    import matplotlib.figure

QUESTION = "pictures"
ELLIPSES = 60
"""Of the encoded images, those whose ellipse is drawn."""
SIGMAS = 2
"""Half-axes of the ellipses drawn, in σ."""
ACROSS = 8
"""Images side by side."""
INSIDE = 0.98
"""Share of codes in the frame of the latent plane, along each axis."""
POINT = 1e-6
"""A σ below this is a point: the code has no spread."""
TURN = "sequence(0, 6.5, 0.2)"
"""Angles at which an ellipse is drawn, a little more than a turn."""
COLUMNS = {
    "plane_elbo": Column("validation ELBO", 1),
    "plane_distortion": Column("distortion", 1),
    "median": Column("median σ", 3),
    "low": Column("σ, 10 % quantile", 3),
    "high": Column("σ, 90 % quantile", 3),
}
NO_IMAGES = "Decoded pictures are left out: an entry of these data is a line of values, no image."
SHAPES = {
    "point": "as a point by",
    "size": "as an ellipse of one size by",
    "sizes": "as ellipses of different sizes by",
}
Arrays = dict[str, np.ndarray]
"""Variant → array."""


def sections(results: Results) -> list[Section]:
    """Samples with the directions in use, and the latent plane; [] where no pictures were taken."""
    return [*_samples(results), *_plane(results)]


# --- samples and units -----------------------------------------------------------------------


def _samples(results: Results) -> list[Section]:
    prior = results.arrays(QUESTION, "prior_samples")
    if not prior:
        return []
    rows = results.of(QUESTION, "direction_variance").sort_values("value", ascending=False)
    used = {v: select(rows, variant=v).value > ACTIVE_VARIANCE for v in results.variants(rows)}
    active = [f"`{title(v)}` {its.sum()} of {len(its)}" for v, its in used.items()]
    over_seeds = " (the headline's table has the mean over seeds)"
    over_seeds *= bool(len(results.of("headline", "active_directions")))
    takeaway = (
        f"Directions in use (variance of the posterior mean above {ACTIVE_VARIANCE:g}) in seed 0"
        f"{over_seeds}: {', '.join(active) or 'none measured'}."
    )
    figures = [_units_figure(rows, takeaway.replace("`", ""))]
    if not has_images(results):
        return [Section("What the models use", takeaway, figures=figures, notes=NO_IMAGES)]
    figures = [_samples_figure(results, prior), *figures]
    return [Section("What the models draw", takeaway, figures=figures)]


def _samples_figure(results: Results, prior: Arrays) -> Figure:
    """Rows: originals, then a variant each; columns: reconstructions, prior samples."""
    reconstructions = results.arrays(QUESTION, "reconstructions")
    originals, *_ = results.arrays(QUESTION, "originals").values()

    def draw() -> matplotlib.figure.Figure:
        count = len(prior) + 1
        figure, panels = drawn.subplots(8.6, 1.02 * count + 0.5, nrows=count, ncols=2)
        figure.get_layout_engine().set(wspace=0.05, h_pad=0.02)
        drawn.show(panels[0, 0], drawn.tiles(originals, ACROSS))
        panels[0, 0].set_ylabel("test images", rotation=0, ha="right", va="center", fontsize=12)
        panels[0, 1].set_visible(False)
        for (left, right), variant in zip(panels[1:], prior):
            drawn.show(left, drawn.tiles(reconstructions[variant], ACROSS))
            drawn.show(right, drawn.tiles(prior[variant], ACROSS))
            drawn.name_row(left, variant)
        panels[1, 0].set_title("reconstructions", fontsize=12)
        panels[1, 1].set_title("decoded draws of the prior", fontsize=12)
        return figure

    return captioned(__file__, "samples", draw=draw, variants=", ".join(map(title, prior)))


def _units_figure(rows: pd.DataFrame, counts: str) -> Figure | None:
    frame = rows[["variant"]].assign(latent=rows.groupby("variant").cumcount() + 1)
    frame = frame.assign(variance=rows.value)[rows.value > 0]
    if frame.empty:
        return None
    x, y = alt.X("latent:Q", title="direction, by variance"), alt.Y("variance:Q")
    x = x.scale(scale_of(False, nice=False, padding=10)).axis(tickMinStep=1)
    y = y.title("variance of the posterior mean").axis(tickCount=6, format=NUMBERS)
    y = y.scale(scale_of(True, nice=False, padding=10))
    chart = curves(frame, x, y) + line_at(ACTIVE_VARIANCE)
    return captioned(__file__, "active_units", chart, active=ACTIVE_VARIANCE, counts=counts)


# --- the latent plane ------------------------------------------------------------------------


def _plane(results: Results) -> list[Section]:
    names = ("codes", "covariances", "manifold", "axes")
    arrays = {name: results.arrays(QUESTION, name) for name in (*names, "labels", "own_prior")}
    variants = [v for v in arrays["codes"] if all(v in arrays[name] for name in names)]
    if not variants:
        return []
    sigmas = {variant: spreads(arrays["covariances"][variant]) for variant in variants}
    rows = results.of(QUESTION, variant=variants)
    entries = summary(rows, ["variant", "metric"])
    for variant, sigma in sigmas.items():
        shown = sigma if np.quantile(sigma, 0.9) > POINT else [math.nan]
        quantiles = zip(("low", "median", "high"), np.quantile(shown, (0.1, 0.5, 0.9)))
        entries |= {(variant, name): value for name, value in quantiles}
    caption = "Models of two latents, and their posteriors' size"
    table = Table.of_variants("latent_plane", COLUMNS, entries, caption)
    figures = [_codes_figure(variants, arrays, sigmas)]
    figures += [_manifold_figure(variants, arrays)] * has_images(results)
    name, takeaway = "Two latents, drawn", plane_takeaway(sigmas)
    notes = prose(__file__, epochs=rows.epochs.max(), rate=rows.learning_rate.max())
    return [Section(name, takeaway, tables=[table], figures=figures, notes=notes)]


def spreads(covariances: np.ndarray) -> np.ndarray:
    """σ of each ellipse: det(Σ)^¼, the geometric mean of its half-axes; `(N, 2, 2)` → `(N,)`."""
    return np.linalg.det(covariances.astype(float)).clip(0) ** 0.25


def plane_takeaway(sigmas: Arrays) -> str:
    """Whose ellipses differ from image to image."""
    said = []
    for variant, sigma in sigmas.items():
        low, high = np.quantile(sigma, (0.1, 0.9))
        kind = "point" if high < POINT else "size" if high < 1.01 * low else "sizes"
        sizes = f" (σ from {low:.2g} to {high:.2g}, 10 % – 90 %)" * (kind == "sizes")
        said.append((kind, f"`{title(variant)}`{sizes}"))
    return f"With two latents (seed 0) a test image is encoded {grouped(said, SHAPES)}."


def _codes_figure(variants: list[str], arrays: dict[str, Arrays], sigmas: Arrays) -> Figure:
    charts = (_panel(v, variants, arrays, sigmas[v]) for v in variants)
    said = {"ellipses": ELLIPSES, "sigmas": SIGMAS, "outside": round(100 * (1 - INSIDE), 3)}
    said["takeaway"] = plane_takeaway(sigmas).replace("`", "")
    return captioned(__file__, "latent_plane", alt.concat(*charts, columns=3), **said)


def _panel(
    variant: str, variants: list[str], arrays: dict[str, Arrays], sigma: np.ndarray
) -> alt.LayerChart:
    """A line an image: its code, and the half-axes of its one-σ ellipse as two vectors u and v."""
    codes, axes = arrays["codes"][variant].astype(float), ["ux", "uy", "vx", "vy"]
    widths, vectors = np.linalg.eigh(arrays["covariances"][variant].astype(float))
    half_axes = (vectors * np.sqrt(widths.clip(0))[:, None]).transpose(0, 2, 1).reshape(-1, 4)
    numbers = np.concatenate([codes, half_axes], 1).round(4)
    frame = pd.DataFrame(numbers, columns=["x", "y", *axes]).assign(variant=title(variant))
    frame.loc[ELLIPSES:, axes] = math.nan
    paint, shown = by_variant(variants).legend(None), ["variant", "x", "y"]
    if variant in arrays["labels"]:
        frame["class"], shown = arrays["labels"][variant].astype(str), ["class", *shown]
        paint = alt.Color("class:N", legend=alt.Legend(symbolOpacity=1)).scale(scheme="tableau10")
    reach = max(1.1 * SIGMAS, 1.1 * np.quantile(np.abs(codes), INSIDE))
    scale = alt.Scale(domain=[-reach, reach], nice=False)

    def at(x: str, y: str) -> dict:
        across, up = alt.X(f"{x}:Q", title="latent 1"), alt.Y(f"{y}:Q", title="latent 2")
        return {"x": across.scale(scale), "y": up.scale(scale)}

    outline = {
        f"p{d}": f"datum.{d} + {SIGMAS} * "
        f"(datum.u{d} * cos(datum.turn) + datum.v{d} * sin(datum.turn))"
        for d in "xy"
    }
    base = alt.Chart(frame.reset_index(names="image")).encode(color=paint)
    ellipses = base.transform_filter("isValid(datum.ux)").transform_calculate(turn=TURN)
    ellipses = ellipses.transform_flatten(["turn"]).transform_calculate(**outline)
    ellipses = ellipses.mark_line(clip=True, strokeWidth=1.5)
    points = base.mark_point(clip=True, filled=True, size=12, opacity=0.7)
    layers = [
        ellipses.encode(**at("px", "py"), detail="image:N", order="turn:Q"),
        points.encode(**at("x", "y"), tooltip=shown),
    ]
    if np.quantile(sigma, 0.9) > POINT and variant not in arrays["own_prior"]:
        turn = np.linspace(0, 2 * math.pi, 60)
        circle = pd.DataFrame({"turn": turn, "x": np.cos(turn), "y": np.sin(turn)})
        circle[["x", "y"]] = (SIGMAS * circle[["x", "y"]]).round(3)
        line = alt.Chart(circle).mark_line(color="#333", strokeDash=[5, 4])
        layers.append(line.encode(**at("x", "y"), order="turn:Q"))
    heading = alt.Title(title(variant), anchor="middle")
    return alt.layer(*layers).properties(width=270, height=270, title=heading)


def _manifold_figure(variants: list[str], arrays: dict[str, Arrays]) -> Figure:
    def draw() -> matplotlib.figure.Figure:
        columns = min(3, len(variants))
        rows = -(-len(variants) // columns)
        figure, panels = drawn.subplots(2.9 * columns, 3.2 * rows + 0.3, nrows=rows, ncols=columns)
        for axes in panels.flat[len(variants) :]:
            axes.set_visible(False)
        for axes, variant in zip(panels.flat, variants, strict=False):
            images = arrays["manifold"][variant]
            image = drawn.tiles(images.reshape(-1, *images.shape[2:]), images.shape[1])
            drawn.show(axes, image, interpolation="antialiased")
            axes.set_title(title(variant), fontsize=13)
            ends = arrays["axes"][variant][:, [0, -1]].astype(float)
            across, up = (" to ".join(decimal(end, 1) for end in pair) for pair in ends)
            axes.set_xlabel(f"latent 1: {across}", fontsize=11)
            axes.set_ylabel(f"latent 2: {up}", fontsize=11)
        return figure

    return captioned(__file__, "manifold", draw=draw, variants=", ".join(map(title, variants)))
