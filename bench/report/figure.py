"""Figures are specifications over rows: one Altair chart is the page's and the PNG's.

The few pictures made of images are drawn by matplotlib instead. Every figure says in words how it
is read, and has an alternative text.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import altair as alt
import numpy as np
import pandas as pd

from bench.report import drawing
from bench.report.style import colour, in_order, ordered, title

if TYPE_CHECKING:
    import matplotlib.figure
    from matplotlib.axes import Axes

    from bench.statistics import Estimate

alt.data_transformers.disable_max_rows()

NUMBERS = ",.6~g"
"""How an axis prints numbers where Vega would leave some out or mix 1000 and 1e+4."""
FONT = "DejaVu Sans, Helvetica, Arial, sans-serif"
LABELS = 260
"""Pixels after which a label is cut: longer than any variant's or estimator's name with its S."""
CONFIG = {
    "font": FONT,
    "axis": {
        "labelFontSize": 13,
        "labelLimit": LABELS,
        "titleFontSize": 14,
        "titleFontWeight": "normal",
        "gridOpacity": 0.5,
        "labelOverlap": "parity",
        "labelSeparation": 4,
        "labelFlush": False,
    },
    "axisX": {"tickCount": 4},
    "header": {"labelFontSize": 14, "titleFontSize": 14, "labelFontWeight": "bold"},
    "legend": {
        "labelFontSize": 13,
        "titleFontSize": 13,
        "symbolStrokeWidth": 3,
        "labelLimit": LABELS,
    },
    "title": {"fontSize": 15, "anchor": "start", "offset": 12},
    "view": {"strokeOpacity": 0.25},
}


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: of its file, `figures/<name>.png`.
        title: what it shows; the data set's name is added where data take part.
        how: how to read it, in at most two sentences.
        alt: what is seen, for who cannot see it.
        chart: its specification, or
        draw: a function that draws it with matplotlib.
        filters: columns of the chart's data by which the page lets a reader choose, besides
            `variant`, e.g. `("estimator", "stage")`.
        of_data: whether data take part.
    """

    name: str
    title: str
    how: str
    alt: str
    chart: alt.TopLevelMixin | None = None
    draw: Callable[[], matplotlib.figure.Figure] | None = None
    filters: tuple[str, ...] = ()
    of_data: bool = True

    def titled(self, dataset: str) -> str:
        """The title with the data set's name, where data take part."""
        return f"{self.title}: {dataset}" if self.of_data else self.title

    def specification(self, dataset: str) -> dict:
        """The chart as Vega-Lite, titled with the data set's name."""
        # a dictionary, since Altair copies a chart with all its data to set a property
        whole = self.chart.to_dict(validate=False)
        view = {**whole["config"]["view"], **CONFIG["view"]}
        return whole | {
            "title": self.titled(dataset),
            "description": self.alt,
            "config": {**CONFIG, "view": view},
        }

    def picture(self, dataset: str) -> bytes:
        """What matplotlib draws as PNG, titled with the data set's name."""
        canvas = self.draw()
        canvas.suptitle(self.titled(dataset), fontsize=14, weight="bold", x=0.01, ha="left")
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="png", dpi=85, metadata={"Software": None})
        return buffer.getvalue()

    def png(self, dataset: str) -> bytes:
        """The figure as it is stored."""
        if self.draw is not None:
            return drawing.smaller(self.picture(dataset))
        return drawing.png(self.specification(dataset))


# --- charts ----------------------------------------------------------------------------------


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows for a chart: variants as they are printed, from simple to flexible."""
    frame = in_order(frame, "variant")
    return frame.assign(variant=frame.variant.map(title))


def as_frame(found: Mapping[tuple, Estimate], *columns: str) -> pd.DataFrame:
    """Estimates for a chart: their keys in these columns, then `value`, `low` and `high`."""
    lines = [(*key, e.mean, e.low, e.high) for key, e in found.items() if e]
    return pd.DataFrame(lines, columns=[*columns, "value", "low", "high"])


def by_variant(variants: Sequence[str]) -> alt.Color:
    """Colour by variant; `variants` are names of files."""
    known = ordered(variants)
    scale = alt.Scale(domain=[title(v) for v in known], range=[colour(v) for v in known])
    return alt.Color("variant:N", scale=scale, legend=alt.Legend(title=None))


def variant_axis(variants: Sequence[str]) -> alt.Y:
    """Variants down the vertical axis, from simple to flexible."""
    return alt.Y("variant:N", sort=[title(v) for v in ordered(variants)], title=None)


def scale_of(log: bool, **options) -> alt.Scale:
    """A linear axis that need not contain zero, or a logarithmic one."""
    return alt.Scale(type="log", **options) if log else alt.Scale(zero=False, **options)


def tooltips(frame: pd.DataFrame) -> list[alt.Tooltip]:
    """The values shown under the pointer: every column but an interval's ends, numbers short."""
    # objects, since Altair takes 10 ms to make one of a string
    return [
        alt.Tooltip(c, format=".4g") if frame[c].dtype.kind in "fiu" else alt.Tooltip(c)
        for c in frame
        if c not in ("low", "high")
    ]


