"""The user's own images: an .npz file of three arrays, and what may be wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.sources import SOURCES
from bench.data.splits import SPLITS, TEST_LABELS, Arrays
from bench.errors import BenchError, one_line

SMALLEST_SPLIT = {"train": 100, "valid": 10, "test": 10}


def read_npz(path: Path) -> Arrays:
    """The user's arrays, checked, as uint8 images, with the labels where `test_labels` is there.

    Raises BenchError on a missing or damaged file, and on unfit arrays.
    """
    if path.stem in SOURCES:
        raise BenchError(f"{path} has the name of a built-in data set: rename the file")
    if not path.is_file():
        raise BenchError(f"data file {path} does not exist: check the path")
    arrays = _stored_arrays(path)
    missing = [split for split in SPLITS if split not in arrays]
    if missing:
        raise BenchError(
            f"{path} lacks the array(s) {', '.join(missing)}: save it with "
            "np.savez(path, train=..., valid=..., test=...)"
        )
    labels = arrays.pop(TEST_LABELS, None)
    for split, images in arrays.items():
        _check_shape(f"array '{split}' of {path}", images, SMALLEST_SPLIT[split])
        _check_values(f"array '{split}' of {path}", images)
    shapes = {split: arrays[split].shape[1:] for split in SPLITS}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{split} {shape}" for split, shape in shapes.items())
        raise BenchError(f"{path} has images of different shapes ({listed}): make them the same")
    # Bytes that never exceed 1 are zeros and ones, not very dark images.
    white = 255 if any(images.max() > 1 for images in arrays.values()) else 1
    checked = {split: _to_bytes(images, white) for split, images in arrays.items()}
    if labels is not None:
        _check_labels(f"array '{TEST_LABELS}' of {path}", labels, len(arrays["test"]))
        checked[TEST_LABELS] = labels.astype(np.uint8)
    return checked


def _stored_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in (*SPLITS, TEST_LABELS) if name in archive.files}
    # On damaged files numpy and zipfile raise a dozen unrelated types.
    except Exception as error:
        raise BenchError(
            f"cannot read {path} as an .npz file of plain arrays ({one_line(error)}): "
            "save it again with np.savez"
        ) from None


def _check_shape(what: str, images: np.ndarray, smallest: int) -> None:
    if images.ndim not in (2, 3) or 0 in images.shape[1:]:
        raise BenchError(
            f"{what} has shape {images.shape}: expected (images, pixels) or (images, height, width)"
        )
    if len(images) < smallest:
        raise BenchError(f"{what} has {len(images)} images: at least {smallest} are needed")


def _check_values(what: str, images: np.ndarray) -> None:
    if images.dtype.kind not in "buif":
        raise BenchError(f"{what} has type {images.dtype}: expected numbers in [0, 1] or uint8")
    if images.dtype == np.uint8:
        return
    if np.isnan(images).any():
        raise BenchError(f"{what} holds NaN: remove or replace those images")
    if images.min() < 0 or images.max() > 1:
        raise BenchError(
            f"{what} has values from {images.min():g} to {images.max():g}: "
            "scale them to [0, 1], or save uint8 from 0 to 255"
        )


def _check_labels(what: str, labels: np.ndarray, count: int) -> None:
    if labels.shape != (count,):
        raise BenchError(
            f"{what} has shape {labels.shape}: expected ({count},), one label a test image"
        )
    if labels.dtype.kind not in "bui" or labels.min() < 0 or labels.max() > 255:
        raise BenchError(f"{what} has no labels for classes: expected integers from 0 to 255")


def _to_bytes(images: np.ndarray, white: int) -> np.ndarray:
    if images.dtype == np.uint8 and white == 255:
        return images
    return np.rint(images.astype(np.float64) * 255).astype(np.uint8)
