"""Worker processes that signals of the terminal do not reach, and that end with their parent."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker

from bench.machine.stopping import STARTING

GRACE_SECONDS = 5
"""For a process to end that is told to."""


@contextmanager
def deaf() -> Iterator[None]:
    """Processes started within ignore Ctrl-C and a closed terminal: their parent ends them.

    None is started within once the program is being stopped.
    """
    terminal = {signal.SIGINT, signal.SIGHUP}
    with STARTING:
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
            _terminate_children()
        super().__exit__(kind, error, trace)


class Workers(Executor):
    """Processes of one task at a time each, as an executor.

    Where one dies, e.g. killed for memory, its task alone fails, with BrokenExecutor, and another
    takes its place. Arguments are those of `ProcessPoolExecutor`.
    """

    def __init__(self, count: int, *given) -> None:
        self.given, self.lock, self.closed = given, threading.RLock(), False
        self.idle = [ProcessPoolExecutor(1, *given) for _ in range(count)]
        self.busy: dict[Future, ProcessPoolExecutor] = {}
        self.waiting: deque[tuple[Future, Callable[[ProcessPoolExecutor], Future]]] = deque()

    def submit(self, fn: Callable, /, *given, **named) -> Future:
        future: Future = Future()
        with self.lock:
            self.waiting.append((future, lambda worker: worker.submit(fn, *given, **named)))
            self._begin()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self.lock:
            if cancel_futures:
                self.closed = True
                for future, _ in self.waiting:
                    future.cancel()
                self.waiting.clear()
            pending = [*self.busy, *(future for future, _ in self.waiting)]
        if wait:
            concurrent.futures.wait(pending)
        for worker in [*self.idle, *self.busy.values()]:
            worker.shutdown(wait)

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            self.shutdown(wait=False, cancel_futures=True)
            _terminate_children()
        super().__exit__(kind, error, trace)

    def _begin(self) -> None:
        """Give what waits to who is idle."""
        while self.idle and self.waiting and not self.closed:
            future, begin = self.waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            worker = self.busy[future] = self.idle.pop()
            try:
                done = begin(worker)
            except BrokenExecutor:  # it died while it was idle
                worker = self.busy[future] = ProcessPoolExecutor(1, *self.given)
                done = begin(worker)
            done.add_done_callback(partial(self._end, future))

    def _end(self, future: Future, done: Future) -> None:
        """Pass on what a worker has found; one that broke ends by itself."""
        error = done.exception()
        with self.lock:
            worker = self.busy.pop(future)
            broken = isinstance(error, BrokenExecutor)
            self.idle.append(ProcessPoolExecutor(1, *self.given) if broken else worker)
            self._begin()
        if error is None:
            future.set_result(done.result())
        else:
            future.set_exception(error)


def _terminate_children() -> None:
    """Nobody waits for what is under way; none is left but one that is stopped."""
    children = multiprocessing.active_children()
    for process in children:
        process.terminate()
    for process in children:
        process.join(GRACE_SECONDS)


def end_with_parent() -> None:
    """Initialise a worker: where its parent is killed, it ends too."""

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
