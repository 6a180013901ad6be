"""A signal at any moment: one line, the exit code of a shell, no process left, within seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 5


HEARING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # tests may run where these are ignored
os.execv(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]])
"""


def processes(mark: str) -> list[int]:
    """Those that have the mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            pass
    return found


def started(*arguments: object) -> tuple[subprocess.Popen, str]:
    """This Python with these arguments, as a group of its own, and the mark of its processes."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"MARK": mark},
    )
    return process, mark


def stopped(arguments: list, ready: Callable[[], bool], number: int, everyone: bool) -> None:
    """Send the signal when it is ready, to all its processes or to the first alone."""
    process, mark = started("-c", HEARING, *arguments)
    try:
        _told(process, ready, number, everyone, mark)
    finally:
        kill(mark)


def _told(
    process: subprocess.Popen,
    ready: Callable[[], bool],
    number: int,
    everyone: bool,
    mark: str,
) -> None:
    deadline = time.monotonic() + 120
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0]
    (os.killpg if everyone else os.kill)(process.pid, number)
    text = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 128 + number, text
    *before, last = text.splitlines()
    assert last.startswith(f"stopped by {signal.Signals(number).name}: ")
    assert "the same command goes on from there" in last
    assert not [
        line for line in before if "Traceback" in line or "leaked" in line or "stop" in line
    ]
    assert not processes_left(mark)


def processes_left(mark: str) -> list[int]:
    """Those that have not ended within seconds."""
    until = time.monotonic() + SECONDS
    while (left := processes(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def kill(mark: str) -> None:
    for left in processes(mark):
        os.kill(left, signal.SIGKILL)


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def run_in(folder: Path) -> list:
    options = {"dataset": "digits", "preset": "quick", "variants": "autoencoder,input_dependent"}
    options |= {"questions": "headline,loss_noise", "jobs": 2}
    options |= {"cache": folder / "cache", "results": folder / "results"}
    return ["run", *(word for name, value in options.items() for word in (f"--{name}", value))]


def test_while_it_imports(tmp_path):
    stopped(run_in(tmp_path), after(0.5), signal.SIGINT, everyone=True)


def test_while_workers_train(tmp_path):
    def one_is_trained() -> bool:
        return any(tmp_path.glob("cache/*.run"))

    stopped(run_in(tmp_path), one_is_trained, signal.SIGINT, everyone=True)


def test_nohup_is_respected():
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from bench.machine import stopping; stopping.install()\n"
        "os.kill(os.getpid(), signal.SIGHUP); print('still here')\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 143
    assert "SIGTERM" in done.stdout


def test_none_is_left_that_was_just_being_started():
    starts_others = (
        "import os, time\n"
        "for _ in range(400):\n"
        "    if not os.fork(): time.sleep(60); os._exit(0)\n"
        "time.sleep(60)"
    )
    code = (
        "import subprocess, sys, time\n"
        "from bench.machine import stopping; stopping.install()\n"
        f"subprocess.Popen([sys.executable, '-c', {starts_others!r}]); time.sleep(60)"
    )
    process, mark = started("-c", code)
    deadline = time.monotonic() + 60
    while len(processes(mark)) < 20 and time.monotonic() < deadline:
        pass
    process.terminate()
    try:
        process.communicate(timeout=SECONDS)
        assert process.returncode == 143
        assert not processes_left(mark)
    finally:
        kill(mark)


def test_no_worker_takes_the_place_of_one_that_the_signal_has_ended():
    code = (
        "import time\n"
        "from multiprocessing import get_context\n"
        "from bench.machine import stopping; stopping.install()\n"
        "from bench.machine.processes import Workers\n"
        "workers = Workers(8, get_context('spawn'))\n"
        "for _ in range(100): workers.submit(time.sleep, 60)\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    process, mark = started("-c", code)
    try:
        process.stdout.readline()
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGTERM)
        text = process.communicate(timeout=SECONDS)[0]
        assert text.startswith("stopped by SIGTERM: ")
        assert len(text.splitlines()) == 1, text
        assert not processes_left(mark)
    finally:
        kill(mark)


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [True, False], ids=["group", "parent"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["run", "report"])
@pytest.mark.parametrize("seconds", [0.2, 0.7, 1.5, 3, 5])
def test_at_any_moment(tmp_path, command, seconds, number, everyone):
    arguments = run_in(tmp_path)
    if command == "report":  # of every data set, or it ends before the last of these moments
        shutil.copytree(ROOT / "results", tmp_path / "results")
        arguments = ["report", "--results", tmp_path / "results"]
    stopped(arguments, after(seconds), number, everyone)


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_its_task_alone(tmp_path):
    """As where memory is short; the same command then does that task."""
    process, mark = started("-m", "bench", *run_in(tmp_path))
    deadline = time.monotonic() + 120
    while not any(tmp_path.glob("cache/*.run")) and time.monotonic() < deadline:
        time.sleep(0.01)
    worker = next(p for p in processes(mark) if b"spawn_main" in command_line(p))
    os.kill(worker, signal.SIGKILL)
    text = process.communicate(timeout=240)[0]
    assert process.returncode == 1, text
    assert "was killed, as happens where memory is short" in text
    assert "Traceback" not in text
    assert "Results page:" in text
    again, _ = started("-m", "bench", *run_in(tmp_path))
    text = again.communicate()[0]
    assert again.returncode == 0, text


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()