def curves(
    frame: pd.DataFrame,
    x: tuple[str, str] | alt.X,
    y: tuple[str, str] | alt.Y,
    colours: alt.Color | None = None,
    *,
    log: str = "",
    dash: alt.StrokeDash | None = None,
    ticks: Sequence[float] = (),
    width: int = 420,
    height: int = 300,
) -> alt.LayerChart:
    """Lines with points and intervals (columns `low` and `high`, where the frame has them).

    `x` and `y` are (column, title with unit) or Altair's own; without `colours` a line is a
    variant's; `log` names the logarithmic axes, e.g. "xy".
    """
    if colours is None:
        frame, colours = named(frame), by_variant(frame.variant.unique())
    axis = (
        alt.Axis(values=list(ticks), tickCount=len(ticks), format=NUMBERS) if ticks else alt.Axis()
    )
    if not isinstance(x, alt.X):
        # room for the marks at both ends
        scale = scale_of("x" in log, nice=False, padding=10)
        x = alt.X(f"{x[0]}:Q", title=x[1], scale=scale, axis=axis)
    if not isinstance(y, alt.Y):
        fewer = alt.Axis(tickCount=height // 50, format=NUMBERS) if "y" in log else alt.Axis()
        y = alt.Y(f"{y[0]}:Q", title=y[1], scale=scale_of("y" in log), axis=fewer)
    detail = {"strokeDash": dash} if dash is not None else {}
    base = alt.Chart(frame).encode(x=x, color=colours)
    points = base.mark_point(filled=True, size=45, opacity=1, clip=True)
    layers = [
        base.mark_line(clip=True).encode(y=y, **detail),
        points.encode(y=y, tooltip=tooltips(frame)),
    ]
    if "low" in frame:
        bars = base.mark_rule(clip=True, strokeWidth=1.5)
        low = y.copy()
        low.shorthand = "low:Q"
        layers.append(bars.encode(y=low, y2=alt.Y2("high")))
    return alt.layer(*layers).properties(width=width, height=height)


def intervals(
    frame: pd.DataFrame,
    x: tuple[str, str],
    y: alt.Y,
    colours: alt.Color,
    *,
    width: int = 460,
    step: int = 34,
) -> alt.LayerChart:
    """A point with its interval (columns `low` and `high`) a line of the vertical axis."""
    base = alt.Chart(frame).encode(y=y, color=colours)
    across, low = (alt.X(f"{name}:Q", title=x[1], scale=scale_of(False)) for name in (x[0], "low"))
    return alt.layer(
        base.mark_rule(strokeWidth=2).encode(x=low, x2=alt.X2("high")),
        base.mark_point(filled=True, size=110, opacity=1).encode(x=across, tooltip=tooltips(frame)),
    ).properties(width=width, height=alt.Step(step))


def variant_intervals(
    found: Mapping[str, Estimate], x: tuple[str, str], step: int = 34
) -> alt.LayerChart:
    """An estimate with its interval a line, each a variant's in its colour."""
    points = [{"variant": v, x[0]: e.mean, "low": e.low, "high": e.high} for v, e in found.items()]
    axis, colours = variant_axis(found), by_variant(found).legend(None)
    return intervals(named(pd.DataFrame(points)), x, axis, colours, step=step)


def joined(
    frame: pd.DataFrame, x: tuple[str, str], marks: tuple[str, Mapping[str, str]], width: int = 260
) -> alt.LayerChart:
    """A line for each variant that joins its points; `marks`: (column, its value → shape)."""
    column, shapes = marks
    variants = frame.variant.unique()
    base = alt.Chart(named(frame)).encode(
        x=alt.X(f"{x[0]}:Q", title=x[1]),
        y=variant_axis(variants),
        color=by_variant(variants).legend(None),
    )
    scale = alt.Scale(domain=[*shapes], range=[*shapes.values()])
    shape = alt.Shape(f"{column}:N", scale=scale, title=None)
    line = base.mark_line(strokeWidth=1.5, opacity=0.4)
    point = base.mark_point(filled=True, size=90, opacity=1)
    chart = line + point.encode(shape=shape, tooltip=tooltips(frame))
    return chart.properties(width=width, height=alt.Step(26))


def line_at(value: float, axis: Literal["x", "y"] = "y") -> alt.Chart:
    """A grey line across an axis, at a value of it, e.g. at no difference."""
    rule = alt.Chart(pd.DataFrame({"at": [value]})).mark_rule(color="#888", strokeDash=[4, 3])
    return rule.encode(alt.X("at:Q") if axis == "x" else alt.Y("at:Q"))


def panels(
    chart: alt.LayerChart, by: str, order: Sequence[str], columns: int = 3
) -> alt.FacetChart:
    """A panel each value of a column, all layers sharing the chart's data."""
    return chart.facet(facet=alt.Facet(f"{by}:N", title=None, sort=list(order)), columns=columns)


# --- pictures made of images -----------------------------------------------------------------


def subplots(width: float, height: float, **options) -> tuple[matplotlib.figure.Figure, np.ndarray]:
    """A matplotlib figure and its axes `(rows, columns)`."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    return canvas, canvas.subplots(squeeze=False, **options)


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
    axes.spines[:].set_visible(False)


def name_row(axes: Axes, variant: str) -> None:
    """The variant's name to the left of the axes, a dot of its colour beside it."""
    axes.set_ylabel(title(variant), rotation=0, ha="right", va="center", fontsize=12, labelpad=26)
    dot = {"color": colour(variant), "fontsize": 16, "ha": "center", "va": "center"}
    place = {"xy": (0, 0.5), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate("●", xytext=(-13, 0), annotation_clip=False, **dot, **place)
