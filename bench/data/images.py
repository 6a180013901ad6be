"""A folder of image files as arrays, in the layout of torchvision's `ImageFolder` or flat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.naming import split_of
from bench.errors import BenchError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
GREY_MODES = {"1", "L"}
EIGHT_BITS = {*GREY_MODES, "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


def image_folder(
    path: Path, roles: Callable, check_size: Callable[[Path, int], None]
) -> dict[str, np.ndarray]:
    """Images `(N, H, W)`, or `(N, H, W, 3)` where one is in colour, and their classes, by role.

    Subfolders named after splits are the splits; folders in these, or else in `path`, are classes.

    Raises BenchError where there are no images, or images of different sizes or above 8 bits.
    """
    inside = {sub: _files(sub) for sub in sorted(path.iterdir()) if sub.is_dir()}
    filled = [sub for sub in inside if inside[sub]]
    splits = {sub.name: sub for sub in filled}
    if not splits or not all(map(split_of, splits)):
        splits = {"images": path}
    files = {name: _files(folder) for name, folder in splits.items()}
    every = [file for some in files.values() for file in some]
    if not every:
        raise BenchError(
            f"{path} is a folder without images ({', '.join(SUFFIXES)}) and without idx or .npy "
            "files: name the folder that holds them"
        )
    classes = {name: [_class(file, splits[name]) for file in files[name]] for name in files}
    labelled = [name for name in files if all(classes[name])]
    wanted = roles([*files, *(f"{name}_labels" for name in labelled)])
    numbers = {name: n for n, name in enumerate(sorted({c for n in labelled for c in classes[n]}))}
    grey, (width, height) = _checked(every)
    check_size(path, len(every) * width * height * (1 if grey else 3))
    arrays = {}
    for role, name in wanted.items():
        if role.endswith("_labels"):
            arrays[role] = np.array([numbers[c] for c in classes[name.removesuffix("_labels")]])
        else:
            arrays[role] = np.stack([_pixels(file, "L" if grey else "RGB") for file in files[name]])
    return arrays


def _files(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    return sorted(file for file in found if not file.name.startswith("."))


def _class(file: Path, folder: Path) -> str:
    """The folder an image lies in below that of its split, "" for none."""
    return file.relative_to(folder).parts[0] if file.parent != folder else ""


def _checked(files: list[Path]) -> tuple[bool, tuple[int, int]]:
    """Whether all images are grey, and their common width and height, from their headers."""
    from PIL import Image

    modes, first = set(), None
    for file in files:
        try:
            with Image.open(file) as image:
                mode, size = image.mode, image.size
        except (OSError, Image.DecompressionBombError) as error:
            reason = "it is no image" if isinstance(error, OSError) else "it is too large"
            raise BenchError(f"cannot read {file} ({reason}): remove it from the folder") from None
        first = first or size
        if size != first:
            sizes = f"{files[0]} has {first[0]} x {first[1]} pixels, {file} {size[0]} x {size[1]}"
            raise BenchError(f"images of different sizes: {sizes}; make them the same")
        if mode not in EIGHT_BITS:
            raise BenchError(
                f"{file} has more than 8 bits a pixel (mode {mode}): save the images with 8"
            )
        modes.add(mode)
    return modes <= GREY_MODES, first


def _pixels(file: Path, mode: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert(mode))
    except OSError:
        message = f"cannot read {file} (it is damaged): save it again, or remove it from the folder"
        raise BenchError(message) from None
