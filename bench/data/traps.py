"""Scales and copies that make numbers meaningless: refused with the remedy, or told of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.data.splits import SPLITS, Arrays
from bench.errors import BenchError

ROUNDING = 1e-5
"""Values so little outside [0, 1] are there by rounding."""
DARKEST = 16
"""Bytes that never exceed it are on a scale of their own: 0 to 16, or four bits."""
LARGEST = 1e12
"""Beyond it, single precision has no digits left for what comes after the point."""
LEVELS = 256
"""Values that a table may have and still be one of quantized pixels."""
DARKER = 8.0
"""By such a factor the brightest pixels of two splits of one scale hardly differ."""
SHIFTED, WIDER = 8.0, 100.0
"""By so many standard deviations of the training rows, or such a factor of width, splits of one
unit do not differ."""
ROWS_LOOKED_AT = 10_000
"""Of a table's columns."""


def check_numbers(what: str, array: np.ndarray) -> None:
    """Refuse what is no finite number."""
    if array.dtype.kind not in "buif":
        raise BenchError(f"{what} has type {array.dtype}: expected numbers in [0, 1] or uint8")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        kind = "NaN" if np.isnan(array).any() else "inf"
        raise BenchError(
            f"{what} holds {kind}: remove or replace those images; pixels are finite, in [0, 1]"
        )


def is_table(path: Path, images: Arrays, names: dict[str, str], meant: bool = False) -> bool:
    """Whether finite `images` by split are a table of real values, rather than pixels.

    Pixels are whole numbers of bytes, zeros and ones, or floats in [0, 1], unless a table is
    `meant`. `names` are those of the arrays. Raises BenchError where the scale leaves no doubt that
    neither is meant.
    """
    ranges = {s: (float(images[s].min()), float(images[s].max())) for s in SPLITS}
    if meant:
        _check_no_pixels(path, images["train"], *_ends(ranges.values()))
        _check_density(path, images["train"], *_ends(ranges.values()))
        return True
    low, high = _ends(ranges.values())
    whole = all(images[split].dtype.kind in "bui" for split in SPLITS)
    outside = [s for s in SPLITS if ranges[s][0] < -ROUNDING or ranges[s][1] > 1 + ROUNDING]
    dark = [s for s in SPLITS if not outside and ranges[s][1] <= 1 / 255 + ROUNDING]
    some_outside = not whole and 0 < len(outside) < len(SPLITS)
    some_dark = 0 < len(dark) < len(SPLITS)
    if whole:  # zeros and ones beside bytes
        some_dark = min(top for _, top in ranges.values()) <= 1 < DARKEST < high
    if some_outside or some_dark:
        told = ", ".join(f"'{names[s]}' from {a:.7g} to {b:.7g}" for s, (a, b) in ranges.items())
        raise BenchError(
            f"{path} has splits on different scales ({told}): images must all be in [0, 1], or "
            "all uint8 from 0 to 255; a table of real values needs --likelihood gaussian"
        )
    darkest, brightest = ranges["train"]
    if darkest == brightest:
        raise BenchError(
            f"array '{names['train']}' of {path} has the value {darkest:.7g} everywhere: nothing "
            "can be learned from constant images; check how they were saved"
        )
    if whole:
        _check_bytes(path, low, high)
    elif dark:
        raise BenchError(
            f"{path} never exceeds {high:.7g}: divided by 255 twice? Multiply by 255 to have "
            "values from 0 to 1"
        )
    if whole or not outside:
        return False
    _check_density(path, images["train"], low, high)
    return True


