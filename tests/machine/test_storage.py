"""A folder changes in one step, whatever ends its writer; two writers take turns."""

from __future__ import annotations

import ctypes
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.machine import storage
from bench.machine.storage import locked, rewritten, set_aside, sweep, write_atomically

ROOT = Path(__file__).parents[2]
FILES = 20
WRITER = f"""
import sys
from pathlib import Path
from bench.machine.storage import rewritten, write_atomically
for turn in range(1_000_000):
    with rewritten(Path(sys.argv[1])) as new:
        for k in range({FILES}):
            write_atomically(new / f"{{k}}.txt", f"{{turn}}".encode())
    print(turn, flush=True)
"""


def folder_in(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "one.png").write_text("old")
    (folder / "rows").write_text("old")
    return folder


@pytest.fixture(params=["in one step", "file by file"])
def system(request, monkeypatch):
    """Linux, and a system that cannot exchange two folders."""
    if request.param == "file by file":
        monkeypatch.setattr(ctypes, "CDLL", lambda name: None)


@pytest.mark.usefixtures("system")
def test_a_folder_gets_what_was_written_and_keeps_what_was_not(tmp_path):
    folder = folder_in(tmp_path)
    (folder / "theirs").write_text("kept")
    (folder / "stale").mkdir()
    (folder / "stale" / "file").write_text("old")
    with rewritten(folder) as new:
        write_atomically(new / "rows", b"new")
        storage.remove(new / "stale")
        storage.remove(new / "figures")
        (new / "figures").write_text("a file where a folder was")
        assert (folder / "rows").read_text() == "old"
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {"rows": "new", "theirs": "kept", "figures": "a file where a folder was"}
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_writer_that_fails_leaves_the_folder_as_it_was(tmp_path):
    folder = folder_in(tmp_path)

    def write(place: str) -> None:
        with rewritten(folder) as new:
            write_atomically(new / "rows", b"new")
            write_atomically(new / place, b"new")

    with pytest.raises(BenchError, match=f"^{folder}/figures cannot be written") as caught:
        write("figures")  # where a folder is
    assert "\n" not in str(caught.value)
    assert (folder / "rows").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_folder_that_vanished_is_one_line(tmp_path):
    with (
        pytest.raises(BenchError, match="absent cannot be written"),
        rewritten(tmp_path / "absent"),
    ):
        pass


def kill_while_writing(folder: Path, rounds: int) -> None:
    """Every time, the files in the folder are of one turn, and the next writer cleans up."""
    random.seed(0)
    for _ in range(rounds):
        command = [sys.executable, "-c", WRITER, str(folder)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            writer.stdout.readline()
            time.sleep(0.1 * random.random())
            writer.send_signal(signal.SIGKILL)
        found = [path.read_text() for path in folder.glob("*.txt")]
        assert len(found) == FILES
        assert len(set(found)) == 1
    sweep(folder.parent, folder.name)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_killed_at_a_random_moment_a_writer_leaves_the_old_or_the_new(tmp_path):
    kill_while_writing(folder_in(tmp_path), 5)


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path):
    kill_while_writing(folder_in(tmp_path), 200)


def test_what_is_set_aside_never_takes_another_s_place(tmp_path):
    names = []
    for _ in range(3):
        (tmp_path / "rows").write_text("damaged")
        names.append(set_aside(tmp_path / "rows").name)
    assert names == ["rows.unreadable", "rows.unreadable-2", "rows.unreadable-3"]


def test_only_leftovers_of_the_named_are_removed(tmp_path):
    kept = {"rows", ".rows", ".other.abcdefgh", ".rows.abc"}
    for name in [*kept, ".rows.abcdefgh"]:
        (tmp_path / name).write_text("")
    sweep(tmp_path, "rows")
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_second_program_says_that_it_waits_and_waits(tmp_path):
    code = (
        "import sys; from pathlib import Path; from bench.machine.storage import locked\n"
        "with locked(Path(sys.argv[1]), lambda line: print(line, flush=True)):\n"
        "    print('its turn', flush=True)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    lines = []
    with locked(tmp_path, lines.append):
        with locked(tmp_path, lines.append):  # cache and results in one folder
            pass
        second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert "another run is using" in second.stdout.readline()
        time.sleep(0.3)
        assert second.poll() is None
    assert second.communicate(timeout=20)[0] == "its turn\n"
    assert lines == []


def test_where_nothing_can_be_locked_nothing_is(tmp_path):
    (tmp_path / storage.LOCK).mkdir()
    with locked(tmp_path, pytest.fail):
        pass
