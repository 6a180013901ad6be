"""Files of the user's own, format by format: named arrays, of which the wanted ones are read.

A new format is one function and one entry of `FORMATS`.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.images import SUFFIXES, image_folder
from bench.errors import BenchError, one_line

Roles = Callable[[Sequence[str]], Mapping[str, str]]
"""Chooses among the names of a file's arrays: role → name."""

LARGEST = 2**33
"""Bytes that the wanted arrays of one file may have, known before any of them is read."""


def read(path: Path, roles: Roles) -> dict[str, np.ndarray]:
    """The arrays of an existing file or folder that `roles` chooses, by role.

    A file of one array without a name has the role `train`.

    Raises BenchError where the file is damaged, holds no plain arrays or more than `LARGEST` bytes.
    """
    known = FOLDER if path.is_dir() else FORMATS.get(path.suffix.lower(), IDX)
    try:
        return known.read(path, roles)
    except BenchError:
        raise
    # On damaged files numpy, scipy, zipfile and Pillow raise a dozen unrelated types.
    except Exception as error:
        reason = one_line(error)
        raise BenchError(f"cannot read {path} as {known.what} ({reason}): {known.remedy}") from None


def _npz(path: Path, roles: Roles) -> dict[str, np.ndarray]:
    archive = np.load(path, allow_pickle=False)
    if isinstance(archive, np.ndarray):
        raise ValueError("it is one array, as .npy files are")
    with archive:
        members = {info.filename: info.file_size for info in archive.zip.infolist()}
        wanted = roles(archive.files)
        sizes = (members.get(f"{name}.npy", members.get(name, 0)) for name in wanted.values())
        _check_size(path, sum(sizes))
        arrays = {role: archive[name] for role, name in wanted.items()}
    for role, name in wanted.items():
        if not isinstance(arrays[role], np.ndarray):
            raise ValueError(f"its member '{name}' is no array")
    return arrays


def _npy(path: Path, roles: Roles) -> dict[str, np.ndarray]:
    # mapped, so that a header cannot announce more than the file holds
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(mapped, np.ndarray):
        raise ValueError("it is an archive, as .npz files are")
    _check_size(path, mapped.nbytes)
    return {"train": np.array(mapped)}


IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def _idx(path: Path, roles: Roles) -> dict[str, np.ndarray]:
    with _opened(path) as file:
        start = file.read(4)
        if not _is_idx_start(start):
            raise BenchError(
                f"{path} is no data file: expected .npz, .npy, .mat, an idx file, or a folder of "
                "images"
            )
        dtype, axes = np.dtype(IDX_TYPES[start[2]]), start[3]
        shape = tuple(np.frombuffer(file.read(4 * axes), dtype=">u4").tolist())
        size = math.prod(shape) * dtype.itemsize
        _check_size(path, size)
        payload = file.read(size + 1)
    if len(shape) < axes or len(payload) != size:
        raise ValueError(f"it announces shape {shape} but holds other than {size:,} bytes of it")
    return {"train": np.frombuffer(payload, dtype=dtype).reshape(shape)}


def _opened(path: Path):
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")


def _is_idx_start(start: bytes) -> bool:
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in IDX_TYPES and 0 < start[3] < 9


def is_idx(path: Path) -> bool:
    """Whether a file, plain or gzipped, begins as an idx file does."""
    try:
        with _opened(path) as file:
            return _is_idx_start(file.read(4))
    except (OSError, EOFError):
        return False


MAT_NUMBERS = ("double", "single", "logical", "int8", "uint8", "int16", "uint16", "int32", "uint32")


def _mat(path: Path, roles: Roles) -> dict[str, np.ndarray]:
    from scipy.io import loadmat, whosmat

    with path.open("rb") as file:
        start = file.read(128)
    if start.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise BenchError(
            f"{path} is a file of MATLAB 7.3 (HDF5), which is not read: save it there with "
            "save(..., '-v7'), or as .npz"
        )
    shapes = {name: shape for name, shape, kind in whosmat(path) if kind in MAT_NUMBERS}
    wanted = roles([*shapes])
    _check_size(path, sum(8 * math.prod(shapes[name]) for name in wanted.values()))
    arrays = loadmat(path, variable_names=[*wanted.values()])
    return {role: _from_matlab(arrays[name], role) for role, name in wanted.items()}


def _from_matlab(array: np.ndarray, role: str) -> np.ndarray:
    """Where MATLAB's customs differ: classes are doubles, images `(H, W, C, N)`."""
    if role.endswith("labels") and (array == np.rint(array)).all():
        return array.astype(np.int64)
    images_last = array.ndim == 4 and array.shape[2] in (1, 3) and array.shape[3] not in (1, 3)
    return np.moveaxis(array, 3, 0) if images_last else array


def _folder(path: Path, roles: Roles) -> dict[str, np.ndarray]:
    """A folder of idx or .npy files, or else of images."""
    files: dict[str, Path] = {}
    others = (file for file in sorted(path.iterdir()) if file.suffix.lower() not in SUFFIXES)
    for file in others:
        if file.is_file() and (file.suffix.lower() == ".npy" or is_idx(file)):
            files.setdefault(file.name.removesuffix(".gz"), file)  # plain beside gzipped: one
    if not files:
        return image_folder(path, roles, _check_size)
    return {role: read(files[name], roles)["train"] for role, name in roles([*files]).items()}


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST:
        raise BenchError(
            f"{path} holds {size / 2**30:.1f} GiB once read, and {LARGEST / 2**30:g} GiB is the "
            "most: save fewer images, or as uint8"
        )


@dataclass(frozen=True)
class Format:
    """How a file is read, what it is called, and what to do with one that cannot be read."""

    read: Callable[[Path, Roles], dict[str, np.ndarray]]
    what: str
    remedy: str


IDX = Format(_idx, "an idx file", "write it again, or save the array with np.save")
FOLDER = Format(_folder, "a folder of images", "make it readable, or save the images with np.savez")
FORMATS: dict[str, Format] = {
    ".npz": Format(_npz, "an .npz file of plain arrays", "save it again with np.savez"),
    ".npy": Format(_npy, "an .npy file of a plain array", "save it again with np.save"),
    ".mat": Format(_mat, "a MATLAB file", "save it again with scipy.io.savemat, or np.savez"),
}
"""By suffix; any other file may be an idx file."""
