"""Rows that several questions make of per-image values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
    for those of `names`; the standard error is over the pairs.
    """
    for (variant, seed), result in results.items():
        other = results.get((reference, seed))
        if other is None or variant == reference:
            continue
        for name in sorted(result.arrays.keys() & other.arrays.keys()):
            if not names or name in names:
                difference = result.arrays[name] - other.arrays[name]
                settings = {"reference": reference}
                yield variant, seed, image_mean(f"{name}_difference", difference, NATS, settings)
