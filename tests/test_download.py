"""Published files: where they are looked for, their verification, and the data sets they make."""

import functools
import gzip
import hashlib
import http.server
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import data, download
from bench.config import BenchError


def one_line(action, *args, says=(), **kwargs) -> None:
    with pytest.raises(BenchError) as caught:
        action(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for part in says:
        assert str(part) in message


def idx(images: np.ndarray) -> bytes:
    return np.array([2051, *images.shape], dtype=">u4").tobytes() + images.tobytes()


def amat(images: np.ndarray) -> bytes:
    return "".join(" ".join(map(str, row)) + "\n" for row in images).encode()


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Small stand-ins for every published file, and nothing of this machine's own files."""
    random = np.random.RandomState(0)
    payloads = {}
    for dataset in ("mnist", "fashion_mnist"):
        for split, count in (("train", 10150), ("test", 20)):
            images = random.randint(0, 256, (count, 3, 2), dtype=np.uint8)
            payloads[dataset, split] = idx(images)
    for split, count in (("train", 120), ("valid", 20), ("test", 30)):
        payloads["binarized_mnist", split] = amat(random.randint(0, 2, (count, 784)))
    files = {}
    for (dataset, split), payload in payloads.items():
        url = download.FILES[dataset][split].url
        sha256 = hashlib.sha256(payload).hexdigest()
        files.setdefault(dataset, {})[split] = download.PublishedFile(url, sha256)
    monkeypatch.setattr(download, "FILES", files)
    monkeypatch.setattr(download, "SYSTEM_FOLDERS", {"fashion_mnist": tmp_path / "system"})
    monkeypatch.setattr(download, "_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("BENCH_DATA", raising=False)
    return payloads


def put(folder: Path, dataset: str, payloads: dict, compress: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for (owner, split), payload in payloads.items():
        if owner == dataset:
            plain = download.FILES[dataset][split].name.removesuffix(".gz")
            path = folder / (f"{plain}.gz" if compress else plain)
            path.write_bytes(gzip.compress(payload, 1) if compress else payload)


@pytest.fixture
def offline(monkeypatch):
    """A download that fails as it does without a network, in the exception's own words."""
    pooch = pytest.importorskip("pooch", reason="downloads need pooch")
    requests = pytest.importorskip("requests", reason="downloads need requests")

    def fail(*args):
        raise requests.exceptions.ConnectionError("no route\nto host")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine that publishes the files put into the folder it yields."""
    pytest.importorskip("pooch", reason="downloads need pooch")
    folder = tmp_path / "server"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


# Data sets made of published files


wins."""
    folders = [
        tmp_path / "mine" / "fashion_mnist",
        tmp_path / "mine",
        tmp_path / "cache" / "fashion_mnist",
        tmp_path / "system",
    ]
    for folder in folders:
        put(folder, "fashion_mnist", published)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "mine"))
    monkeypatch.setattr(download, "_download", lambda *a: pytest.fail("downloaded"))
    for folder in folders:
        data.load("fashion_mnist")
        damaged = folder / "train-images-idx3-ubyte.gz"
        damaged.write_bytes(b"marker")
        with pytest.raises(BenchError) as error:
            data.load("fashion_mnist")
        assert str(damaged) in str(error.value)
        damaged.unlink()


def test_data_dir_comes_before_the_environment(published, tmp_path, monkeypatch):
    put(tmp_path / "mine", "mnist", published)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nowhere"))
    data.load("mnist", tmp_path / "mine")
    with pytest.raises(BenchError, match="nowhere does not exist"):
        data.load("mnist")


def test_checksum_is_of_the_decompressed_contents(published, tmp_path):
    """However a file is compressed, or not at all, its contents decide."""
    fingerprints = set()
    for index, level in enumerate((None, 1, 9)):
        folder = tmp_path / str(index)
        put(folder, "mnist", published, compress=False)
        if level is not None:
            for path in list(folder.iterdir()):
                (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), level))
                path.unlink()
        fingerprints.add(data.load("mnist", folder).fingerprint)
    assert len(fingerprints) == 1


def test_wrong_checksum(published, tmp_path):
    put(tmp_path / "mine", "mnist", published)
    path = tmp_path / "mine" / "t10k-images-idx3-ubyte.gz"
    changed = bytearray(published["mnist", "test"])
    changed[-1] ^= 1
    path.write_bytes(gzip.compress(changed))
    expected = download.FILES["mnist"]["test"].sha256
    found = hashlib.sha256(changed).hexdigest()
    one_line(data.load, "mnist", tmp_path / "mine", says=[path, expected, found, "delete the file"])


def test_truncated_file(published, tmp_path):
    put(tmp_path / "mine", "mnist", published)
    path = tmp_path / "mine" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    one_line(data.load, "mnist", tmp_path / "mine", says=[path, "delete"])


def test_namesake_of_another_data_set_is_passed_over(published, tmp_path):
    put(tmp_path / "mine", "mnist", published)
    put(tmp_path / "system", "fashion_mnist", published)
    assert data.load("fashion_mnist", tmp_path / "mine").binarization == "threshold"


def test_download_into_the_cache(published, server, tmp_path, monkeypatch):
    folder, url = server
    put(folder, "mnist", published)
    for split, file in download.FILES["mnist"].items():
        moved = # Finding, verifying and downloading


