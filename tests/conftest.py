"""Shared by all tests: one torch thread, a tiny data set, and an executor in this process."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


class Inline(Executor):
    """Runs each task at once in this process: the runner sees only the executor's interface."""

    def submit(self, fn, /, *args, **kwargs) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def inline() -> Inline:
    return Inline()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An .npz of 4 × 4 images: two noisy prototypes."""
    rng = np.random.default_rng(0)
    prototypes = rng.random((2, 16))

    def images(n: int) -> np.ndarray:
        noise = rng.normal(0, 0.15, (n, 16))
        return np.clip(prototypes[rng.integers(0, 2, n)] + noise, 0, 1).astype(np.float32)

    path = tmp_path / "tiny.npz"
    np.savez(path, train=images(120), valid=images(20), test=images(30))
    return path
