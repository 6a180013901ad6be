"""The processes that answer folders and draw figures; imports nothing heavy, to be early."""

from __future__ import annotations

import functools
from multiprocessing import forkserver, get_all_start_methods, get_context
from multiprocessing.context import BaseContext

from bench.machine.processes import deaf


@functools.cache
def context() -> BaseContext:
    """How such processes start: with the reports imported already, where the platform can."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    found = get_context("forkserver")
    found.set_forkserver_preload(["bench.report.preloaded"])
    return found


def start() -> None:
    """Import them early, while the program imports what it needs itself."""
    if context().get_start_method() == "forkserver":
        with deaf():
            forkserver.ensure_running()
