"""Published data files: found on disk or downloaded, and always verified."""

from __future__ import annotations

import hashlib
import io
import math
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from bench.errors import BenchError, one_line
from bench.machine.archives import check_unpacked, gunzip
from bench.machine.places import usable

TORCHVISION = {"mnist": Path("MNIST", "raw"), "fashion_mnist": Path("FashionMNIST", "raw")}
"""Where torchvision puts files, below its `root`."""
SYSTEM_FOLDERS = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
UNREADABLE = (OSError, EOFError, ValueError, zlib.error)


@dataclass(frozen=True)
class PublishedFile:
    """Where a file is published, the SHA-256 of its decompressed contents, and a second source."""

    url: str
    sha256: str
    mirror: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
# The second, its authors' first, is a website of S3, which has no https.
_FASHION = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
)
# The second holds the same digits as MATLAB matrices, see `_as_amat`.
_LAROCHELLE = (
    "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist",
    "https://raw.githubusercontent.com/mingzhang-yin/ARM-gradient/"
    "9b5f74da4e4009c5556e8d7a87c88c8e291c253d",
)


def _published(hosts: tuple[str, str], name: str, sha256: str) -> PublishedFile:
    first, second = (f"{host}/{name}" for host in hosts)
    return PublishedFile(first, sha256, second)


