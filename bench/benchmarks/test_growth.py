"""How cost grows with batch, width, latents and noise samples, and with the number of tasks."""

from __future__ import annotations

import os
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

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
TASKS = (1, 2, 4, 8)
JOBS = (1, 2)
TASK_STEPS = 120
TASK_IMAGES = 1000


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
@pytest.mark.parametrize("jobs", JOBS)
def test_grid(benchmark, setup, jobs, tmp_path):
    """Trainings of the reference on `jobs` warm worker processes, from nothing in the cache."""
    if setup.device == "cuda" or jobs > (os.cpu_count() or 1):
        pytest.skip("one worker a core, and one in all on a GPU")
    with ProcessPoolExecutor(jobs, get_context("spawn"), start_worker) as pool:
        _seconds_of_grid(pool, setup, jobs, tmp_path / "warm-up")
        *fewer, most = TASKS
        seconds = {n: _seconds_of_grid(pool, setup, n, tmp_path / str(n)) for n in fewer}
        seconds[most] = benchmark.pedantic(
            _seconds_of_grid, (pool, setup, most, tmp_path / str(most))
        )
    benchmark.extra_info |= {"kind": "grid", "jobs": jobs, "seconds_by_tasks": seconds}


def _seconds_of_grid(pool: Executor, setup, tasks: int, cache) -> float:
    """Wall time of `tasks` trainings through the runner."""
    overrides = (("steps", TASK_STEPS), ("train_size", TASK_IMAGES))
    grid = Grid(setup.dataset, (REFERENCE,), tasks, replace(preset("default"), seeds=tasks),
                setup.device, overrides, setup.data_dir, cache, ())  # fmt: skip
    started = time.perf_counter()
    outcome = execute(grid, setup.data, pool)
    if outcome.failures:
        raise RuntimeError(next(iter(outcome.failures.values())))
    return time.perf_counter() - started
