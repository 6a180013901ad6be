"""Full disks, folders that vanish, damaged files: one line, nothing lost, and a run mends it."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from stand_ins import QUESTIONS, stored

from bench.commands import run
from bench.errors import BenchError
from bench.grid.store import Store
from bench.machine import storage
from bench.options import Config
from bench.report import page, results, rows

STORED = ("rows.csv.gz", "history.csv", "pictures.npz", "environment.json", "throughput.json")
DRAWN = ("README.md", "tables/elbo.csv", "figures/elbo.png", "figures/samples.png")
ABOVE = ("index.html", "README.md")


@pytest.fixture
def bench(tiny, tmp_path, inline, monkeypatch, in_process):
    """`bench(results=…)` runs two variants in this process; its exit code and what it said."""
    monkeypatch.setattr(run, "Workers", lambda *arguments: inline)

    def call(**options) -> tuple[int, str]:
        asked = {"dataset": str(tiny), "preset": "quick", "seeds": 1, "questions": "headline"}
        asked |= {"variants": "autoencoder,input_dependent"}
        asked |= {"results": tmp_path / "results", "cache": tmp_path / "cache", **options}
        text = io.StringIO()
        console = Console(file=text, width=300, highlight=False)
        return run.run(Config(**asked), console), text.getvalue()

    return call


def rows_in(root: Path) -> pd.DataFrame:
    (path,) = root.glob("*/*/rows.csv.gz")
    found = results.read(path.parent)
    assert not found.problems
    return found.rows[found.rows.unit != "s"].reset_index(drop=True)


# --- disks and folders -----------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A small disk: where it is mounted, and what gives it room."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(where)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    more = ["mount", "-o", "remount,size=50m", str(where)]
    yield where, lambda: subprocess.run(more, check=True)
    subprocess.run(["umount", str(where)], check=True)


@pytest.mark.parametrize("full", ["cache", "results"])
def test_a_full_disk_is_one_line_and_with_room_again_the_run_goes_on(bench, disk, tmp_path, full):
    bench()
    whole = rows_in(tmp_path / "results")
    where, give_room = disk
    with pytest.raises(BenchError, match=r"No space left on device.*run again") as caught:
        bench(**{full: where})
    assert "\n" not in str(caught.value)
    assert not list(where.rglob(".*.????????"))
    if full == "cache":  # of a run of the same configuration, all of whose tasks fail
        pd.testing.assert_frame_equal(rows_in(tmp_path / "results"), whole)
    give_room()
    assert bench(**{full: where})[0] == 0
    root = where if full == "results" else tmp_path / "results"
    pd.testing.assert_frame_equal(rows_in(root), whole)


def test_a_cache_folder_that_vanishes_is_one_line(bench, tmp_path, inline, monkeypatch):
    bench()
    whole, submit = rows_in(tmp_path / "results"), inline.submit

    def vanish(*given):
        future = submit(*given)
        shutil.rmtree(tmp_path / "other")
        return future

    with monkeypatch.context() as patch:
        patch.setattr(inline, "submit", vanish, raising=False)
        one_line_of_vanished_work(lambda: bench(cache=tmp_path / "other"))
    pd.testing.assert_frame_equal(rows_in(tmp_path / "results"), whole)
    assert bench(cache=tmp_path / "other")[0] == 0


def test_trainings_that_vanish_are_one_line(bench, tmp_path, monkeypatch):
    """Those that a measurement was about to read."""
    load = Store.load

    def forget(self, key, tensors=True):
        found = load(self, key, tensors)
        if found and "history" in found:
            self.path(key).unlink()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Store, "load", forget)
        one_line_of_vanished_work(bench)
    assert bench()[0] == 0


def one_line_of_vanished_work(run: Callable) -> None:
    with pytest.raises(BenchError, match=r"vanished from the cache folder.*run again") as caught:
        run()
    assert "\n" not in str(caught.value)


def test_results_that_vanish_in_mid_run_are_made_again(bench, tmp_path, monkeypatch):
    bench()
    whole = rows_in(tmp_path / "results")
    store = results.store

    def vanish(*given, **named):
        shutil.rmtree(tmp_path / "results")
        return store(*given, **named)

    monkeypatch.setattr(results, "store", vanish)
    assert bench()[0] == 0
    pd.testing.assert_frame_equal(rows_in(tmp_path / "results"), whole)


def test_results_that_vanish_before_they_are_drawn_are_one_line(bench, tmp_path, monkeypatch):
    redraw = page._redraw

    def vanish(*given):
        shutil.rmtree(tmp_path / "results")
        redraw(*given)

    monkeypatch.setattr(page, "_redraw", vanish)
    with pytest.raises(BenchError, match="cannot be written") as caught:
        bench()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()


# --- damage ----------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def be_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("in it")


def be_unreadable(path: Path) -> None:
    """By anyone, the superuser too."""
    path.unlink()
    path.symlink_to(path.name)


def packed(path: Path, change: Callable[[str], str]) -> None:
    """Change the text of a file, packed or not."""
    content = path.read_bytes()
    zipped = content[:2] == b"\x1f\x8b"
    text = (gzip.decompress(content) if zipped else content).decode("utf-8", "replace")
    changed = change(text)
    assert changed != text
    path.write_bytes(gzip.compress(changed.encode()) if zipped else changed.encode())


def lack_a_column(path: Path) -> None:
    def without_first(text: str) -> str:
        if text.startswith("{"):
            return json.dumps(dict(list(json.loads(text).items())[1:]))
        return "\n".join(line.partition(",")[2] for line in text.splitlines()) + "\n"

    packed(path, without_first)


def have_another_value(path: Path) -> None:
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            np.savez(path, **{name: array + 1 for name, array in arrays.items()})
    else:
        packed(path, lambda text: text.replace("1", "2"))


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2]),
    "bit-flipped": flip,
    "emptied": lambda path: path.write_bytes(b""),
    "a folder": be_a_folder,
    "unreadable": be_unreadable,
    "of another program": lambda path: path.write_bytes(b'["of", "another", "program"]\n'),
    "without a column": lack_a_column,
    "with another value": have_another_value,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Results with their pages, drawn once."""
    root = tmp_path_factory.mktemp("drawn")
    made = stored(root / "toy" / "cpu")
    (made / "throughput.json").write_text('{"speed": 135}\n')
    results.record(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "ProcessPoolExecutor", lambda *arguments: ThreadPoolExecutor(1))
        assert page.write(root, None, QUESTIONS).problems == []
    return root