FILES: dict[str, dict[str, PublishedFile]] = {
    "mnist": {
        "train": _published(
            _MNIST,
            "train-images-idx3-ubyte.gz",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        "test": _published(
            _MNIST,
            "t10k-images-idx3-ubyte.gz",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
    },
    "fashion_mnist": {
        "train": _published(
            _FASHION,
            "train-images-idx3-ubyte.gz",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        "test": _published(
            _FASHION,
            "t10k-images-idx3-ubyte.gz",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
    },
    "binarized_mnist": {
        "train": _published(
            _LAROCHELLE,
            "binarized_mnist_train.amat",
            "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
        ),
        "valid": _published(
            _LAROCHELLE,
            "binarized_mnist_valid.amat",
            "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
        ),
        "test": _published(
            _LAROCHELLE,
            "binarized_mnist_test.amat",
            "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
        ),
    },
}
"""The images, by data set and split."""
LABEL_FILES: dict[str, PublishedFile] = {
    "mnist": _published(
        _MNIST,
        "t10k-labels-idx1-ubyte.gz",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": _published(
        _FASHION,
        "t10k-labels-idx1-ubyte.gz",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
"""The classes of the test images, of the data sets that have them."""


def contents(dataset: str, split: str, folder: Path | None) -> bytes:
    """The decompressed contents of a published file, gzipped or plain on disk.

    Looked for in `folder/dataset`, `folder`, torchvision's folder below it, the user cache and the
    system's folder, in this order, and else downloaded into the user cache, together with the
    labels of test images.

    Raises BenchError where the folder is missing, a file found is damaged or none can be had.
    """
    file = FILES[dataset][split]
    if folder is not None and not folder.is_dir():
        raise BenchError(f"data folder {folder} does not exist: create it, or name another one")
    for path in _places(dataset, file, folder):
        try:
            payload, found = decompressed(path)
        except UNREADABLE as error:
            raise BenchError(f"cannot read {path} ({one_line(error)}): {_remedy(path)}") from None
        if found == file.sha256:
            return payload
        # MNIST and Fashion-MNIST share their file names: another data set's file is not damage.
        if not _is_published(found):
            raise BenchError(
                f"{path} is not the published file: expected decompressed SHA-256 {file.sha256}, "
                f"found {found}; {_remedy(path)}"
            )
    payload = _download(dataset, file)
    if split == "test" and dataset in LABEL_FILES and label_contents(dataset, folder) is None:
        with suppress(BenchError):  # everything but the labels works without them
            _download(dataset, LABEL_FILES[dataset])
    return payload


def _remedy(path: Path) -> str:
    """What to do about a file that is not the published one: a user's own is never deleted."""
    if path.is_relative_to(_cache()):
        return "delete the file and it will be downloaded"
    return f"name another --data-dir; images of your own are read by --dataset {path}"


def label_contents(dataset: str, folder: Path | None) -> bytes | None:
    """The decompressed label file of the test images, found in the places of `contents`.

    None where there is no intact one: nothing is downloaded for labels alone.
    """
    if dataset not in LABEL_FILES:
        return None
    file = LABEL_FILES[dataset]
    for path in _places(dataset, file, folder):
        with suppress(*UNREADABLE):
            payload, found = decompressed(path)
            if found == file.sha256:
                return payload
    return None


def is_on_disk(dataset: str) -> bool:
    """Whether all images of a published data set can be had without downloading."""
    return all(any(_places(dataset, file, None)) for file in FILES[dataset].values())


def decompressed(path: Path) -> tuple[bytes, str]:
    """The contents of a gzipped or plain file, or of a mirror's matrix, and their SHA-256.

    Raises one of `UNREADABLE`.
    """
    payload = path.read_bytes()
    if payload.startswith(b"\x1f\x8b"):
        payload = gunzip(payload)
    if payload.startswith(b"MATLAB 5.0"):
        payload = _as_amat(payload)
    return payload, hashlib.sha256(payload).hexdigest()


def _as_amat(matrix: bytes) -> bytes:
    """Binary images `(N, D)` of a MATLAB file as the text of digits that Larochelle published."""
    from scipy.io import loadmat, whosmat

    try:
        check_unpacked(sum(8 * math.prod(shape) for _, shape, _ in whosmat(io.BytesIO(matrix))))
        digits = loadmat(io.BytesIO(matrix))["X"].astype("u1") + ord("0")
    except Exception as error:  # damaged files raise whatever scipy came across
        raise OSError(one_line(error)) from None
    text = np.full((len(digits), 2 * digits.shape[1]), ord(" "), dtype="u1")
    text[:, ::2], text[:, -1] = digits, ord("\n")
    return text.tobytes()


def _is_published(sha256: str) -> bool:
    return any(sha256 == file.sha256 for files in FILES.values() for file in files.values())


def _places(dataset: str, file: PublishedFile, folder: Path | None) -> Iterator[Path]:
    folders = [] if folder is None else [folder / dataset, folder]
    if folder is not None and dataset in TORCHVISION:
        folders.append(folder / TORCHVISION[dataset])
    folders.append(_cache() / dataset)
    if dataset in SYSTEM_FOLDERS:
        folders.append(SYSTEM_FOLDERS[dataset])
    plain = file.name.removesuffix(".gz")
    for place in folders:
        for path in (place / f"{plain}.gz", place / plain):
            if path.is_file():
                yield path


def _cache() -> Path:
    try:
        import pooch
    except ImportError:
        return usable("the user cache", "~/.cache/vae-bench")
    return usable("the user cache", pooch.os_cache("vae-bench"))


def _download(dataset: str, file: PublishedFile) -> bytes:
    cache = _cache() / dataset
    by_hand = (
        f"put {file.url} (decompressed SHA-256 {file.sha256}) into {cache}, "
        "or into a folder given as --data-dir"
    )
    reasons = []
    for url in filter(None, (file.url, file.mirror)):
        try:
            return _fetched(url, file, cache)
        except ImportError:
            raise BenchError(
                f"{file.name} of data set '{dataset}' is not on this machine, and downloading it "
                f"needs the package pooch: run `pip install pooch`, or {by_hand}"
            ) from None
        except UNREADABLE as error:
            reasons.append(f"{url}: {one_line(error)}")
    raise BenchError(f"cannot download {file.name} ({'; '.join(reasons)}): {by_hand}")


def _fetched(url: str, file: PublishedFile, cache: Path) -> bytes:
    """The contents of `file` from one of its sources, kept in `cache`; raises `UNREADABLE`."""
    import pooch

    cache.mkdir(parents=True, exist_ok=True)
    # Moved into place once verified, so that no interruption leaves a damaged file behind.
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        arrived = Path(scratch) / file.name
        with _DownloadBar(file.name) as bar:
            pooch.HTTPDownloader(progressbar=bar)(url, str(arrived), None)
        payload, found = decompressed(arrived)
        if found != file.sha256:
            raise OSError(f"wrong checksum, decompressed SHA-256 {found}")
        arrived.replace(cache / file.name)
    return payload


class _DownloadBar:
    """A rich progress bar with the attributes that pooch uses on one."""

    def __init__(self, label: str) -> None:
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(label, total=None)
        self.total = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, size: int) -> None:
        self._progress.update(self._task, advance=size, total=self.total or None)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.refresh()
