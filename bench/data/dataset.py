"""A data set, and how one is loaded by its name or from the user's file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.binarization import BINARIZATIONS, binarized_splits, is_binary
from bench.data.own import is_own, read_own
from bench.data.sources import SOURCES
from bench.data.splits import SPLITS, TEST_LABELS, Arrays
from bench.data.unit import Unit
from bench.errors import BenchError, nearest
from bench.machine.places import usable

REAL = "real"
"""The binarization of what are no pixels."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of D pixels each, in three splits of shape (N, D), uint8.

    `train` is grey where `binarization` is `stochastic` or `none`, and holds only 0 and
    255 where it is `threshold` or `binary` (the source was binary already). `valid` and
    `test` hold only 0 and 255 unless `binarization` is `none`. Where it is `real`, all are
    float32, of any sign, in the unit of 1 / 255 that bytes have.

    `labels` are the classes of the test images, uint8 (N_test,) on the CPU, or None where the
    source has none or their file is not on this machine. `fingerprint` is a SHA-256 of the images,
    their splits and shape, and the binarization; it does not depend on the labels.
    """

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor
    binarization: str
    image_shape: tuple[int, int]
    fingerprint: str
    labels: Tensor | None = None

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with its images on `device`."""
        return replace(self, **{split: getattr(self, split).to(device) for split in SPLITS})


@dataclass(frozen=True, eq=False, kw_only=True)
class OwnDataset(Dataset):
    """Data of the user's own.

    `notices` are what the user should know of them, a line each. Where they are a table of real
    values, these are standardised, and their `unit` says how; it is in the fingerprint.
    """

    unit: Unit | None
    notices: tuple[str, ...]


def notices_of(data: Dataset) -> tuple[str, ...]:
    """What a user should know of their data; () of any other."""
    return data.notices if isinstance(data, OwnDataset) else ()


def unit_of(data: Dataset) -> Unit | None:
    """Of the user's table, whose values are standardised; None of any other data."""
    return data.unit if isinstance(data, OwnDataset) else None


def in_its_unit(variant: type, unit: Unit | None) -> type:
    """The variant with log p(x|z) a density in a table's unit, not of its standardised values."""
    if unit is None:
        return variant

    class InItsUnit(variant):
        @wraps(variant.log_likelihood)  # the same density, so that x is drawn as before
        def log_likelihood(self, x, z):
            return super().log_likelihood(x, z) - unit.log_scale

    return InItsUnit


def load(name: str, data_dir: str | Path | None = None, binarize: str | None = None) -> Dataset:
    """The data set `name` (a key of `SOURCES`), or the one at a path (`bench.data.own`).

    `data_dir` (default: `$BENCH_DATA`) is searched first for files, then the user cache and
    the system's folder; what is in none of them is downloaded. `binarize` (one of
    `BINARIZATIONS`) overrides the data set's own binarization, but leaves a binary source as it
    is; it is `real` where a path is meant as a table, whatever its range.

    Raises BenchError on an unknown name, a missing, damaged or unreachable file, or unfit arrays.
    """
    as_table = binarize == REAL and is_own(name)
    if binarize not in (None, *BINARIZATIONS) and not as_table:
        raise nearest("binarization", binarize, BINARIZATIONS)
    if is_own(name):
        own = read_own(name, as_table)
        binarize = None if as_table else binarize
        default = "stochastic" if own.unit is None else REAL
        data = _dataset(Path(name).stem, own.arrays, default, binarize)
        known = {field.name: getattr(data, field.name) for field in fields(Dataset)}
        if own.unit is not None:
            scaled = f"{data.fingerprint} {own.unit.log_scale!r}"
            known["fingerprint"] = hashlib.sha256(scaled.encode()).hexdigest()
        return OwnDataset(**known, unit=own.unit, notices=own.notices)
    if name not in SOURCES:
        raise nearest("data set", name, [*SOURCES, "<path>.npz", "<folder>"])
    folder = data_dir or os.environ.get("BENCH_DATA")
    arrays = SOURCES[name].read(name, usable("data folder", folder) if folder else None)
    return _dataset(name, arrays, SOURCES[name].binarization, binarize)


def _dataset(name: str, arrays: Arrays, default: str, binarize: str | None) -> Dataset:
    if default == REAL and binarize is not None:
        raise BenchError(
            f"data set '{name}' is real-valued and has no binarization: drop --binarize"
        )
    binarization = binarize or default
    if binarization != REAL and all(is_binary(arrays[split]) for split in SPLITS):
        binarization = "binary"
    image_shape = _image_shape(arrays["train"])
    grey = {split: torch.tensor(arrays[split].reshape(len(arrays[split]), -1)) for split in SPLITS}
    splits = binarized_splits(grey, binarization)
    digest = hashlib.sha256(f"{binarization} {image_shape}".encode())
    for split in SPLITS:
        digest.update(f"{split} {tuple(splits[split].shape)}".encode())
        digest.update(splits[split].numpy())
    return Dataset(
        name=name,
        **splits,
        binarization=binarization,
        image_shape=image_shape,
        fingerprint=digest.hexdigest(),
        labels=torch.tensor(arrays[TEST_LABELS]) if TEST_LABELS in arrays else None,
    )


def _image_shape(images: np.ndarray) -> tuple[int, int]:
    if images.ndim == 3:
        return images.shape[1], images.shape[2]
    side = round(images.shape[1] ** 0.5)
    return (side, side) if side * side == images.shape[1] else (1, images.shape[1])
