"""Shared by the tests of data: the form of a failure, an .npz file of a user's, published files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.data import files as download
from bench.data.own import SMALLEST_SPLIT
from bench.errors import BenchError
from tests.data.published import amat, idx, published_file


@pytest.fixture
def one_line() -> Callable[..., None]:
    """Asserts that an action fails with one line that says what it must."""

    def check(action: Callable, *args, says=(), **kwargs) -> None:
        with pytest.raises(BenchError) as caught:
            action(*args, **kwargs)
        message = str(caught.value)
        assert "\n" not in message
        for part in says:
            assert str(part) in message

    return check


@pytest.fixture
def save() -> Callable[..., str]:
    """Saves three splits of random images as small as they may be, with some arrays changed."""

    def write(path: Path, **changes: np.ndarray | None) -> str:
        random = np.random.RandomState(0)
        arrays = {split: random.rand(count, 6) for split, count in SMALLEST_SPLIT.items()}
        arrays |= changes
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
        return str(path)

    return write


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Small stand-ins for every published file, and nothing of this machine's own files."""
    random = np.random.RandomState(0)
    payloads = {}
    for dataset in ("mnist", "fashion_mnist"):
        for split, count in (("train", 10150), ("test", 20)):
            images = random.randint(0, 256, (count, 3, 2), dtype=np.uint8)
            payloads[dataset, split] = idx(images)
        payloads[dataset, "labels"] = idx(random.randint(0, 10, 20, dtype=np.uint8))
    for split, count in (("train", 120), ("valid", 20), ("test", 30)):
        payloads["binarized_mnist", split] = amat(random.randint(0, 2, (count, 784)))
    images, labels = {}, {}
    for (dataset, content), payload in payloads.items():
        url, sha256 = published_file(dataset, content).url, hashlib.sha256(payload).hexdigest()
        file = download.PublishedFile(url, sha256)
        if content == "labels":
            labels[dataset] = file
        else:
            images.setdefault(dataset, {})[content] = file
    monkeypatch.setattr(download, "FILES", images)
    monkeypatch.setattr(download, "LABEL_FILES", labels)
    monkeypatch.setattr(download, "SYSTEM_FOLDERS", {"fashion_mnist": tmp_path / "system"})
    monkeypatch.setattr(download, "_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("BENCH_DATA", raising=False)
    return payloads