@pytest.fixture
def folder(drawn, tmp_path, inline, monkeypatch) -> Path:
    monkeypatch.setattr(page.workers, "context", lambda: None)
    monkeypatch.setattr(page, "ProcessPoolExecutor", lambda *arguments: inline)
    shutil.copytree(drawn, tmp_path / "results")
    return tmp_path / "results" / "toy" / "cpu"


REFUSED = "unreadable"
"""Nothing is written where a link stands; see `tests/bad_input`."""
MENDED = [damage for damage in DAMAGES if damage != REFUSED]


@pytest.mark.parametrize("damage", MENDED)
@pytest.mark.parametrize("name", STORED)
def test_a_damaged_file_is_told_by_name_and_set_aside_by_the_next_run(folder, name, damage):
    before = results.read(folder)
    DAMAGES[damage](folder / name)
    (problem,) = page.write(folder.parents[1], None, QUESTIONS).problems
    assert str(folder / name) in problem
    assert "make throughput" in problem if name == "throughput.json" else "make bench" in problem
    assert "\n" not in problem
    if name == "throughput.json":
        storage.remove(folder / name)
        (folder / name).write_text('{"speed": 246}\n')
        results.record(folder)
    else:
        made = stored_environment(before)
        results.store(folder, before.rows, before.history, before.pictures, made)
        assert (folder / f"{name}.unreadable").exists()
    assert page.write(folder.parents[1], None, QUESTIONS).problems == []


def stored_environment(found: results.Results) -> dict:
    return {k: v for k, v in found.environment.items() if k != results.DIGESTS}


@pytest.mark.parametrize("damage", MENDED)
@pytest.mark.parametrize("name", [*DRAWN, *(f"../../{name}" for name in ABOVE)])
def test_a_damaged_page_is_whole_again_after_a_report(folder, name, damage):
    path = folder / name
    whole = path.read_bytes()
    DAMAGES[damage](path)
    assert page.write(folder.parents[1], None, QUESTIONS).problems == []
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d != "without a column"])
def test_a_damaged_cache_entry_is_made_again(tmp_path, damage):
    store = Store(tmp_path / "cache")
    store.save("k", {"numbers": [1.0, 3.0, 5.0]})
    DAMAGES[damage](store.path("k"))
    assert store.load("k") is None
    (notice,) = store.notices
    assert notice.startswith("k.run in the cache is")
    assert notice.endswith("it will be made again")
    store.save("k", {"numbers": [1.0]})
    assert store.load("k") == {"numbers": [1.0]}


def test_rows_of_a_run_that_failed_in_part_replace_only_smaller_ones(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    before = results.read(folder)
    made = stored_environment(before)
    failure = before.rows.iloc[:1].assign(question=results.FAILURE, metric="headline", reason="x")
    some = rows.select(before.rows, variant="flow", seed=[0, 1])
    shift = {"value": some.value + 1}

    def flow(lines: pd.DataFrame) -> list[float]:
        new = rows.joined(lines, failure)
        results.store(folder, new, before.history.iloc[:1], {}, made)
        return results.read(folder).of("headline", variant="flow").value.tolist()

    stood = before.of("headline", variant="flow").value
    assert flow(some.assign(**shift)) == stood.tolist()
    assert len(results.read(folder).history) == len(before.history)
    assert "pictures/flow/0/samples" in results.read(folder).pictures
    all_seeds = before.of("headline", variant="flow")
    assert flow(all_seeds.assign(value=all_seeds.value + 1)) == (stood + 1).tolist()
