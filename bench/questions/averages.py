"""Rows that several questions make of per-image values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bench.grid.contract import Result, Row
from bench.statistics import mean_over_images

NATS = "nats/image"


def image_mean(
    metric: str, values: Tensor, unit: str = NATS, settings: Mapping[str, object] | None = None
) -> Row:
    """The mean of values `(N,)` of independent images; its standard error is over the images."""
    value, error = mean_over_images(values)
    return Row(metric, value, unit, settings or {}, error, len(values))


def jackknife(statistic: Callable[[Tensor], Tensor], per_image: Tensor) -> tuple[float, float]:
    """A function of means over images, and its standard error by leaving out one image at a time.

    per_image `(K, B)`; `statistic` maps means `(K, ...)` to `(...)`.
    """
    count = per_image.shape[1]
    value = statistic(per_image.mean(1))
    left_out = statistic((per_image.sum(1, keepdim=True) - per_image) / (count - 1))
    error = ((count - 1) * left_out.var(correction=0)).sqrt()
    return value.item(), error.item()


def log_log_slope(x: Sequence[float], y: Tensor) -> Tensor:
    """Least-squares exponents of y `(len(x), ...)` as powers of x, for the jackknife all at once.

    Not finite where a y is not positive: `bench.statistics.power_law`, for one line, leaves such a
    point out.
    """
    along = torch.tensor(x, dtype=y.dtype, device=y.device).log()
    along = along - along.mean()
    return torch.tensordot(along / along.square().sum(), y.log(), 1)


def monte_carlo_mean(
    metric: str, values: Tensor, errors: Tensor, settings: Mapping[str, object] | None = None
) -> Row:
    """The mean over these images of values `(N,)` in nats, each with its own standard error.

    The errors `(N,)` are independent Monte Carlo errors; the images themselves are given.
    """
    error = (errors.square().sum().sqrt() / len(values)).item()
    return Row(metric, values.mean().item(), NATS, settings or {}, error, len(values))


def paired_differences(
    results: Mapping[tuple[str, int], Result], reference: str, names: Sequence[str] = ()
) -> Iterator[tuple[str, int, Row]]:
    """Mean differences to the reference variant, image by image, within each seed.

    Yields `(variant, seed, Row)` for every array of per-image values that both results have, or
    for those of `names`; the standard error is over the pairs. Its settings are those of the one
    row of that name, where there is one alone.
    """
    for (variant, seed), result in results.items():
        other = results.get((reference, seed))
        if other is None or variant == reference:
            continue
        for name in sorted(result.arrays.keys() & other.arrays.keys()):
            if not names or name in names:
                difference = result.arrays[name] - other.arrays[name]
                own = [row.settings for row in result.rows if row.metric == name]
                settings = {**(own[0] if len(own) == 1 else {}), "reference": reference}
                yield variant, seed, image_mean(f"{name}_difference", difference, NATS, settings)
