"""What every section of the report shares: statistics over seeds, colours, tables, figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from vaes import discover

# Okabe & Ito's palette: distinguishable with every common colour-vision deficiency
PALETTE = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#8C6D1F")
STYLE = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Results:
    """The stored results a report is made from.

    Attributes:
        rows: tidy rows, columns `dataset device variant seed measurement metric setting value
            standard_error n unit`.
        history: one line a run and epoch: `variant seed hyperparameters epoch valid_elbo …`.
        pictures: `measurement/variant/seed/name` → small array.
        folder: where tables and `figures/` are written.
    """

    rows: pd.DataFrame
    history: pd.DataFrame
    pictures: Mapping[str, np.ndarray]
    folder: Path

    def measured(self, measurement: str, metric: str | None = None) -> pd.DataFrame:
        """The rows of a measurement, each `key` of their settings a column of its own."""
        chosen = self.rows[self.rows.measurement == measurement]
        if metric is not None:
            chosen = chosen[chosen.metric == metric]
        pairs = chosen.setting.fillna("").map(
            lambda text: dict(pair.split("=", 1) for pair in text.split(";") if "=" in pair)
        )
        settings = pd.DataFrame(pairs.tolist(), index=chosen.index)
        return chosen.join(settings.apply(_numeric))

    def variants(self) -> list[str]:
        """The variants with rows, from simple to flexible."""
        present = set(self.rows.variant)
        return [v for v in order() if v in present] + sorted(present - set(order()))


@dataclass
class Section:
    """One part of the results page.

    Attributes:
        title: heading.
        takeaway: the sentence a reader should take away, computed from the rows.
        table: markdown of the main table ("" for none).
        figures: (file under the folder, how to read it in at most two sentences).
        files: further files under the folder.
        notes: markdown below the table.
    """

    title: str
    takeaway: str
    table: str = ""
    figures: list[tuple[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: str = ""


def _numeric(column: pd.Series) -> pd.Series:
    """Numbers where every value is one, else text."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().sum() == column.notna().sum() else column


def order() -> list[str]:
    """Variants from simple to flexible."""
    return list(discover().variants)


def colour(variant: str) -> str:
    """The variant's colour, the same in every figure."""
    known = order()
    place = known.index(variant) if variant in known else len(known)
    return PALETTE[place % len(PALETTE)]


def title(variant: str) -> str:
    """`input_dependent` → `input-dependent`; for axes and tables."""
    return variant.replace("_", "-")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with the half-width of its 95 % confidence interval (t)."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    def text(self, digits: int = 2) -> str:
        """`−98.31 ± 0.12`; the bare mean where one seed gives no interval; a dash for none."""
        if not math.isfinite(self.mean):
            return "–"
        mean = decimal(self.mean, digits)
        return mean if math.isnan(self.half_width) else f"{mean} ± {self.half_width:.{digits}f}"


def number(value: float, half_width: float = math.nan) -> str:
    """`17.5 ± 0.6`, `1.52e4 ± 0.05e4`: two digits of the interval, or three of a bare number."""
    if not math.isfinite(value):
        return f"{value:g}".replace("nan", "NaN").replace("-", "−")
    interval = math.isfinite(half_width) and half_width > 0
    power = math.floor(math.log10(abs(value))) if value else 0
    shift = power if power >= 4 or power < -3 else 0
    value, half_width = value / 10.0**shift, half_width / 10.0**shift
    last = half_width / 10 if interval else abs(value) / 100
    digits = max(0, -math.floor(math.log10(last))) if last > 0 else 0
    power = f"e{shift}" if shift else ""
    text = f"{value:.{digits}f}{power}"
    text += f" ± {half_width:.{digits}f}{power}" if interval else ""
    return text.replace("-", "−")


def decimal(value: float, digits: int = 2, sign: str = "") -> str:
    """`−95.46`: so many decimals and a true minus sign; `sign` is a format's, e.g. `+`."""
    return f"{value:{sign}.{digits}f}".replace("-", "−")


def over_seeds(values: Iterable[float]) -> Estimate:
    """Mean and 95 % t-interval over the seeds' values; NaNs (no such number) are left out."""
    array = np.asarray([v for v in values if not math.isnan(v)], dtype=float)
    if len(array) == 0:
        return Estimate(math.nan, math.nan, 0)
    if len(array) == 1:
        return Estimate(float(array[0]), math.nan, 1)
    error = array.std(ddof=1) / math.sqrt(len(array))
    return Estimate(
        float(array.mean()), float(stats.t.ppf(0.975, len(array) - 1) * error), len(array)
    )


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A markdown table; the first column is text, the others are right-aligned."""
    rule = [":--"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *lines])


def embolden(cells: list[str], values: Sequence[float], best: str = "max") -> list[str]:
    """Bold the cell of the best finite value (`max` or `min`)."""
    finite = [(v, i) for i, v in enumerate(values) if math.isfinite(v)]
    if finite:
        _, place = max(finite) if best == "max" else min(finite)
        cells = [f"**{c}**" if i == place else c for i, c in enumerate(cells)]
    return cells


def write_table(results: Results, name: str, frame: pd.DataFrame, takeaway: str, text: str) -> None:
    """`<name>.csv` (every digit) and `<name>.md` (takeaway, then the table)."""
    frame.to_csv(results.folder / f"{name}.csv", index=False)
    (results.folder / f"{name}.md").write_text(f"{takeaway}\n\n{text}\n")


def new_figure(width: float = 8, height: float = 5, **subplots) -> tuple[Figure, object]:
    """Figure and axes in the house style."""
    plt.rcParams.update(STYLE)
    return plt.subplots(figsize=(width, height), **subplots)


def save(results: Results, figure: Figure, name: str) -> str:
    """Write `figures/<name>.png`; its path relative to the folder."""
    path = results.folder / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return f"figures/{name}.png"


def tiles(images: np.ndarray, columns: int) -> np.ndarray:
    """Images `(N, H, W)` in rows of `columns`, a line of zeros between them."""
    count, height, width = images.shape
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1), dtype=images.dtype)
    for place, image in enumerate(images):
        top, left = (height + 1) * (place // columns), (width + 1) * (place % columns)
        canvas[top : top + height, left : left + width] = image
    return canvas


def show(axes: Axes, image: np.ndarray, **options) -> None:
    """Draw a uint8 image, ink on paper: 0 white, 255 black."""
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=255, **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def name_row(axes: Axes, variant: str) -> None:
    """The variant's name, in its colour, to the left of the axes."""
    axes.set_ylabel(
        title(variant), rotation=0, ha="right", va="center", fontsize=12, color=colour(variant)
    )
