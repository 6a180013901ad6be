"""The command: steps in order of value, each in a process with its share of the time left.

One that fails or runs out of time is said, and the next goes on. What a step has found is written
group by group, so that only the one in progress is lost wherever the time ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from bench.commands.contestants import variants_named
from bench.commands.gpu_check.steps import STEPS, Check, Step
from bench.config import preset as amounts
from bench.data.dataset import load
from bench.data.own import is_own
from bench.errors import BenchError
from bench.grid.environment import commit, machine
from bench.machine.console import say
from bench.machine.places import ROOT, without_links

COMMITTED = ROOT / "results"
LOG = "gpu-check.log"
GRACE_SECONDS = 5
SPARE_SECONDS = 2
"""Of every minute, for starting and for ending what is out of time."""
LAST_LINES = 15
NOT_SO = 3
"""Exit code of a step that did its work and found something else than it must."""


def gpu_check(
    device: str,
    dataset: str,
    variants: str,
    preset: str,
    minutes: float,
    results: Path | None,
    console: Console,
) -> int:
    """`python -m bench gpu-check`: the exit code, 0 only where every step was done and right."""
    if device not in ("cpu", "cuda"):
        raise BenchError(f"--device {device}: must be cuda, or cpu to rehearse")
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchError("no CUDA device: rehearse with --device cpu")
    if device == "cpu" and results is None:
        results = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    results = results or COMMITTED
    if device == "cpu" and results.resolve() == COMMITTED.resolve():
        raise BenchError("a rehearsal must not write into results/: name another with --results")
    if is_own(dataset) or load(dataset).binarization == "real":
        raise BenchError(f"gpu-check trains on built-in images, not on '{dataset}'")
    amounts(preset)  # an unknown one is told at once
    names = variants_named(variants, console)
    check = Check(device, dataset, names, preset, minutes, str(results.resolve()))
    without_links(check.folder)
    check.folder.mkdir(parents=True, exist_ok=True)
    with (check.folder / LOG).open("w", encoding="utf-8") as log:

        def told(line: str) -> None:
            say(console, line)
            log.write(line + "\n")
            log.flush()

        return _run(check, told)


def _run(check: Check, tell: Callable[[str], None]) -> int:
    """Do the steps within the time; 1 where one failed or was left out."""
    on_gpu = check.device == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"{machine()} (a rehearsal: no GPU)"
    tell(f"{where}, torch {torch.__version__}, commit {commit()}, {check.minutes:g} minutes")
    end = time.monotonic() + (60 - SPARE_SECONDS) * check.minutes
    good: list[str] = []
    bad: list[str] = []
    for place, step in enumerate(STEPS):
        left = end - time.monotonic()
        share = left * step.weight / sum(other.weight for other in STEPS[place:])
        if left < 1:
            tell(f"{step.name}: left out, no time left")
            bad.append(f"{step.name} (left out)")
            continue
        tell(f"{step.name}: up to {share:.0f} s")
        started = time.monotonic()
        state = _attempt(step, check, share, tell)
        tell(f"{step.name}: {state or 'done'} after {time.monotonic() - started:.0f} s")
        if state:
            bad.append(f"{step.name} ({state})")
        else:
            good.append(step.name)
    tell(f"{'proven' if on_gpu else 'rehearsed, proving nothing'}: {'; '.join(good) or 'nothing'}")
    tell(f"not {'proven' if on_gpu else 'rehearsed'}: {'; '.join(bad) or 'nothing'}")
    return int(bool(bad))


def _attempt(step: Step, check: Check, seconds: float, tell: Callable[[str], None]) -> str:
    """Do a step in a process of its own; "" or what became of it."""
    code = "import sys; from bench.commands.gpu_check.command import work; work(*sys.argv[1:])"
    command = [sys.executable, "-c", code, step.name, json.dumps(asdict(check))]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,
        ) as process:
            timer = _Deadline(process, seconds)
            try:
                for line in process.stdout or ():
                    tell(f"  {line.rstrip()}")
                code_found = process.wait()
            except BaseException:  # Ctrl-C reaches this process alone
                os.killpg(process.pid, signal.SIGKILL)
                raise
            finally:
                timer.cancel()
        if timer.passed:
            return "out of time"
        if code_found == 0:
            return ""
        if code_found != NOT_SO:  # it broke: its last words
            output.seek(0)
            for line in output.read().splitlines()[-LAST_LINES:]:
                tell(f"  | {line}")
        return "failed"


class _Deadline:
    """Ends a process and all that it started when its time is over: asked first, then forced."""

    def __init__(self, process: subprocess.Popen, seconds: float) -> None:
        self.process, self.passed = process, False
        self.timer = threading.Timer(seconds, self._end)
        self.timer.daemon = True
        self.timer.start()

    def cancel(self) -> None:
        self.timer.cancel()

    def _end(self) -> None:
        self.passed = True
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                return


def work(name: str, check: str) -> None:
    """Meant for a process of its own: do the step of that name; exit code `NOT_SO` where it is not.

    What it finds goes to standard output, line by line; what its programs say to the error output.
    """
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.set_num_threads(1)  # two on a busy machine were seen to be 25 times slower
    (step,) = (step for step in STEPS if step.name == name)
    asked = json.loads(check)
    try:
        for line in step.work(Check(**asked | {"variants": tuple(asked["variants"])})):
            print(line, file=told, flush=True)
    except BenchError as error:
        print(f"not so: {' '.join(str(error).split())}", file=told, flush=True)
        sys.exit(NOT_SO)
