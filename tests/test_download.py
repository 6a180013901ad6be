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


def test_idx_splits_and_stochastic_binarization(published, tmp_path):
    put(tmp_path / "mine", "mnist", published)
    dataset = data.load("mnist", tmp_path / "mine", binarize="none")
    train = np.frombuffer(published["mnist", "train"][16:], dtype=np.uint8).reshape(-1, 6)
    assert np.array_equal(dataset.train, train[:150])
    assert np.array_equal(dataset.valid, train[150:])
    assert dataset.test.flatten().numpy().tobytes() == published["mnist", "test"][16:]
    assert dataset.image_shape == (3, 2)
    drawn, again = data.load("mnist", tmp_path / "mine"), data.load("mnist", tmp_path / "mine")
    assert drawn.binarization == "stochastic"
    assert torch.equal(drawn.valid, again.valid)
    assert torch.equal(drawn.test, again.test)
    assert set(drawn.valid.unique().tolist()) == {0, 255}
    assert drawn.fingerprint == again.fingerprint != dataset.fingerprint


def test_fashion_is_thresholded_at_one_half(published, tmp_path):
    put(tmp_path / "system", "fashion_mnist", published)
    grey, dataset = data.load("fashion_mnist", binarize="none"), data.load("fashion_mnist")
    assert dataset.binarization == "threshold"
    for split in data.SPLITS:
        expected = (data.as_float(getattr(grey, split)) >= 0.5).to(torch.uint8) * 255
        assert torch.equal(getattr(dataset, split), expected)


def test_amat_is_binary_whatever_is_asked(published, tmp_path):
    put(tmp_path / "mine", "binarized_mnist", published, compress=False)
    for override in (None, "threshold", "stochastic"):
        dataset = data.load("binarized_mnist", tmp_path / "mine", binarize=override)
        assert dataset.binarization == "binary"
        for split in data.SPLITS:
            digits = published["binarized_mnist", split].split()
            assert getattr(dataset, split).flatten().tolist() == [255 * int(d) for d in digits]


@pytest.mark.parametrize("name", download.FILES)
def test_real_files(name, monkeypatch):
    """The published files, where this machine has them: their sizes and known mean intensity."""
    absent = f"the files of {name} are neither in $BENCH_DATA nor installed on this machine"
    monkeypatch.setattr(download, "_download", lambda *a: pytest.skip(absent))
    dataset = data.load(name)
    assert [len(getattr(dataset, split)) for split in data.SPLITS] == [50000, 10000, 10000]
    assert dataset.image_shape == (28, 28)
    mean = data.as_float(dataset.train).mean().item()
    expected = {"mnist": 0.1310, "fashion_mnist": 0.3139, "binarized_mnist": 0.1306}
    assert mean == pytest.approx(expected[name], abs=1e-3)


def test_moving_keeps_everything_else(published, tmp_path):
    put(tmp_path / "mine", "mnist", published)
    dataset = data.load("mnist", tmp_path / "mine")
    moved = dataset.to("meta")
    assert {getattr(moved, split).device.type for split in data.SPLITS} == {"meta"}
    assert moved.fingerprint == dataset.fingerprint


# Finding, verifying and downloading


def test_lookup_order(published, tmp_path, monkeypatch):
    """The data set's subfolder, the data folder, the cache, the system's folder: first wins."""
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
        moved = download.PublishedFile(f"{url}/{file.name}", file.sha256)
        monkeypatch.setitem(download.FILES["mnist"], split, moved)
    first = data.load("mnist")
    for path in folder.iterdir():
        path.unlink()
    assert data.load("mnist").fingerprint == first.fingerprint
    cached = sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir())
    assert cached == ["t10k-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz"]


@pytest.mark.parametrize("sent", [b"<html>log in first</html>", b"\x1f\x8b broken", None])
def test_bad_download_is_not_kept(published, server, tmp_path, monkeypatch, sent):
    folder, url = server
    file = download.FILES["mnist"]["train"]
    moved = download.PublishedFile(f"{url}/{file.name}", file.sha256)
    monkeypatch.setitem(download.FILES["mnist"], "train", moved)
    if sent is not None:
        (folder / file.name).write_bytes(sent)
    cache = tmp_path / "cache" / "mnist"
    one_line(data.load, "mnist", says=[moved.url, file.sha256, cache])
    assert list(cache.iterdir()) == []


def test_impossible_download(published, offline, tmp_path):
    file = download.FILES["binarized_mnist"]["train"]
    cache = tmp_path / "cache" / "binarized_mnist"
    one_line(data.load, "binarized_mnist", says=[file.name, file.url, file.sha256, cache])


def test_unwritable_cache(published, offline, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    one_line(data.load, "mnist", says=["cannot download", download.FILES["mnist"]["train"].url])


def test_download_without_pooch(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    file = download.FILES["mnist"]["train"]
    one_line(data.load, "mnist", says=["pip install pooch", file.url, file.sha256])


def test_without_pooch_there_is_still_a_cache(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert download._cache().name == "vae-bench"
