"""Expands the grid, finds what is already done, executes the rest, and isolates failures.

Tasks go to a `concurrent.futures` executor. A task is a training run or a measurement of one;
a measurement becomes ready when its run is trained, a variant with hyperparameters to choose
becomes a headline run when its sweep is done. On a GPU the trainings of one variant that differ
in nothing but their seed go together, as one stacked model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from itertools import product

import torch

from bench import cache, gradients
from bench.config import Run
from bench.data import Dataset
from bench.measure import Request, Result, modules
from bench.stacked import train_stacked
from bench.tasks import Grid, Task, result_from, trained_from, work
from bench.train import Trained, train
from bench.training_set import training_set
from vaes import Autoencoder, discover
from vaes._options import DECODERS, LIKELIHOODS

REFERENCE = "input_dependent"
STACKED_ON = ("cuda",)
"""Devices that are faster than a program can tell them what to do."""


@dataclass
class Outcome:
    """Everything a grid has produced.

    Attributes:
        trained: headline and sweep runs.
        results: measurement → [(task, result)].
        chosen: variant → its chosen hyperparameters (empty where it has none).
        sweeps: variant → [(run, best validation ELBO)].
        failures: task → reason.
        cached: how many tasks were found done.
    """

    trained: dict[Run, Trained] = field(default_factory=dict)
    results: dict[str, list[tuple[Task, Result]]] = field(default_factory=dict)
    chosen: dict[str, tuple] = field(default_factory=dict)
    sweeps: dict[str, list[tuple[Run, float]]] = field(default_factory=dict)
    failures: dict[Task, str] = field(default_factory=dict)
    cached: int = 0
    executed: int = 0


def key_of(task: Task, variant: type[Autoencoder], data_fingerprint: str) -> str:
    """The cache key of a task."""
    code: list[Callable] = [variant, train_stacked if task.run.device in STACKED_ON else train]
    if task.run.estimator in gradients.estimators():
        code.append(gradients.estimators()[task.run.estimator])
    if task.run.distinct or task.run.augmentation:
        code.append(training_set)
    code += [*LIKELIHOODS[task.run.likelihood], *DECODERS[task.run.decoder]]
    identity = {
        "run": task.run.identity(),
        "data": data_fingerprint,
        "torch": torch.__version__,
    }
    if task.measurement is not None:
        code.append(modules()[task.measurement].measure)
        identity |= {"measurement": task.measurement, "settings": task.settings}
    return cache.key(identity, *code)


def execute(
    grid: Grid,
    data: Dataset,
    executor: Executor,
    report: Callable[[str, Task, object], None] = lambda event, task, value: None,
) -> Outcome:
    """Run the grid to its end; failures are recorded and do not stop the rest.

    `report(event, task, value)` is told of every task `submitted`, `cached`, `finished` or
    `failed` (value: the reason).
    """
    variants = discover().variants
    store = cache.Store(grid.cache)
    outcome = Outcome()
    futures: dict[Future, list[Task]] = {}
    pending: list[Task] = []
    known: set[Task] = set()
    said: set[str] = set()

    def key_of_task(task: Task) -> str:
        return key_of(task, variants[task.run.variant], data.fingerprint)

    def submit(task: Task) -> None:
        if task in known:
            return
        known.add(task)
        key = key_of_task(task)
        content = store.load(key)
        while store.notices:
            report("notice", task, store.notices.pop())
        if content is None:
            pending.append(task)
            report("submitted", task, None)
        else:
            outcome.cached += 1
            report("cached", task, None)
            finish(task, content)

    def send() -> None:
        for tasks in _together(_in_turn(pending)):
            keys = [key_of_task(task) for task in tasks]
            trained_key = key_of_task(Task(tasks[0].run))
            futures[executor.submit(work, tasks, keys, trained_key, grid)] = tasks
        pending.clear()

    def finish(task: Task, content: dict) -> None:
        done = trained_from(content) if task.measurement is None else result_from(content)
        if done.notice and done.notice not in said:
            said.add(done.notice)
            report("notice", task, f"{task.label}: {done.notice}")
        if task.measurement is not None:
            outcome.results.setdefault(task.measurement, []).append((task, done))
            return
        outcome.trained[task.run] = done
        for name, request in waiting.pop(task.run, []):
            submit(Task(request.run, name, request.settings))
        advance()

    waiting: dict[Run, list[tuple[str, Request]]] = {}
    asked: set[Run] = set()

    def advance() -> None:
        """Submit what has become possible: chosen variants' runs, and measurements."""
        for variant in grid.variants:
            if variant not in outcome.chosen and _sweep_done(grid, variants, variant, outcome):
                outcome.chosen[variant] = _choose(grid, variants, variant, outcome)
                for seed in range(grid.seeds):
                    submit(Task(grid.run(variant, seed, outcome.chosen[variant])))
        for run in [r for r in outcome.trained if r in headline(grid, outcome) - asked]:
            asked.add(run)
            for name, request in _requests(grid, run):
                if request.run in outcome.trained:
                    submit(Task(request.run, name, request.settings))
                else:
                    waiting.setdefault(request.run, []).append((name, request))
                    submit(Task(request.run))

    for variant in grid.variants:
        for run in sweep_runs(grid, variants, variant):
            submit(Task(run))
    advance()
    send()
    while futures:
        finished, _ = wait(futures, return_when=FIRST_COMPLETED)
        for future in finished:
            tasks = futures.pop(future)
            for task, reason in zip(tasks, _failures_of(future, tasks), strict=True):
                content = None if reason else store.load(key_of_task(task))
                if content is not None:
                    outcome.executed += 1
                    report("finished", task, content)
                    finish(task, content)
                else:
                    reason = reason or store.notices.pop()
                    outcome.failures[task] = reason
                    report("failed", task, reason)
                    advance()
        send()
    return outcome


