"""Finished work is stored whole, found again, or made again."""

from __future__ import annotations

import pytest
import torch

from bench import storage
from bench.errors import BenchError
from bench.grid.store import Store


def test_round_trip(tmp_path):
    store = Store(tmp_path)
    store.save("k", {"numbers": [1.0, 2.0], "weights": torch.arange(3)})
    loaded = store.load("k")
    assert loaded["numbers"] == [1.0, 2.0]
    assert torch.equal(loaded["weights"], torch.arange(3))
    assert store.load("absent") is None
    assert not store.notices


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda data: data[:-5], "truncated"),
        (lambda data: data[:10], "not a file of this program"),
        (lambda data: b"hello", "not a file of this program"),
        (lambda data: data.replace(b" k ", b" j ", 1), "of another run"),
    ],
)
def test_a_damaged_file_is_noticed_and_made_again(tmp_path, damage, word):
    store = Store(tmp_path)
    store.save("k", {"a": 1})
    path = store.path("k")
    path.write_bytes(damage(path.read_bytes()))
    assert store.load("k") is None
    assert word in store.notices[0]


def test_a_full_disk_is_one_line_and_keeps_what_was_stored(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.save("k", {"a": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(BenchError, match="No space left on device") as error:
        store.save("k", {"a": 2})
    assert "\n" not in str(error.value)
    assert store.load("k") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["k.run"]
