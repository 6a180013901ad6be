"""Data of the user's own: from a path to checked arrays, in three splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.formats import FORMATS, read
from bench.data.naming import role_of, roles
from bench.data.sources import SOURCES
from bench.data.splits import SPLITS, TEST_LABELS, TRAIN_LABELS, Arrays, cut_from_training
from bench.data.traps import ROUNDING, check_numbers, check_rows, copies, doubtful, is_table
from bench.data.unit import Unit
from bench.errors import BenchError
from bench.machine.places import shown, usable

SMALLEST_SPLIT = {"train": 100, "valid": 10, "test": 10}
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Shares of red, green and blue in grey (ITU-R BT.601), as in Pillow."""


@dataclass(frozen=True)
class Own:
    """What a path holds.

    Attributes:
        arrays: by split, uint8 pixels or, of a table, float32 in the unit of 1 / 255; and the
            classes of the test images where they are known.
        unit: of a table's columns, which are standardised; None for pixels.
        notices: what the user should know, a line each.
    """

    arrays: Arrays
    unit: Unit | None
    notices: tuple[str, ...]


def is_own(name: str) -> bool:
    """Whether `name` is a path rather than a built-in data set or an unknown word."""
    if name in SOURCES:
        return False
    suffix = Path(name).suffix.lower()
    return suffix in FORMATS or os.sep in name or os.path.exists(os.path.expanduser(name))


def read_own(name: str, is_meant_as_table: bool = False) -> Own:
    """The user's arrays, checked; labels where there are some beside the test images.

    Numbers in [0, 1] are pixels, unless a table is meant. Raises BenchError on a missing or
    damaged file, and on unfit arrays.
    """
    path = existing(name)
    names: dict[str, str] = {}

    def choose(found: list[str]) -> dict[str, str]:
        names.update(roles(path, found))
        return names

    arrays = read(path, choose)
    names = {role: names.get(role, role) for role in (*arrays, *SPLITS)}
    notices = []
    for role, array in arrays.items():
        what = f"array '{names[role]}' of {path}"
        if role in SPLITS:
            check_numbers(what, array)
            arrays[role], in_colour = _grey(what, array)
            if in_colour:
                notices.append(f"'{names[role]}' is in colour: it was converted to grey (luma)")
    _check_labels(path, arrays, names)
    given = {split: len(arrays[split]) for split in SPLITS if split in arrays}
    arrays, said = cut_from_training(arrays, SMALLEST_SPLIT)
    notices += said
    for split in SPLITS:
        smallest = SMALLEST_SPLIT[split]
        if len(arrays[split]) < smallest:
            cut = said and split == "train"
            left = f", of {given[split]} before the missing splits were cut from it" if cut else ""
            raise BenchError(
                f"array '{names[split]}' of {path} has {len(arrays[split])} images{left}: at least "
                f"{smallest} are needed"
            )
    images = {split: arrays[split] for split in SPLITS}
    _check_alike(path, images)
    table = is_table(path, images, names, is_meant_as_table)
    notices += copies(path, images, names)
    unit = Unit.of(images["train"]) if table else None
    if unit is not None:
        images = {
            split: (unit.standardised(rows) * 255).astype(np.float32)
            for split, rows in images.items()
        }
        check_rows(path, {split: rows / 255 for split, rows in images.items()}, names)
        notices.append(
            "columns are standardised with the mean and standard deviation s of the training rows; "
            f"likelihoods are of the file's own unit: Σ log s = {unit.log_scale:.6g} nats lower"
        )
    else:
        notices += doubtful(path, images, names)
        images = _to_bytes(images)
    if TEST_LABELS in arrays:
        images[TEST_LABELS] = arrays[TEST_LABELS].astype(np.uint8)
    return Own(images, unit, (_summary(images), *notices))


def read_images(name: str) -> np.ndarray:
    """The images of a file or folder, of several arrays the test images: `(N, D)` or `(N, H, W)`,
    grey.

    Raises BenchError on a missing or damaged one, several arrays of which none is for testing, or
    numbers that are not finite.
    """
    path = existing(name)
    what = f"the array of {path}"

    def only(found: Sequence[str]) -> dict[str, str]:
        for_testing = [name for name in found if role_of(name) == "test"]
        chosen = found if len(found) == 1 else for_testing
        if len(chosen) != 1:
            raise BenchError(
                f"{path} holds {len(found)} arrays: save the images alone, or name them 'x_test'"
            )
        return {"train": chosen[0]}

    arrays = read(path, only)
    images, _ = _grey(what, arrays["train"])
    if not len(images):
        raise BenchError(f"{what} holds no image: at least 1 is needed")
    check_numbers(what, images)
    return images


