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
        mean = f"{self.mean:.{digits}f}".replace("-", "−")
        return mean if math.isnan(self.half_width) else f"{mean} ± {self.half_width:.{digits}f}"


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