", "expected"), [((6,), (1, 6)), ((9,), (3, 3)), ((2, 3), (2, 3)), ((1, 9), (1, 9))]
)
def test_npz_image_shapes(tmp_path, shape, expected):
    ones = {split: np.ones((count, *shape)) for split, count in data.SMALLEST_SPLIT.items()}
    dataset = data.load(save(tmp_path / "mine.npz", **ones))
    assert dataset.image_shape == expected
    assert dataset.train.shape == (100, math.prod(shape))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, ">f8"])
def test_npz_of_zeros_and_ones_is_binary(tmp_path, dtype):
    random = np.random.RandomState(0)
    arrays = {
        split: random.randint(0, 2, (count, 6)).astype(dtype)
        for split, count in data.SMALLEST_SPLIT.items()
    }
    dataset = data.load(save(tmp_path / "mine.npz", **arrays))
    assert dataset.binarization == "binary"
    for split in data.SPLITS:
        assert np.array_equal(getattr(dataset, split), arrays[split].astype(np.uint8) * 255)


def test_npz_of_bytes_keeps_dark_splits_dark(tmp_path):
    """One split with no byte above 1 is as dark as it looks if another goes up to 255."""
    train = np.arange(600, dtype=np.int64).reshape(100, 6).astype(np.uint8)
    dark = np.ones((10, 6), dtype=np.uint8)
    path = save(tmp_path / "mine.npz", train=train, valid=dark, test=train[:10])
    dataset = data.load(path, binarize="none")
    assert np.array_equal(dataset.train, train)
    assert np.array_equal(dataset.valid, dark)


def test_fingerprint_sees_pixels_splits_shape_and_binarization(tmp_path):
    images = (np.arange(600).reshape(100, 6) % 256).astype(np.uint8)
    changed = images.copy()
    changed[50, 3] += 1
    variants = [
        ({}, None),
        ({"train": changed}, None),
        ({"valid": images[20:30]}, None),
        ({}, "none"),
        ({}, "threshold"),
    ]
    base = {"train": images, "valid": images[:10], "test": images[10:20]}
    prints = [
        data.load(save(tmp_path / "mine.npz", **{**base, **change}), binarize=mode).fingerprint
        for change, mode in variants
    ]
    cubes = {split: array.reshape(-1, 2, 3) for split, array in base.items()}
    prints.append(data.load(save(tmp_path / "mine.npz", **cubes)).fingerprint)
    assert len(set(prints)) == len(prints)


# Bad input


def one_line(action, *args, says=(), **kwargs) -> None:
    with pytest.raises(BenchError) as caught:
        action(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for part in says:
        assert str(part) in message


def test_unknown_names():
    one_line(data.load, "mnist_5k", says=["unknown data set 'mnist_5k'", "'mnist5k'"])
    one_line(data.load, "fashion-mnist", says=["'fashion_mnist'"])
    one_line(data.load, "qqq", says=[*data.DATASETS, ".npz"])
    one_line(data.load, "digits", binarize="treshold", says=["'threshold'"])
    one_line(data.load, "digits", binarize="binary", says=["unknown binarization 'binary'"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"valid": None}, ["lacks", "valid"]),
        ({"train": None, "test": None}, ["lacks", "train, test"]),
        ({"train": np.zeros(100)}, ["'train'", "(100,)"]),
        ({"test": np.zeros((10, 1, 2, 3))}, ["'test'", "(10, 1, 2, 3)"]),
        ({"train": np.zeros((100, 0))}, ["'train'", "(100, 0)"]),
        ({"test": np.zeros((10, 7))}, ["different shapes", "test (7,)"]),
        ({"test": np.zeros((10, 2, 3))}, ["different shapes", "test (2, 3)"]),
        ({"train": np.zeros((99, 6))}, ["'train'", "99 images", "100"]),
        ({"valid": np.zeros((9, 6))}, ["'valid'", "9 images", "10"]),
        ({"test": np.zeros((0, 6))}, ["'test'", "0 images"]),
        ({"valid": np.full((10, 6), np.nan)}, ["'valid'", "NaN"]),
        ({"valid": np.full((10, 6), np.inf)}, ["'valid'", "inf", "[0, 1]"]),
        ({"test": np.full((10, 6), 1.01)}, ["'test'", "1.01", "[0, 1]"]),
        ({"test": np.full((10, 6), -0.01)}, ["'test'", "-0.01", "[0, 1]"]),
        ({"train": np.full((100, 6), 255)}, ["'train'", "255", "uint8"]),
        ({"train": np.full((100, 6), "a")}, ["'train'", "<U1"]),
        ({"train": np.zeros((100, 6), dtype=complex)}, ["'train'", "complex"]),
        ({"train": np.full((100, 6), None)}, ["cannot read", "np.savez"]),
    ],
)
def test_unfit_arrays(tmp_path, changes, says):
    path = save(tmp_path / "mine.npz", **changes)
    one_line(data.load, path, says=[path, *says])


def test_unreadable_npz(tmp_path):
    path = tmp_path / "mine.npz"
    one_line(data.load, str(path), says=[path, "does not exist"])
    whole = Path(save(path)).read_bytes()
    np.save(tmp_path / "array.npy", np.zeros((100, 6)))
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    single = (tmp_path / "array.npy").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], single, bytes(flipped)):
        path.write_bytes(content)
        one_line(data.load, str(path), says=[path, "cannot read", "np.savez"])


def test_npz_named_as_a_built