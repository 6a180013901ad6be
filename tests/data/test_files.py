"""Published files on this machine: the data sets they make, where they are looked for, and their
verification."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data import files as download
from bench.data.binarization import as_float
from bench.data.dataset import load
from bench.data.splits import SPLITS
from bench.errors import BenchError
from tests.data.published import idx, put

# Data sets made of published files


def test_idx_splits_and_stochastic_binarization(published, tmp_path):
    put(tmp_path / "mine", "mnist", published)
    dataset = load("mnist", tmp_path / "mine", binarize="none")
    train = np.frombuffer(published["mnist", "train"][16:], dtype=np.uint8).reshape(-1, 6)
    assert np.array_equal(dataset.train, train[:150])
    assert np.array_equal(dataset.valid, train[150:])
    assert dataset.test.flatten().numpy().tobytes() == published["mnist", "test"][16:]
    assert dataset.image_shape == (3, 2)
    drawn, again = load("mnist", tmp_path / "mine"), load("mnist", tmp_path / "mine")
    assert drawn.binarization == "stochastic"
    assert torch.equal(drawn.valid, again.valid)
    assert torch.equal(drawn.test, again.test)
    assert set(drawn.valid.unique().tolist()) == {0, 255}
    assert drawn.fingerprint == again.fingerprint != dataset.fingerprint


def test_fashion_is_thresholded_at_one_half(published, tmp_path):
    put(tmp_path / "system", "fashion_mnist", published)
    grey, dataset = load("fashion_mnist", binarize="none"), load("fashion_mnist")
    assert dataset.binarization == "threshold"
    for split in SPLITS:
        expected = (as_float(getattr(grey, split)) >= 0.5).to(torch.uint8) * 255
        assert torch.equal(getattr(dataset, split), expected)


def test_amat_is_binary_whatever_is_asked(published, tmp_path):
    put(tmp_path / "mine", "binarized_mnist", published, compress=False)
    for override in (None, "threshold", "stochastic"):
        dataset = load("binarized_mnist", tmp_path / "mine", binarize=override)
        assert dataset.binarization == "binary"
        for split in SPLITS:
            digits = published["binarized_mnist", split].split()
            assert getattr(dataset, split).flatten().tolist() == [255 * int(d) for d in digits]


@pytest.mark.parametrize("name", download.FILES)
def test_real_files(name, monkeypatch):
    """The published files, where this machine has them: their sizes and known mean intensity."""
    absent = f"the files of {name} are neither in $BENCH_DATA nor installed on this machine"
    monkeypatch.setattr(download, "_download", lambda *a: pytest.skip(absent))
    dataset = load(name)
    assert [len(getattr(dataset, split)) for split in SPLITS] == [50000, 10000, 10000]
    assert dataset.image_shape == (28, 28)
    mean = as_float(dataset.train).mean().item()
    expected = {"mnist": 0.1310, "fashion_mnist": 0.3139, "binarized_mnist": 0.1306}
    assert mean == pytest.approx(expected[name], abs=1e-3)


# Labels of the test images


def test_labels_lie_beside_the_images(published, tmp_path, monkeypatch):
    """In the user's folder, plain or compressed, or the system's; the images' fingerprint stays."""
    monkeypatch.setattr(download, "_download", lambda *a: pytest.fail("downloaded"))
    put(tmp_path / "mine", "mnist", published, compress=False)
    put(tmp_path / "system", "fashion_mnist", published)
    for name in ("mnist", "fashion_mnist"):
        dataset = load(name, tmp_path / "mine")
        assert dataset.labels.dtype == torch.uint8
        assert dataset.labels.numpy().tobytes() == published[name, "labels"][8:]
    plain = load("mnist", tmp_path / "mine")
    (tmp_path / "mine" / "t10k-labels-idx1-ubyte").unlink()
    without = load("mnist", tmp_path / "mine")
    assert without.labels is None
    assert without.fingerprint == plain.fingerprint


