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

from bench.config import LEARNING_RATE, REFERENCE, Run, preset
from bench.data.dataset import Dataset
from bench.grid.runner import execute
from bench.grid.tasks import Grid, start_worker, subject_of
from bench.questions.throughput.actions import training_step
from bench.training.loop import train

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
    timed(
        step,
        {"bound": setup.bound(step)},
        items=run.batch_size,
        repeats=max(1, 500 // (run.batch_size * run.samples)),
        moved=setup.moved(run),
        kind="growth",
        axis=axis,
        value=value,
    )


@pytest.mark.benchmark(timer=time.perf_counter)
def test_grid(benchmark, setup, tmp_path):
    """Trainings of the reference, from nothing in the cache: one and two warm workers in turns,
    each beside the same trainings given to its workers without a grid, which is the bound."""
    if setup.device == "cuda":
        pytest.skip("one worker in all on a GPU")
    if not setup.full:
        pytest.skip("takes long: with --full alone")
    with ExitStack() as stack:
        pools = {
            jobs: stack.enter_context(ProcessPoolExecutor(jobs, get_context("spawn"), start_worker))
            for jobs in JOBS
            if jobs <= (os.cpu_count() or 1)
        }

        def each(tasks: int) -> dict[int, dict[str, float]]:
            return {
                jobs: {
                    "seconds": _seconds_of_grid(pool, _grid(setup, tasks, tmp_path), setup.data),
                    "bound_seconds": _seconds_alone(pool, _grid(setup, tasks, tmp_path)),
                }
                for jobs, pool in pools.items()
            }

        each(max(JOBS))  # starts the workers
        *fewer, most = TASKS
        found = {tasks: [each(tasks)] for tasks in fewer} | {most: []}
        benchmark.pedantic(lambda: found[most].append(each(most)), rounds=5)
    benchmark.extra_info |= {"kind": "grid", "rounds_by_tasks": found}


def _grid(setup, tasks: int, folder: Path) -> Grid:
    """`tasks` trainings and nothing cached."""
    return Grid(
        setup.dataset,
        (REFERENCE,),
        tasks,
        replace(preset("default"), seeds=tasks),
        setup.device,
        (("steps", TASK_STEPS), ("learning_rate", LEARNING_RATE)),
        setup.data_dir,
        Path(mkdtemp(dir=folder)),
        (),
    )


def _seconds_of_grid(pool: Executor, grid: Grid, data: Dataset) -> float:
    started = time.perf_counter()
    outcome = execute(grid, data, pool)
    if outcome.failures:
        raise RuntimeError(next(iter(outcome.failures.values())))
    return time.perf_counter() - started


def _seconds_alone(pool: Executor, grid: Grid) -> float:
    started = time.perf_counter()
    runs = [grid.run(REFERENCE, seed) for seed in range(grid.seeds)]
    for _ in pool.map(_train_alone, runs, [grid] * len(runs)):
        pass
    return time.perf_counter() - started


def _train_alone(run: Run, grid: Grid) -> None:
    train(run, *subject_of(run, grid))
