"""The runner with a thousand workers that are simulated: each is busy for a time and then answers.

`pytest -s -m slow tests/grid/test_many_workers.py` prints how far behind the runner is.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import threading
import time
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pytest

from bench.data.dataset import load
from bench.grid.runner import execute
from bench.grid.store import encoded
from bench.grid.tasks import Done, Grid, Task
from bench.questions.throughput.cases.scale import tiny_grid


class Simulated(Executor):
    """Workers that take from half to one and a half times `seconds` a task, and answer with what
    one real training and one real measurement stored."""

    def __init__(self, workers: int, seconds: float, stored: dict[bool, dict]) -> None:
        self.free = [(0.0, worker) for worker in range(workers)]
        self.seconds, self.draws = seconds, np.random.default_rng(0)
        self.stored = stored
        self.busy: list[tuple[int, float, float]] = []
        self.ends: dict[str, float] = {}
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def submit(self, work, /, tasks, keys, trained_key, grid) -> Future:
        ready, worker = heapq.heappop(self.free)
        start = max(ready, self.loop.time())
        end = start + self.seconds * self.draws.uniform(0.5, 1.5)
        heapq.heappush(self.free, (end, worker))
        self.busy.append((worker, start, end))
        for task in tasks:
            self.ends[task.label] = end
        found = [
            Done("", end - start, encoded(self.stored[task.question is not None], key))
            for task, key in zip(tasks, keys, strict=True)
        ]
        answer: Future = Future()
        self.loop.call_soon_threadsafe(self.loop.call_at, end, answer.set_result, found)
        return answer


def simulated(folder: Path, inline, workers: int, tasks: int, seconds: float):
    """The outcome of a grid, its executor, and by how much each task was taken in late."""
    (real := folder / "real").mkdir()
    one, stored = tiny_grid(real, 2), {}

    def keep(event: str, task: Task, content: dict | None) -> None:
        if event == "finished":
            stored[task.question is not None] = content

    execute(one, load(one.dataset), inline, keep)
    grid: Grid = tiny_grid(folder, tasks)
    pool, late = Simulated(workers, seconds, stored), []

    def report(event: str, task: Task, value: object) -> None:
        if event == "finished":
            late.append(pool.loop.time() - pool.ends[task.label])

    outcome = execute(grid, load(grid.dataset), pool, report)
    pool.loop.call_soon_threadsafe(pool.loop.stop)
    return outcome, pool, late


def test_a_thousand_workers_have_one_task_each_at_a_time(tmp_path, inline):
    outcome, pool, late = simulated(tmp_path, inline, workers=1000, tasks=60, seconds=0.05)
    assert (outcome.executed, len(outcome.failures)) == (60, 0)
    assert len({worker for worker, *_ in pool.busy}) > 30
    assert min(late) >= 0
    free: dict[int, float] = {}
    for worker, start, end in pool.busy:
        assert start >= free.get(worker, -math.inf)
        free[worker] = end


@pytest.mark.slow
def test_a_thousand_workers_are_kept_busy(tmp_path, inline):
    """Figures, not limits: how long a task takes is measured, and never asserted."""
    workers, tasks, seconds = 1000, 5000, 20.0
    began, own = time.perf_counter(), time.process_time()
    outcome, pool, late = simulated(tmp_path, inline, workers, tasks, seconds)
    own, wall = time.process_time() - own, time.perf_counter() - began
    assert (outcome.executed, len(outcome.failures)) == (tasks, 0)
    busy = sum(end - start for _, start, end in pool.busy) / workers
    median, most = np.quantile(late, (0.5, 0.95))
    print(
        f"\n{tasks} tasks of {seconds:g} s on {workers} workers: {wall:.0f} s, of which each was "
        f"busy for {busy:.0f}; the runner's own {1e3 * own / tasks:.1f} ms a task; a finished task "
        f"was taken in {median:.2f} s late (95 %: {most:.2f})"
    )
