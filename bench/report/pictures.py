"""Pictures people look at: samples, the units in use, and a two-dimensional latent space."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_rgba

from bench.measure.elbo import ACTIVE_VARIANCE
from bench.report.common import (
    Results,
    Section,
    colour,
    decimal,
    markdown,
    name_row,
    new_figure,
    save,
    show,
    tiles,
    title,
)

PLACE = 15
MEASUREMENT = "pictures"
ELLIPSES = 80
ACROSS = 8
"""Images side by side."""
SHOWN = 3.5
"""Half the side of the plane drawn, in σ of the prior."""
POINT = 1e-6
"""Areas below this are a point: the code has no spread."""


def sections(results: Results) -> list[Section]:
    """Samples with active units, and the latent plane; [] where no pictures were taken."""
    parts = (_samples, _plane)
    return [section for part in parts for section in part(results)]


def _arrays(results: Results, name: str) -> dict[str, np.ndarray]:
    """The array of that name of every variant that has one."""
    keys = {v: f"{MEASUREMENT}/{v}/0/{name}" for v in results.variants()}
    return {v: results.pictures[key] for v, key in keys.items() if key in results.pictures}


# --- samples and units -----------------------------------------------------------------------


def _samples(results: Results) -> Iterator[Section]:
    prior = _arrays(results, "prior_samples")
    if not prior:
        return
    figures = [_samples_figure(results, prior)]
    units = unit_variances(results)
    if units:
        figures.append(_units_figure(results, units))
    yield Section("What the models draw", samples_takeaway(units), figures=figures)


def unit_variances(results: Results) -> dict[str, np.ndarray]:
    """Variance over test images of each latent's posterior mean, descending, by variant."""
    rows = results.measured(MEASUREMENT, "unit_variance")
    return {
        variant: np.sort(rows[rows.variant == variant].value)[::-1]
        for variant in results.variants()
        if variant in set(rows.variant)
    }


def samples_takeaway(units: dict[str, np.ndarray]) -> str:
    """How many latents each posterior uses."""
    counts = ", ".join(
        f"`{title(variant)}` {int((variance > ACTIVE_VARIANCE).sum())} of {len(variance)}"
        for variant, variance in units.items()
    )
    return f"Active latents (variance of the posterior mean above {ACTIVE_VARIANCE:g}), seed 0: {counts or 'none measured'}."  # noqa: E501


def _samples_figure(results: Results, prior: dict[str, np.ndarray]) -> tuple[str, str]:
    """Rows: originals, then a variant each; columns: reconstructions, prior samples."""
    reconstructions = _arrays(results, "reconstructions")
    originals = next(iter(_arrays(results, "originals").values()))
    figure, panels = new_figure(
        10.5, 1.3 * (len(prior) + 1) + 0.3, nrows=len(prior) + 1, ncols=2, squeeze=False
    )
    figure.get_layout_engine().set(wspace=0.06, h_pad=0.02)
    show(panels[0, 0], tiles(originals, ACROSS))
    panels[0, 0].set_ylabel("test images", rotation=0, ha="right", va="center", fontsize=12)
    panels[0, 1].set_visible(False)
    for row, variant in zip(panels[1:], prior):
        show(row[0], tiles(reconstructions[variant], ACROSS))
        show(row[1], tiles(prior[variant], ACROSS))
        name_row(row[0], variant)
    panels[1, 0].set_title("reconstructions", fontsize=13)
    panels[1, 1].set_title("decoded draws of N(0, I)", fontsize=13)
    how = (
        "Decoded pixel means. The right half shows what a prior buys: an autoencoder never asked "
        "its codes to look like N(0, I)."
    )
    return save(results, figure, "samples"), how


