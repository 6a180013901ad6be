"""Finished work is stored whole, found again, or made again."""

from __future__ import annotations

import hashlib
import io
import math

import pytest
import torch

from bench.errors import BenchError
from bench.grid.store import Store
from bench.machine import storage


def test_round_trip(tmp_path):
    store = Store(tmp_path)
    store.save("k", {"numbers": [1.0, 2.0], "weights": torch.arange(3)})
    loaded = store.load("k")
    assert loaded["numbers"] == [1.0, 2.0]
    assert torch.equal(loaded["weights"], torch.arange(3))
    assert store.load("absent") is None
    assert not store.notices


def test_tensors_are_left_out_where_they_are_not_asked_for(tmp_path):
    store = Store(tmp_path)
    plain = {"history": [{"elbo": -0.1, "rate": math.inf, "epoch": 1, "ended": True}], "none": None}
    others = {"deep": {"x": [torch.ones(2)]}, "pair": (1, "a"), "numbered": {1: 2.0}}
    store.save("k", plain | others)
    assert store.load("k", tensors=False) == plain
    whole = store.load("k")
    assert torch.equal(whole["deep"].pop("x")[0], torch.ones(2))
    assert whole == plain | others | {"deep": {}}


def test_damaged_tensors_are_noticed_where_they_are_asked_for(tmp_path):
    store = Store(tmp_path)
    store.save("k", {"a": 1, "weights": torch.ones(3)})
    data = store.path("k").read_bytes()
    store.path("k").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert store.load("k", tensors=False) == {"a": 1}
    assert store.load("k") is None
    assert "truncated or damaged" in store.notices.pop()
    store.path("k").write_bytes(data[:-1])
    assert store.load("k", tensors=False) is None


def test_what_the_first_version_stored_is_read(tmp_path):
    store, saved = Store(tmp_path), io.BytesIO()
    torch.save({"a": (1, 2), "weights": torch.ones(3)}, saved)
    digest = hashlib.sha256(saved.getvalue()).hexdigest().encode()
    store.path("k").write_bytes(b"vae-bench 1 k " + digest + b"\n" + saved.getvalue())
    assert store.load("k", tensors=False)["a"] == (1, 2)
    assert torch.equal(store.load("k")["weights"], torch.ones(3))


def test_any_damaged_byte_of_a_header_is_noticed(tmp_path):
    store = Store(tmp_path)
    store.save("k", {"a": 1, "weights": torch.ones(3)})
    data = store.path("k").read_bytes()
    for place in range(data.index(b"\n") + 1):
        for byte in (data[place] ^ 1, ord("9"), ord(" ")):
            if byte != data[place]:
                store.path("k").write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
                assert store.load("k") is None, (place, byte)


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
