"""Keys follow what a result depends on; files are whole, ours, or made again."""

from __future__ import annotations

import pytest
import torch

from bench import cache
from bench.cache import Store
from bench.config import BenchError
from bench.train import train
from vaes import discover

VARIANTS = discover().variants


@pytest.fixture
def edited(monkeypatch):
    """Pretend a module's source were edited."""

    def edit(module: str, old: str, new: str) -> None:
        original = cache.inspect.getsource

        def source(of):
            text = original(of)
            if of.__name__ == module:
                assert old in text
                text = text.replace(old, new)
            return text

        monkeypatch.setattr(cache.inspect, "getsource", source)
        cache._definition.cache_clear()

    yield edit
    cache._definition.cache_clear()


def fingerprints() -> dict[str, str]:
    return {name: cache.source_fingerprint(v, train) for name, v in VARIANTS.items()}


def test_editing_one_variant_changes_that_variant_alone(edited):
    before = fingerprints()
    edited("vaes.learned_diagonal", "torch.zeros(", "torch.ones(")
    after = fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"learned_diagonal"}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("vaes.base", " Tanh()", " nn.ReLU()"),
        ("bench.step", "fused=True", "fused=False"),
        ("bench.gradients", "posterior.loc + posterior.scale * noise", "posterior.loc"),
        ("bench.data", "/ 255", "/ 256"),
        ("bench.config", "digest[:8]", "digest[:7]"),
    ],
)
def test_editing_shared_code_changes_every_variant(edited, module, old, new):
    before = fingerprints()
    edited(module, old, new)
    after = fingerprints()
    assert all(before[name] != after[name] for name in before)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("vaes.base", "The shared networks and the contract", "Other words"),
        ("bench.train", "def learning_rate(run: Run,", "def learning_rate(run,"),
        ("bench.gradients", "def sticking_the_landing", "def sticking_the_ladning"),
        ("bench.config", "sweep_seeds: int = 2", "sweep_seeds: int = 3"),
    ],
)
def test_what_no_result_depends_on_does_not_count(edited, module, old, new):
    before = fingerprints()
    edited(module, old, new)
    assert fingerprints() == before


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

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(BenchError, match="No space left on device") as error:
        store.save("k", {"a": 2})
    assert "\n" not in str(error.value)
    assert store.load("k") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["k.run"]