def headline(grid: Grid, outcome: Outcome) -> set[Run]:
    """The runs the tables are about: every variant, chosen hyperparameters, every seed."""
    return {
        grid.run(variant, seed, chosen)
        for variant, chosen in outcome.chosen.items()
        for seed in range(grid.seeds)
    }


def sweep_runs(grid: Grid, variants: dict, variant: str) -> list[Run]:
    """Every combination of the variant's candidate hyperparameters, on the sweep's seeds."""
    choices = variants[variant].choices
    if not choices:
        return []
    combinations = [tuple(zip(choices, values)) for values in product(*choices.values())]
    seeds = range(min(grid.seeds, grid.preset.sweep_seeds))
    return [grid.run(variant, seed, c) for c in combinations for seed in seeds]


def _sweep_done(grid: Grid, variants: dict, variant: str, outcome: Outcome) -> bool:
    failed = {task.run for task in outcome.failures}
    return all(r in outcome.trained or r in failed for r in sweep_runs(grid, variants, variant))


def _choose(grid: Grid, variants: dict, variant: str, outcome: Outcome) -> tuple:
    """The candidate of the highest validation ELBO, averaged over the sweep's seeds."""
    runs = sweep_runs(grid, variants, variant)
    if not runs:
        return ()
    scores: dict[tuple, list[float]] = {}
    for run in runs:
        if run in outcome.trained:
            value = outcome.trained[run].best()["valid_elbo"]
            outcome.sweeps.setdefault(variant, []).append((run, value))
            scores.setdefault(run.hyperparameters, []).append(value)
    if not scores:
        return runs[0].hyperparameters
    return max(scores, key=lambda candidate: sum(scores[candidate]) / len(scores[candidate]))


def _requests(grid: Grid, run: Run) -> Iterator[tuple[str, Request]]:
    for name, module in modules().items():
        if grid.measurements is None or name in grid.measurements:
            for request in module.requests(run, grid.preset):
                yield name, request


def _in_turn(tasks: list[Task]) -> list[Task]:
    """One task of each variant after another: workers that start together then compile the steps
    of different variants, and each finds the others' on the disk."""
    place: Counter[str] = Counter()
    turns = []
    for task in tasks:
        turns.append(place[task.run.variant])
        place[task.run.variant] += 1
    return [task for _, task in sorted(zip(turns, tasks), key=lambda pair: pair[0])]


def _together(tasks: list[Task]) -> list[list[Task]]:
    """Tasks that one call of `work` does: each alone, but stacked trainings by all but seed."""
    groups: dict[object, list[Task]] = {}
    for task in tasks:
        stacked = task.measurement is None and task.run.device in STACKED_ON
        groups.setdefault(task.run.with_(seed=-1) if stacked else task, []).append(task)
    return list(groups.values())


def _failures_of(future: Future, tasks: list[Task]) -> list[str | None]:
    try:
        return future.result()
    except Exception as error:  # a worker that died, e.g. killed for memory
        return [f"the worker process died ({error})"] * len(tasks)
