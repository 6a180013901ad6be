"""How cost grows with batch, width, latents and noise samples, and with the number of tasks."""

from __future__ import annotations

import os
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp

import pytest

from bench.config import preset
from bench.measure.throughput import training_step
from bench.runner import REFERENCE, Grid, execute, start_worker

AXES = {
    "batch_size": (25, 100, 400, 1600, 6400),
    "hidden_dim": (50, 100, 200, 400, 800),
    "latent_dim": (2, 10, 20, 50, 100),
    "samples": (1, 4, 16, 64),
}
TASKS = (1, 2, 4)
JOBS = (1, 2)
TASK_STEPS = 240


@pytest.mark.parametrize(
    ("axis", "value"), [(axis, value) for axis, values in AXES.items() for value in values]
)
def test_step(timed, setup, axis, value):
    run = setup.run(REFERENCE, **{axis: value})
    step = training_step(run, setup.variant(REFERENCE), setup.filled(run.batch_size))
    timed(step, {"bound": setup.bound(step)}, items=run.batch_size,
          repeats=max(1, 500 // (run.batch_size * run.samples)), kind="growth", axis=axis,
          value=value)  # fmt: skip


@pytest.mark.benchmark(timer=time.perf_counter)
def test_grid(benchmark, setup, tmp_path):
    """Trainings of the reference, from nothing in the cache: one and two warm workers in turns."""
    if setup.device == "cuda":
        pytest.skip("one worker in all on a GPU")
    with ExitStack() as stack:
        pools = {
            jobs: stack.enter_context(ProcessPoolExecutor(jobs, get_context("spawn"), start_worker))
            for jobs in JOBS
            if jobs <= (os.cpu_count() or 1)
        }

        def each(tasks: int) -> dict[int, float]:
            return {
                jobs: _seconds_of_grid(pool, setup, tasks, Path(mkdtemp(dir=tmp_path)))
                for jobs, pool in pools.items()
            }

        each(max(JOBS))  # starts the workers
        *fewer, most = TASKS
        found = {tasks: [each(tasks)] for tasks in fewer} | {most: []}
        benchmark.pedantic(lambda: found[most].append(each(most)), rounds=5 if setup.full else 1)
    benchmark.extra_info |= {"kind": "grid", "rounds_by_tasks": found}


def _seconds_of_grid(pool: Executor, setup, tasks: int, cache) -> float:
    """Wall time of `tasks` trainings through the runner."""
    overrides = (("steps", TASK_STEPS),)
    grid = Grid(setup.dataset, (REFERENCE,), tasks, replace(preset("default"), seeds=tasks),
                setup.device, overrides, setup.data_dir, cache, ())  # fmt: skip
    started = time.perf_counter()
    outcome = execute(grid, setup.data, pool)
    if outcome.failures:
        raise RuntimeError(next(iter(outcome.failures.values())))
    return time.perf_counter() - started
