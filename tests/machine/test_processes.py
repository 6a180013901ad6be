"""Worker processes: where one dies, its task alone fails, and the rest goes on."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from concurrent.futures import BrokenExecutor, CancelledError

import pytest

from bench.machine.processes import Workers

SPAWN = multiprocessing.get_context("spawn")


def test_tasks_of_several_workers_are_their_own():
    with Workers(2, SPAWN) as pool:
        futures = [pool.submit(math.sqrt, n) for n in range(50)]
        assert [future.result() for future in futures] == [math.sqrt(n) for n in range(50)]
        with pytest.raises(ValueError, match="could not convert"):
            pool.submit(float, "one").result()
        assert len({pool.submit(os.getpid).result() for _ in range(5)}) == 1  # one that is warm


def test_the_task_of_a_worker_that_dies_fails_alone():
    with Workers(2, SPAWN) as pool:
        futures = [
            pool.submit(os._exit, 1) if n % 5 == 2 else pool.submit(math.sqrt, n) for n in range(20)
        ]
        for n, future in enumerate(futures):
            if n % 5 == 2:
                with pytest.raises(BrokenExecutor):
                    future.result()
            else:
                assert future.result() == math.sqrt(n)


def test_a_worker_that_died_while_it_was_idle_is_replaced():
    with Workers(1, SPAWN) as pool:
        process = pool.submit(os.getpid).result()
        os.kill(process, signal.SIGKILL)
        while multiprocessing.active_children():
            time.sleep(0.01)
        assert pool.submit(os.getpid).result() != process


def test_an_error_ends_what_is_under_way_and_what_waits():
    pool = Workers(1, SPAWN)
    under_way, waiting = (pool.submit(time.sleep, 600) for _ in range(2))
    pool.__exit__(RuntimeError, RuntimeError(), None)
    with pytest.raises(BrokenExecutor):
        under_way.result()
    with pytest.raises(CancelledError):
        waiting.result()
    assert not multiprocessing.active_children()


def test_the_end_of_its_block_waits_for_every_task():
    with Workers(1, SPAWN) as pool:
        futures = [pool.submit(time.sleep, 0.01) for _ in range(5)]
    assert all(future.done() for future in futures)
