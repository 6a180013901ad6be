"""Ended by a signal: one line, no process left behind, and the exit code that a shell expects.

Imports nothing heavy, since what takes seconds to import must already be interruptible.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from glob import glob

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
"""Python's own process that removes semaphores outlives this one, and need not tell of it."""
SHOW_CURSOR = "\r\x1b[?25h\x1b[J"


def install() -> None:
    """From now on a signal ends the program; one that it was started to ignore (nohup) does not."""
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), QUIET]))
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    """Every file is written whole or not at all, so that there is nothing to be put in order."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    line = (
        f"stopped by {signal.Signals(number).name}: finished work and stored results are kept, "
        "and the same command goes on from there\n"
    )
    with suppress(OSError):  # the terminal may be gone
        os.write(1, ((SHOW_CURSOR if os.isatty(1) else "") + line).encode())
    for _ in range(2):  # those that were just being started, too
        for process in descendants(os.getpid()):
            with suppress(OSError):
                os.kill(process, signal.SIGTERM)
    os._exit(128 + number)


def descendants(root: int) -> Iterator[int]:
    """The processes started by one and by those; none where the system has no /proc."""
    children: dict[int, list[int]] = {}
    for path in glob("/proc/[0-9]*/stat"):
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.split("/")[2]))
    found = children.get(root, [])
    for process in found:
        found += children.get(process, [])
    yield from found