def _units_figure(results: Results, units: dict[str, np.ndarray]) -> tuple[str, str]:
    columns = min(3, len(units))
    rows = -(-len(units) // columns)
    figure, panels = new_figure(
        3.5 * columns, 2.9 * rows, nrows=rows, ncols=columns, squeeze=False, sharey=True
    )
    for axes, (variant, variance) in zip(panels.flat, units.items()):
        axes.bar(range(1, len(variance) + 1), variance, color=colour(variant))
        axes.axhline(ACTIVE_VARIANCE, color="black", ls="--", lw=1)
        axes.set_yscale("log")
        active = int((variance > ACTIVE_VARIANCE).sum())
        axes.set_title(f"{title(variant)}: {active} of {len(variance)}", fontsize=13)
    for axes in panels.flat[len(units) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("latent, by variance")
    for axes in panels[:, 0]:
        axes.set_ylabel("Var of posterior mean")
    how = (
        f"Each latent's variance over test images of its posterior mean. Those above the dashed "
        f"line ({ACTIVE_VARIANCE:g}) are active; an autoencoder has no posterior."
    )
    return save(results, figure, "active_units"), how


# --- the latent plane ------------------------------------------------------------------------


def _plane(results: Results) -> Iterator[Section]:
    codes = _arrays(results, "codes")
    if not codes:
        return
    covariances = _arrays(results, "covariances")
    table = [
        [title(variant), *_plane_cells(results, variant, areas(covariances[variant]))]
        for variant in codes
    ]
    text = markdown(["variant", "validation ELBO", "distortion", "median σ", "10 % – 90 %"], table)
    figures = [_codes_figure(results, codes, covariances), _manifold_figure(results)]
    yield Section("Two latents, drawn", plane_takeaway(covariances), text, figures, notes=NOTES)


NOTES = (
    "Separate runs with L = 2, seed 0, a fifth of the epochs; nats per validation image. σ is the "
    "geometric mean of an ellipse's two half-axes, over encoded test images."
)


def areas(covariances: np.ndarray) -> np.ndarray:
    """σ of each ellipse: det(Σ)^¼, the geometric mean of its half-axes; `(N, 2, 2)` → `(N,)`."""
    return np.linalg.det(covariances.astype(float)).clip(0) ** 0.25


def plane_takeaway(covariances: dict[str, np.ndarray]) -> str:
    """Whose ellipses differ from image to image."""
    kinds: dict[str, list[str]] = {"point": [], "same": [], "differ": []}
    for variant, some in covariances.items():
        low, high = np.quantile(areas(some), (0.1, 0.9))
        name = f"`{title(variant)}`"
        if high < POINT:
            kinds["point"].append(name)
        elif high < 1.01 * low:
            kinds["same"].append(name)
        else:
            kinds["differ"].append(f"{name} (σ from {low:.2g} to {high:.2g}, 10 % – 90 %)")
    texts = {
        "point": "encoded as a point by {}",
        "same": "as an ellipse of one size by {}",
        "differ": "as ellipses of different sizes by {}",
    }
    parts = [texts[kind].format(", ".join(names)) for kind, names in kinds.items() if names]
    return f"A test image is {'; '.join(parts)}."


def _plane_cells(results: Results, variant: str, sigma: np.ndarray) -> list[str]:
    def value(metric: str) -> str:
        rows = results.measured(MEASUREMENT, metric)
        found = rows[rows.variant == variant].value
        return decimal(found.iloc[0], 1) if len(found) else "–"

    low, median, high = np.quantile(sigma, (0.1, 0.5, 0.9))
    spread = [f"{median:.3f}", f"{low:.3f} – {high:.3f}"] if high > POINT else ["–", "–"]
    return [value("plane_elbo"), value("plane_distortion"), *spread]


def _grid(count: int, height: float, **options):
    columns = min(3, count)
    rows = -(-count // columns)
    figure, panels = new_figure(
        3.5 * columns, height * rows, nrows=rows, ncols=columns, squeeze=False, **options
    )
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    return figure, panels


def _codes_figure(
    results: Results, codes: dict[str, np.ndarray], covariances: dict[str, np.ndarray]
) -> tuple[str, str]:
    figure, panels = _grid(len(codes), 3.6)
    for axes, (variant, code) in zip(panels.flat, codes.items()):
        _draw_codes(axes, code[:ELLIPSES].astype(float), covariances[variant][:ELLIPSES], variant)
    for axes in panels[-1]:
        axes.set_xlabel("latent 1")
    for axes in panels[:, 0]:
        axes.set_ylabel("latent 2")
    how = (
        "Encoded test images with their one-σ ellipses (a point for the autoencoder, whose axes "
        "have a scale of their own). The dashed circle is one σ of the prior."
    )
    return save(results, figure, "latent_plane"), how


def _draw_codes(axes, code: np.ndarray, covariance: np.ndarray, variant: str) -> None:
    widths, vectors = np.linalg.eigh(covariance.astype(float))
    half = np.sqrt(widths.clip(0))
    axes.scatter(*code.T, s=6, color=colour(variant), zorder=3)
    axes.add_collection(
        EllipseCollection(
            2 * half[:, 1], 2 * half[:, 0],
            np.degrees(np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1])), units="xy", offsets=code,
            transOffset=axes.transData, facecolors=to_rgba(colour(variant), 0.12),
            edgecolors=colour(variant), linewidths=0.9,
        )
    )  # fmt: skip
    if half.max() > POINT:
        turn = np.linspace(0, 2 * math.pi, 100)
        axes.plot(np.cos(turn), np.sin(turn), color="black", ls="--", lw=1)
        axes.set(xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN), aspect="equal")
    axes.set_title(title(variant), fontsize=13)


def _manifold_figure(results: Results) -> tuple[str, str]:
    manifolds, axes_of = _arrays(results, "manifold"), _arrays(results, "axes")
    figure, panels = _grid(len(manifolds), 3.8)
    for axes, (variant, images) in zip(panels.flat, manifolds.items()):
        rows, columns = images.shape[:2]
        image = tiles(images.reshape(rows * columns, *images.shape[2:]), columns)
        show(axes, image, interpolation="antialiased")
        axes.set_title(title(variant), fontsize=13, color=colour(variant))
        horizontal, vertical = axes_of[variant].astype(float)
        axes.set_xlabel(f"latent 1: {horizontal[0]:.1f} to {horizontal[-1]:.1f}")
        axes.set_ylabel(f"latent 2: {vertical[0]:.1f} to {vertical[-1]:.1f}")
    how = (
        "The plane decoded at quantiles 2 % to 98 % of N(0, 1) along each axis; for the "
        "autoencoder, which has no prior, of its own codes."
    )
    return save(results, figure, "manifold"), how