@pytest.mark.parametrize("content", [b"", b"marker", b"\x1f\x8b broken"])
def test_damaged_labels_are_no_labels(published, tmp_path, content):
    put(tmp_path / "mine", "mnist", published)
    (tmp_path / "mine" / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    assert load("mnist", tmp_path / "mine").labels is None


def test_a_fixed_binarization_comes_without_labels(published, tmp_path):
    put(tmp_path / "mine", "binarized_mnist", published)
    assert load("binarized_mnist", tmp_path / "mine").labels is None


@pytest.mark.parametrize("name", download.LABEL_FILES)
def test_real_labels(name):
    """The published label file, where this machine has it: a thousand images of each class."""
    folder = os.environ.get("BENCH_DATA")
    labels = download.label_contents(name, Path(folder) if folder else None)
    if labels is None:
        pytest.skip(f"the labels of {name} are neither in $BENCH_DATA nor installed")
    counts = np.bincount(np.frombuffer(labels, np.uint8, offset=8))
    assert counts.sum() == 10_000
    if name == "fashion_mnist":
        assert counts.tolist() == [1000] * 10
    else:
        assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


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
        load("fashion_mnist")
        damaged = folder / "train-images-idx3-ubyte.gz"
        damaged.write_bytes(b"marker")
        with pytest.raises(BenchError) as error:
            load("fashion_mnist")
        assert str(damaged) in str(error.value)
        damaged.unlink()


def test_data_dir_comes_before_the_environment(published, tmp_path, monkeypatch):
    put(tmp_path / "mine", "mnist", published)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nowhere"))
    load("mnist", tmp_path / "mine")
    with pytest.raises(BenchError, match="nowhere does not exist"):
        load("mnist")


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
        fingerprints.add(load("mnist", folder).fingerprint)
    assert len(fingerprints) == 1


def test_wrong_checksum(published, tmp_path, one_line):
    put(tmp_path / "mine", "mnist", published)
    path = tmp_path / "mine" / "t10k-images-idx3-ubyte.gz"
    changed = bytearray(published["mnist", "test"])
    changed[-1] ^= 1
    path.write_bytes(gzip.compress(changed))
    expected = download.FILES["mnist"]["test"].sha256
    found = hashlib.sha256(changed).hexdigest()
    one_line(load, "mnist", tmp_path / "mine", says=[path, expected, found, f"--dataset {path}"])


def test_truncated_file(published, tmp_path, one_line):
    put(tmp_path / "mine", "mnist", published)
    path = tmp_path / "mine" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    one_line(load, "mnist", tmp_path / "mine", says=[path, "cannot read", "--data-dir"])


def test_only_a_file_in_the_cache_is_told_to_be_deleted(published, tmp_path, one_line):
    for folder in (tmp_path / "mine", tmp_path / "cache" / "mnist"):
        put(folder, "mnist", published)
        path = folder / "train-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(idx(np.zeros((120, 3, 2), dtype=np.uint8))))
    with pytest.raises(BenchError) as error:
        load("mnist", tmp_path / "mine")
    assert "delete" not in str(error.value)
    one_line(load, "mnist", says=[path, "delete the file and it will be downloaded"])


def test_the_folder_of_torchvision_is_looked_in(published, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_download", lambda *a: pytest.fail("downloaded"))
    for name, folder in (("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")):
        put(tmp_path / "root" / folder / "raw", name, published, compress=False)
        assert load(name, tmp_path / "root").labels is not None


def test_namesake_of_another_data_set_is_passed_over(published, tmp_path):
    put(tmp_path / "mine", "mnist", published)
    put(tmp_path / "system", "fashion_mnist", published)
    assert load("fashion_mnist", tmp_path / "mine").binarization == "threshold"


def test_a_matrix_of_digits_is_the_published_text(published, tmp_path):
    """The second source of the fixed binarization holds it as MATLAB files."""
    savemat = pytest.importorskip("scipy.io", reason="needs scipy").savemat
    put(tmp_path / "mine", "binarized_mnist", published, compress=False)
    expected = load("binarized_mnist", tmp_path / "mine").fingerprint
    for split, file in download.FILES["binarized_mnist"].items():
        lines = published["binarized_mnist", split].decode().splitlines()
        digits = np.array([line.split() for line in lines]).astype(float)
        with (tmp_path / "mine" / file.name).open("wb") as written:
            savemat(written, {"X": digits})
    assert load("binarized_mnist", tmp_path / "mine").fingerprint == expected
