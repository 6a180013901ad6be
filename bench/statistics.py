"""Statistics shared by measurements and reports, each written once, by scipy where it has them.

Intervals are 95 %, Student's t. Over seeds the values are the seeds'; where one trained model was
measured, the interval comes from a standard error over images or noise. An interval that holds both
says so where it is printed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import interpolate, stats

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE = 0.95
NORMAL = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
"""Standard errors in a half-width where they are known, not estimated from a few values."""
STRAIGHT = 0.9
"""R² from which points in logarithms are called a power law."""


@dataclass(frozen=True)
class Estimate:
    """A mean with the half-width of its 95 % interval (NaN where one value gives none).

    Attributes:
        n: one more than the degrees of freedom of its t-distribution; of a mean, how many values.
        beside: (half-width, n) of an interval that is narrower at 95 %, from another source of
            error. At the stricter level of one comparison among many it may be the wider one, so
            that a test asks both.
    """

    mean: float = math.nan
    half_width: float = math.nan
    n: float = 0
    beside: tuple[float, float] | None = None

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    def __bool__(self) -> bool:
        """Whether there is a number at all."""
        return math.isfinite(self.mean)


def interval(values: Iterable[float]) -> Estimate:
    """Mean and t-interval over independent values (seeds); NaNs, which are no values, left out."""
    array = np.asarray([v for v in values if not pd.isna(v)], dtype=float)
    if len(array) < 2:
        return Estimate(float(array[0]) if len(array) else math.nan, math.nan, len(array))
    error = 0.0 if np.ptp(array) == 0 else float(stats.sem(array))
    return from_error(float(array.mean()), error, len(array))


def summary(rows: pd.DataFrame, by: str | list[str]) -> dict[Hashable, Estimate]:
    """Group → mean of its rows' values with a t-interval over them, groups in the rows' order.

    A group is the value of the column `by`, or the tuple of the columns' values.
    """
    found = rows.groupby(by, sort=False).value.agg(["mean", "sem", "count"])
    return {group: from_error(*line) for group, *line in found.itertuples()}


def from_error(value: float, standard_error: float, n: int) -> Estimate:
    """A measured value whose standard error comes from `n` independent images or estimates."""
    if not math.isfinite(standard_error):
        return Estimate(value, math.nan, n)
    return Estimate(value, _quantile(n - 1) * standard_error, n)


@functools.cache
def _quantile(free: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, max(free, 1)))


def mean_over_images(values: Tensor) -> tuple[float, float]:
    """Mean of per-image values `(N,)` and its standard error over the images."""
    array = values.double().cpu().numpy()
    return float(array.mean()), float(stats.sem(array))


def paired_difference(rows: pd.DataFrame, one: str, other: str, by: str = "variant") -> Estimate:
    """Mean of `one` − `other` over the seeds both have; rows of one metric and one setting."""
    values = [rows[rows[by] == name].set_index("seed").value for name in (one, other)]
    return interval((values[0] - values[1]).dropna())


def welch_difference(one: Iterable[float], other: Iterable[float]) -> Estimate:
    """Mean of `one` − mean of `other`, independent values of unequal variances (Welch 1947).

    Two values or more of each; `n` is one more than the t-distribution's degrees of freedom.
    """
    one, other = (np.asarray([*values], dtype=float) for values in (one, other))
    difference = float(one.mean() - other.mean())
    if np.ptp(one) == np.ptp(other) == 0:
        return from_error(difference, 0.0, len(one) + len(other) - 1)
    free = float(stats.ttest_ind(one, other, equal_var=False).df)
    return from_error(difference, math.hypot(stats.sem(one), stats.sem(other)), free + 1)


def ratio_of_means(above: Iterable[float], below: Iterable[float]) -> Estimate:
    """Mean of `above` ÷ mean of `below`, paired values, with its interval over the pairs.

    By the delta method (Cochran 1977, sec. 6.3), for a mean of `below` that is told from zero.
    """
    above, below = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    ratio, size = above.mean() / below.mean(), abs(below.mean())
    return replace(interval((above - ratio * below) / size), mean=float(ratio))


@dataclass(frozen=True)
class PowerLaw:
    """y as a power of x, fitted to their logarithms by least squares.

    Attributes:
        exponent: with its interval, from the scatter about the line (none from two points).
        r_squared: the share of the scatter of log y that the line explains; NaN where fewer than
            three different x have a y.
    """

    exponent: Estimate
    r_squared: float = math.nan

    @property
    def holds(self) -> bool:
        """Whether the points lie on a line well enough to have an exponent."""
        return self.r_squared >= STRAIGHT


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """The fit to these points; those without a positive y are left out.

    Two points give an exponent without an interval, fewer none.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    fine = np.isfinite(y) & (y > 0)
    different = len(np.unique(x[fine]))
    if different < 2:
        return PowerLaw(Estimate())
    fit = stats.linregress(np.log(x[fine]), np.log(y[fine]))
    free = int(fine.sum()) - 2
    half = _quantile(free) * fit.stderr if free else math.nan
    exponent = Estimate(float(fit.slope), half, max(free, 1) + 1)
    return PowerLaw(exponent, float(fit.rvalue**2) if different > 2 else math.nan)