def _ends(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lowest, highest = zip(*ranges, strict=True)
    return min(lowest), max(highest)


def _check_bytes(path: Path, low: float, high: float) -> None:
    if low < 0 or high > 255:
        raise BenchError(
            f"{path} has whole numbers from {low:.0f} to {high:.0f}: save bytes (uint8) "
            "from 0 to 255, or floats in [0, 1]"
        )
    if 1 < high <= DARKEST:
        raise BenchError(
            f"{path} has bytes that never exceed {high:.0f}, where 255 is white: "
            f"multiply by 255 / {high:.0f}"
        )


def _check_no_pixels(path: Path, train: np.ndarray, low: float, high: float) -> None:
    of_bytes = train.dtype.kind in "bui" and high <= 255
    if low >= -ROUNDING and (of_bytes or (high <= 1 + ROUNDING and _levels(train) <= LEVELS)):
        raise no_density_of_pixels(str(path))


def no_density_of_pixels(name: str) -> BenchError:
    """The refusal of a Gaussian for the data of that name."""
    return BenchError(
        f"likelihood 'gaussian' is a density, and '{name}' has quantized pixels, of which it would "
        "grow without bound: use --likelihood continuous_bernoulli --binarize none"
    )


def _levels(images: np.ndarray) -> int:
    """Different values among a million."""
    return len(np.unique(images[: 2**20 // max(1, images[0].size) + 1]))


def _check_density(path: Path, train: np.ndarray, low: float, high: float) -> None:
    """Quantized or constant values have no density: a Gaussian's would grow without bound."""
    if max(-low, high) > LARGEST:
        raise BenchError(f"{path} has values from {low:.7g} to {high:.7g}: rescale its columns")
    levels, whole = _levels(train), (train == np.rint(train)).all()
    if whole or levels <= min(LEVELS, train.size // 2):
        raise BenchError(
            f"{path} has only {levels} values, from {low:.7g} to {high:.7g}, and quantized values "
            "have no density: images are scaled to [0, 1], or saved as uint8 from 0 to 255; to a "
            "table add uniform noise of one step"
        )
    table = train.reshape(len(train), -1)
    constant = np.flatnonzero(table.max(0) == table.min(0))
    if len(constant):
        raise BenchError(
            f"{path} has {len(constant)} column(s) with a single value in training "
            f"({_first(constant)}), which have no density: leave them out"
        )
    columns = table[:: -(-len(table) // ROWS_LOOKED_AT)].T
    few = [c for c, v in enumerate(columns) if len(np.unique(v)) <= min(LEVELS, len(v) // 2)]
    if few:
        raise BenchError(
            f"{path} has {len(few)} column(s) of few values in training ({_first(few)}), and "
            "quantized values have no density: leave them out, or add uniform noise of one step"
        )


def _first(columns: Sequence[int]) -> str:
    return ", ".join(map(str, columns[:5])) + ", …" * (len(columns) > 5)


def check_rows(path: Path, standardised: Arrays, names: dict[str, str]) -> None:
    """Refuse splits of a table, in units of the training rows, that are not on its scale."""
    for split in ("valid", "test"):
        rows = standardised[split].reshape(len(standardised[split]), -1)
        shift, ratio = np.median(np.abs(rows.mean(0))), np.median(rows.std(0))
        if shift >= SHIFTED or ratio >= WIDER:  # a few rows of rare values may have no width
            raise BenchError(
                f"{path} has splits on different scales: in units of the training rows, columns of "
                f"'{names[split]}' are {shift:.4g} off and {ratio:.4g} wide (medians); save all "
                "rows in one unit"
            )


def doubtful(path: Path, images: Arrays, names: dict[str, str]) -> Iterator[str]:
    """What a user should know of pixels: splits darker than others, images without a content,
    values between two bytes.

    Raises BenchError where no image of a split has a content.
    """
    tops = {split: float(images[split].max()) for split in SPLITS}
    for split in SPLITS:
        if DARKER * tops[split] <= max(tops.values()) * (1 + ROUNDING):
            yield (
                f"'{names[split]}' never exceeds {tops[split]:.7g} where others reach "
                f"{max(tops.values()):.7g}: save all on one scale, unless these are darker"
            )
        flat = images[split].reshape(len(images[split]), -1)
        blank = int((flat.max(1) == flat.min(1)).sum()) if flat.shape[1] > 1 else 0
        if blank:
            said = (
                f"{blank:,} of {len(flat):,} images of '{names[split]}' have one value everywhere"
            )
            if blank == len(flat):
                raise BenchError(f"{path}: {said}: check how they were saved")
            yield f"{said}: remove them, unless they are meant"
    train = images["train"]
    if train.dtype.kind == "f" and train.ndim == 2 and _levels(train) > LEVELS:
        yield (
            "its values, all in [0, 1], are taken for pixels and rounded to 256 levels; a table of "
            "real values needs --likelihood gaussian"
        )


def copies(path: Path, images: Arrays, names: dict[str, str]) -> Iterator[str]:
    """Images that are in two splits. Raises BenchError where one split is another."""
    seen = {split: {hash(image.tobytes()) for image in images[split]} for split in SPLITS}
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        if np.array_equal(images[one], images[other]):
            raise BenchError(
                f"{path} has the same images as '{names[one]}' and as '{names[other]}': leave one "
                "out, and it is cut from the training images"
            )
        both = sum(hash(image.tobytes()) in seen[one] for image in images[other])
        if both:
            yield (
                f"{both:,} of {len(images[other]):,} images of '{names[other]}' are also in "
                f"'{names[one]}': what is measured on them is too good; remove them from one"
            )
