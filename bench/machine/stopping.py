"""Ended by a signal: one line, no process left behind, and the exit code that a shell expects.

Imports nothing heavy, since what takes seconds to import must already be interruptible.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from glob import glob

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
"""Python's own process that removes semaphores outlives this one, and need not tell of it."""
SHOW_CURSOR = "\r\x1b[?25h\x1b[J"
STARTING = threading.RLock()
"""Held while a process is started; once the program is being stopped, no thread gets it again."""
STARTING_SECONDS = 2
"""At most, until another thread has started what it is starting."""
FREEZING_SECONDS = 2
"""At most, until the other processes stand still."""
FROZEN, ENDED = "T", "ZX"
"""States of a process in /proc/PID/stat (proc(5))."""
REMOVES_SEMAPHORES = b"multiprocessing.resource_tracker"
"""In the command line of that process of Python's: it ends by itself, after all others."""


def install() -> None:
    """From now on a signal ends the program; one that it was started to ignore (nohup) does not."""
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), QUIET]))
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    """Every file is written whole or not at all, so that there is nothing to be put in order."""
    for other in SIGNALS:
        signal.signal(other, _pass)  # a process that is just being started would inherit SIG_IGN
    line = (
        f"stopped by {signal.Signals(number).name}: finished work and stored results are kept, "
        "and the same command goes on from there\n"
    )
    with suppress(OSError):  # the terminal may be gone
        os.write(1, ((SHOW_CURSOR if os.isatty(1) else "") + line).encode())
    # a worker that the same signal has ended would be replaced by another meanwhile
    STARTING.acquire(timeout=STARTING_SECONDS)
    _end_descendants()
    os._exit(128 + number)


def _pass(number: int, frame: object) -> None:
    """Being stopped already."""


def _end_descendants() -> None:
    """All are frozen first: one that ends while it starts another leaves that without a parent by
    which it could be found."""
    until = time.monotonic() + FREEZING_SECONDS
    frozen: set[int] = set()
    while time.monotonic() < until:
        found = dict(descendants(os.getpid()))
        if all(state == FROZEN for state in found.values()):
            break
        for process in found:
            _send(process, signal.SIGSTOP)
        frozen |= found.keys()
        time.sleep(0.001)
    for process in frozen:
        if not _removes_semaphores(process):
            _send(process, signal.SIGTERM)
        _send(process, signal.SIGCONT)


def _send(process: int, number: int) -> None:
    with suppress(OSError):  # it has ended
        os.kill(process, number)


def _removes_semaphores(process: int) -> bool:
    with suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
        return REMOVES_SEMAPHORES in file.read()
    return False


def descendants(root: int) -> Iterator[tuple[int, str]]:
    """The processes started by one and by those, and their state in `/proc`, but for those that
    have ended; none where the system has no /proc."""
    children: dict[int, list[tuple[int, str]]] = {}
    for path in glob("/proc/[0-9]*/stat"):
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
            if state not in ENDED:
                children.setdefault(int(parent), []).append((int(path.split("/")[2]), state))
    found = children.get(root, [])
    for process, _ in found:
        found += children.get(process, [])
    yield from found
