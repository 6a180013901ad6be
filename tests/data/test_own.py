"""The user's arrays: what they become, and every way in which they are unfit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data.binarization import as_float
from bench.data.dataset import load
from bench.data.own import SMALLEST_SPLIT
from bench.data.splits import SPLITS


def test_npz_of_floats(tmp_path, save):
    path = save(tmp_path / "mine.npz")
    dataset, grey = load(path), load(path, binarize="none")
    assert dataset.name == "mine"
    assert dataset.binarization == "stochastic"
    assert dataset.image_shape == (1, 6)
    stored = np.load(path)
    for split in SPLITS:
        rounded = as_float(getattr(grey, split)).numpy()
        assert np.abs(rounded - stored[split]).max() <= 0.5 / 255 + 1e-6
    assert set(dataset.test.unique().tolist()) == {0, 255}
    assert load(path, binarize="threshold").binarization == "threshold"


@pytest.mark.parametrize(
    ("shape", "expected"), [((6,), (1, 6)), ((9,), (3, 3)), ((2, 3), (2, 3)), ((1, 9), (1, 9))]
)
def test_npz_image_shapes(tmp_path, shape, expected, save):
    ones = {split: np.ones((count, *shape)) for split, count in SMALLEST_SPLIT.items()}
    dataset = load(save(tmp_path / "mine.npz", **ones))
    assert dataset.image_shape == expected
    assert dataset.train.shape == (100, math.prod(shape))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, ">f8"])
def test_npz_of_zeros_and_ones_is_binary(tmp_path, dtype, save):
    random = np.random.RandomState(0)
    arrays = {
        split: random.randint(0, 2, (count, 6)).astype(dtype)
        for split, count in SMALLEST_SPLIT.items()
    }
    dataset = load(save(tmp_path / "mine.npz", **arrays))
    assert dataset.binarization == "binary"
    for split in SPLITS:
        assert np.array_equal(getattr(dataset, split), arrays[split].astype(np.uint8) * 255)


def test_npz_of_bytes_keeps_dark_splits_dark(tmp_path, save):
    """One split with no byte above 1 is as dark as it looks if another goes up to 255."""
    train = np.arange(600, dtype=np.int64).reshape(100, 6).astype(np.uint8)
    dark = np.ones((10, 6), dtype=np.uint8)
    path = save(tmp_path / "mine.npz", train=train, valid=dark, test=train[:10])
    dataset = load(path, binarize="none")
    assert np.array_equal(dataset.train, train)
    assert np.array_equal(dataset.valid, dark)


def test_npz_labels_are_of_the_test_images(tmp_path, save):
    labels = np.arange(10)
    without, dataset = (
        load(save(tmp_path / "a.npz")),
        load(save(tmp_path / "b.npz", test_labels=labels)),
    )
    assert without.labels is None
    assert dataset.labels.dtype == torch.uint8
    assert dataset.labels.tolist() == labels.tolist()
    assert torch.equal(dataset.test, without.test)
    assert dataset.fingerprint == without.fingerprint


def test_a_path_with_spaces_is_a_path(tmp_path, save):
    folder = tmp_path / "my data; $(here) 'quoted'"
    folder.mkdir()
    assert load(save(folder / "with space.npz")).name == "with space"


# Bad input


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
        ({"test_labels": np.zeros(9, int)}, ["'test_labels'", "(9,)", "expected (10,)"]),
        ({"test_labels": np.zeros((10, 10), int)}, ["'test_labels'", "(10, 10)"]),
        ({"test_labels": np.full(10, 256)}, ["'test_labels'", "integers from 0 to 255"]),
        ({"test_labels": np.full(10, -1)}, ["'test_labels'", "integers from 0 to 255"]),
        ({"test_labels": np.zeros(10)}, ["'test_labels'", "integers from 0 to 255"]),
        ({"test_labels": np.full(10, "cat")}, ["'test_labels'", "integers from 0 to 255"]),
    ],
)
def test_unfit_arrays(tmp_path, changes, says, save, one_line):
    path = save(tmp_path / "mine.npz", **changes)
    one_line(load, path, says=[path, *says])


def test_unreadable_npz(tmp_path, save, one_line):
    path = tmp_path / "mine.npz"
    one_line(load, str(path), says=[path, "does not exist"])
    whole = Path(save(path)).read_bytes()
    np.save(tmp_path / "array.npy", np.zeros((100, 6)))
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    single = (tmp_path / "array.npy").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], single, bytes(flipped)):
        path.write_bytes(content)
        one_line(load, str(path), says=[path, "cannot read", "np.savez"])


def test_npz_named_as_a_built_in_data_set(tmp_path, save, one_line):
    """Its results would land in the folder of the real one."""
    one_line(load, save(tmp_path / "mnist.npz"), says=["mnist.npz", "rename"])
