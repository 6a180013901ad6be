"""The processes that answer folders and draw figures; imports nothing heavy, to be early."""

from __future__ import annotations

import functools
from multiprocessing import forkserver, get_all_start_methods, get_context
from multiprocessing.context import BaseContext

from bench.processes import deaf


@functools.cache
def start() -> BaseContext:
    """How such processes start: with the reports imported already, where the platform can.

    Asked for early, they are imported once, while the program imports what it needs itself.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["bench.report.preloaded"])
    with deaf():
        forkserver.ensure_running()
    return context
