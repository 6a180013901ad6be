"""A grid of many tiny tasks: what it costs beside the tasks themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from bench.config import REFERENCE, Run, preset
from bench.data.dataset import load
from bench.grid.contract import Subject
from bench.grid.environment import environment
from bench.grid.outcome import Outcome, history, pictures, rows
from bench.grid.runner import execute
from bench.grid.tasks import Grid, start_worker, subject_of
from bench.questions import QUESTIONS, named
from bench.questions.throughput.fresh import peak_memory
from bench.report import page, results
from bench.report import rows as tidy
from bench.training.loop import train

T = TypeVar("T")
JOBS = 2
SIDE = 4
"""Of the images, in pixels."""


def scale(place: str, tasks: int) -> dict[str, float]:
    """What a grid of so many tiny tasks costs, in seconds and bytes.

    Meant for a fresh process, whose memory has no other peak; `place` is an empty folder.

    On two warm workers, `seconds` of the grid from nothing; `alone_seconds` of the same trainings
    and measurements, given to the workers without it; `report_seconds` of its rows being stored
    and shown. Of this process alone, so that no other counts: `parent_seconds` of the grid from
    nothing, `cached_seconds` of it found done, and `grown_bytes` by which its peak memory grew over
    both. The number of `rows`.
    """
    folder = Path(place)
    grid = tiny_grid(folder, tasks)
    data = load(grid.dataset)
    with ProcessPoolExecutor(JOBS, get_context("spawn"), start_worker) as pool:
        # first a few tasks and their report, until everything is imported everywhere
        few = replace(grid, seeds=4 * JOBS, cache=folder / "warm")
        _report(folder / "few", few, execute(few, data, pool))
        alone_seconds, *_ = _timed(lambda: _alone(pool, grid))
        before = peak_memory("cpu")
        seconds, parent_seconds, outcome = _timed(lambda: execute(grid, data, pool))
        _, cached_seconds, again = _timed(lambda: execute(grid, data, pool))
    if outcome.failures:
        raise RuntimeError(next(iter(outcome.failures.values())))
    if (outcome.executed, again.cached) != (tasks, tasks):
        raise RuntimeError(f"{outcome.executed} tasks done, {again.cached} found done: not {tasks}")
    grown_bytes = peak_memory("cpu") - before
    report_seconds, _, lines = _timed(lambda: _report(folder / "results", grid, again))
    return {
        "seconds": seconds,
        "alone_seconds": alone_seconds,
        "parent_seconds": parent_seconds,
        "cached_seconds": cached_seconds,
        "report_seconds": report_seconds,
        "grown_bytes": grown_bytes,
        "rows": lines,
    }


def tiny_grid(folder: Path, tasks: int) -> Grid:
    """`tasks` / 2 trainings of one step and the headline of each; nothing of it is cached."""
    draws = np.random.default_rng(0)
    sizes = {"train": 100, "valid": 10, "test": 10}
    shapes = {split: (images, SIDE, SIDE) for split, images in sizes.items()}
    arrays = {split: draws.random(shape, dtype=np.float32) for split, shape in shapes.items()}
    np.savez(folder / "tiny.npz", **arrays)
    return Grid(
        str(folder / "tiny.npz"),
        (REFERENCE,),
        tasks // 2,
        replace(preset("quick"), elbo_samples=1, importance_samples=(1,)),
        overrides=(("steps", 1), ("latent_dim", 2), ("hidden_dim", 4)),
        cache=folder / "cache",
        questions=named(["headline"]),
    )


def _alone(pool: Executor, grid: Grid) -> None:
    runs = [grid.run(REFERENCE, seed) for seed in range(grid.seeds)]
    for _ in pool.map(_train_and_measure, runs, [grid] * len(runs)):
        pass


def _train_and_measure(run: Run, grid: Grid) -> None:
    variant, data = subject_of(run, grid)
    subject = Subject(train(run, variant, data), variant, data)
    for question in grid.questions:
        for request in question.requests(run, grid.preset):
            question.measure(subject, **dict(request.settings))


def _report(root: Path, grid: Grid, outcome: Outcome) -> int:
    """Store the grid's rows and draw their page; how many rows there are."""
    folder, lines = root / "tiny" / grid.device, tidy.frame(rows(grid, outcome))
    config = {"dataset": "tiny", "seeds": grid.seeds, "preset": "quick"}
    made = {"command": "", "variants": list(grid.variants), "questions": [], "commit": None}
    where = environment(grid.device) | {"config": config, "runs": [made]}
    results.store(folder, lines, history(outcome), pictures(outcome), where)
    written = page.write(root, [folder], QUESTIONS)
    if written.problems:
        raise RuntimeError(written.problems[0])
    return len(lines)


def _timed(action: Callable[[], T]) -> tuple[float, float, T]:
    """Seconds of the clock and of this process, and what the action gives."""
    started, own = time.perf_counter(), time.process_time()
    found = action()
    return time.perf_counter() - started, time.process_time() - own, found
