"""Shared by the tests of data: the form of a failure, and an .npz file of a user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.data.own import SMALLEST_SPLIT
from bench.errors import BenchError


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
