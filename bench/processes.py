"""Worker processes that signals of the terminal do not reach, and that end with their parent."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def deaf() -> Iterator[None]:
    """Processes started within ignore Ctrl-C and a closed terminal: their parent ends them."""
    terminal = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, terminal)
    try:
        resource_tracker.ensure_running()  # which unblocks them after its start
        signal.pthread_sigmask(signal.SIG_BLOCK, terminal)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ProcessPoolExecutor(concurrent.futures.ProcessPoolExecutor):
    """Python's, whose processes are deaf, and are ended where its block ends by an error."""

    def submit(self, *given, **named) -> Future:
        with deaf():
            return super().submit(*given, **named)

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            for process in multiprocessing.active_children():
                process.terminate()
        super().__exit__(kind, error, trace)


def end_with_parent() -> None:
    """Initialise a worker: where its parent is killed, it ends too."""

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