def as_bytes(what: str, images: np.ndarray) -> np.ndarray:
    """Pixels, numbers in [0, 1] or bytes, as uint8; raises BenchError on others."""
    most = 1 + ROUNDING if images.dtype.kind == "f" else 255
    if images.min() < -ROUNDING or images.max() > most:
        raise BenchError(
            f"{what} has values from {images.min():.7g} to {images.max():.7g}: scale them to "
            "[0, 1], or save uint8 from 0 to 255"
        )
    return _to_bytes({"": images})[""]


def existing(name: str) -> Path:
    """The file or folder of that name; raises BenchError where there is none of one's own."""
    path = usable("data file", name)
    if Path(name).stem in SOURCES:
        raise BenchError(f"{shown(name)} has the name of a built-in data set: rename the file")
    if not Path(name).stem.strip("."):
        raise BenchError(f"{shown(name)} names no folder: give it by its own name")
    if not (path.is_dir() or path.is_file()):
        raise BenchError(f"data file {shown(name)} does not exist: check the path")
    return path


def _grey(what: str, images: np.ndarray) -> tuple[np.ndarray, bool]:
    """Images `(N, D)` or `(N, H, W)` of these or of ones with a colour axis, first or last."""
    shape, in_colour = images.shape, False
    if images.ndim == 4:
        axis = 1 if shape[1] == 1 else next((a for a in (3, 1) if shape[a] in (1, 3, 4)), None)
        if axis is not None:
            channels = np.moveaxis(images, axis, 3)[..., :3]  # a fourth is opacity
            in_colour = channels.shape[3] == 3
            images = _luma(channels) if in_colour else channels[..., 0]
    if images.ndim not in (2, 3) or 0 in images.shape[1:]:
        raise BenchError(
            f"{what} has shape {shape}: expected (images, pixels) or (images, height, width), or "
            "the latter with 1, 3 or 4 colours first or last"
        )
    return images, in_colour


def _luma(channels: np.ndarray) -> np.ndarray:
    grey = channels.astype(np.float32) @ LUMA
    return grey if channels.dtype.kind == "f" else np.rint(grey).astype(channels.dtype)


def _check_labels(path: Path, arrays: Arrays, names: dict[str, str]) -> None:
    """Refuse labels of the test images that are none; keep them as `(N,)` integers."""
    of = "test" if "test" in arrays else "train"
    arrays.pop("valid_labels", None)
    arrays.pop(TRAIN_LABELS if of == "test" else TEST_LABELS, None)
    role = f"{of}_labels"
    if role not in arrays:
        return
    labels, count = arrays[role], len(arrays[of])
    what = f"array '{names[role]}' of {path}"
    if labels.shape not in ((count,), (count, 1), (1, count)):
        raise BenchError(
            f"{what} has shape {labels.shape}: expected ({count},), one label an image, or none"
        )
    if labels.dtype.kind not in "bui" or labels.min() < 0 or labels.max() > 255:
        raise BenchError(
            f"{what} has no labels for classes: expected integers from 0 to 255, or leave it out"
        )
    arrays[role] = labels.reshape(-1)


def _check_alike(path: Path, images: Arrays) -> None:
    shapes = {split: array.shape[1:] for split, array in images.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{split} {shape}" for split, shape in shapes.items())
        raise BenchError(f"{path} has images of different shapes ({listed}): make them the same")


def _to_bytes(images: Arrays) -> Arrays:
    if all(array.dtype.kind in "bui" for array in images.values()):
        # bytes that never exceed 1 are zeros and ones, not very dark images
        white = 255 if max(array.max() for array in images.values()) <= 1 else 1
        return {split: array.astype(np.uint8) * np.uint8(white) for split, array in images.items()}
    # what is outside [0, 1] by rounding is rounded into it
    return {
        split: np.rint(array.astype(np.float64) * 255).astype(np.uint8)
        for split, array in images.items()
    }


def _summary(images: Arrays) -> str:
    train, valid, test = (len(images[split]) for split in SPLITS)
    shape = " x ".join(map(str, images["train"].shape[1:]))
    return f"{train:,} to train, {valid:,} to validate and {test:,} to test on, of {shape} values"