def between(x: Sequence[float], y: Sequence[float], at: float) -> float:
    """y at a place between ascending x, along a smooth curve through all points that rises and
    falls only where they do (Fritsch & Carlson 1980), in the logarithm of x; beyond them the
    nearest. Not finite beside a point that is not.

    >>> between([1.0, 2.0, 4.0], [0.0, 1.0, 1.5], at=3.0) > 1.25  # where a chord is
    True
    """
    chord = on_chord(x, y, at)
    values = np.asarray(y, dtype=float)
    known = np.isfinite(values)
    if not math.isfinite(chord) or known.sum() < 2:
        return chord
    logarithms = np.log(np.asarray(x, dtype=float))
    curve = interpolate.PchipInterpolator(logarithms[known], values[known])
    return float(curve(np.clip(math.log(at), logarithms[0], logarithms[-1])))


def on_chord(x: Sequence[float], y: Sequence[float], at: float) -> float:
    """The same, linear between the two neighbours."""
    return float(np.interp(math.log(at), np.log(np.asarray(x, dtype=float)), y))


def read_between(curve: Iterable[float], chord: Iterable[float]) -> Estimate:
    """Differences that were read between points, one a seed: the mean of the curve's, and their
    interval, to which is added how far the chord's lie from them, which is alike in all seeds."""
    read, straight = interval(curve), interval(chord)
    return replace(read, half_width=read.half_width + abs(read.mean - straight.mean))


def p_value(difference: Estimate) -> float:
    """Of the two-sided t-test that the difference is zero; the larger one where it has two
    intervals."""
    if difference.beside is not None:
        half_width, n = difference.beside
        other = Estimate(difference.mean, half_width, n)
        return max(p_value(replace(difference, beside=None)), p_value(other))
    if math.isnan(difference.half_width) or difference.n < 2:
        return math.nan
    if difference.half_width == 0:
        return float(difference.mean == 0)
    free = difference.n - 1
    error = difference.half_width / _quantile(free)
    return float(2 * stats.t.sf(abs(difference.mean) / error, free))


def holm(p_values: Sequence[float], level: float = 1 - CONFIDENCE) -> list[bool]:
    """Which hypotheses are rejected together at the family-wise level (Holm 1979); NaN: none."""
    order = sorted(
        range(len(p_values)), key=lambda i: math.inf if math.isnan(p_values[i]) else p_values[i]
    )
    rejected = [False] * len(p_values)
    for place, i in enumerate(order):
        if not p_values[i] <= level / (len(p_values) - place):
            break
        rejected[i] = True
    return rejected
