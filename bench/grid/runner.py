"""Executes a grid: finds what is already done, does the rest, and isolates failures.

Tasks go to a `concurrent.futures` executor. A task is a training run or a measurement of one;
a measurement becomes ready when its run is trained, a variant with hyperparameters to choose
becomes a headline run when they are chosen. On a GPU the trainings of one variant that differ in
nothing but their seed go together, as one stacked model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from queue import Empty, SimpleQueue

from bench.config import Run
from bench.data.dataset import Dataset
from bench.grid.contract import Measurement, Request
from bench.grid.outcome import Outcome
from bench.grid.store import Store
from bench.grid.tasks import STACKED_ON, Grid, Task, key_of, result_from, trained_from, work
from bench.grid.tuning import candidates, choose, validation_elbos
from vaes import discover

Report = Callable[[str, Task, object], None]
"""Told of every task: `submitted`, `cached`, `finished`, `failed` or `notice`, and the reason."""


def execute(
    grid: Grid,
    data: Dataset,
    executor: Executor,
    report: Report = lambda event, task, value: None,
) -> Outcome:
    """Run the grid to its end; failures are recorded and do not stop the rest."""
    return Runner(grid, data, executor, report).run()


class Runner:
    """A grid under way.

    Attributes:
        outcome: what was found so far.
        headline: the headline runs of the variants chosen so far.
        pending: tasks that are ready and not yet sent.
        waiting: run → the measurements that wait for its training.
        futures: what the executor is doing; `done` gives those it has finished.

    What is done when a task finishes takes the same time however many there are, so that
    thousands of tasks cost as much each as ten.
    """

    def __init__(self, grid: Grid, data: Dataset, executor: Executor, report: Report) -> None:
        self.grid, self.data, self.executor, self.report = grid, data, executor, report
        self.variants = discover().variants
        self.store = Store(grid.cache)
        self.outcome = Outcome()
        self.candidates = {v: candidates(grid, v, self.variants[v].choices) for v in grid.variants}
        self.pending: list[Task] = []
        self.waiting: dict[Run, list[tuple[Measurement, Request]]] = {}
        self.futures: dict[Future, list[Task]] = {}
        self.done: SimpleQueue[Future] = SimpleQueue()
        self.known: set[Task] = set()
        self.headline: set[Run] = set()
        self.asked: set[Run] = set()
        self.failed: set[Run] = set()
        self.said: set[str] = set()

    def run(self) -> Outcome:
        """Submit what is possible, send it, take what is finished, until nothing is left."""
        for runs in self.candidates.values():
            for run in runs:
                self.submit(Task(run))
        self.advance()
        self.send()
        while self.futures:
            self.collect(self.done.get())
            with suppress(Empty):  # whatever else has finished by now
                while True:
                    self.collect(self.done.get_nowait())
            self.send()
        return self.outcome

    def key(self, task: Task) -> str:
        return key_of(task, self.variants[task.run.variant], self.data.fingerprint)

    def submit(self, task: Task) -> None:
        """Find the task done, or put it among those to be sent."""
        if task in self.known:
            return
        self.known.add(task)
        content = self.store.load(self.key(task))
        while self.store.notices:
            self.report("notice", task, self.store.notices.pop())
        if content is None:
            self.pending.append(task)
            self.report("submitted", task, None)
        else:
            self.outcome.cached += 1
            self.report("cached", task, None)
            self.finish(task, content)

    def send(self) -> None:
        """Give everything that is ready to the executor."""
        for tasks in together(in_turn(self.pending)):
            keys = [self.key(task) for task in tasks]
            trained_key = self.key(Task(tasks[0].run))
            future = self.executor.submit(work, tasks, keys, trained_key, self.grid)
            self.futures[future] = tasks
            future.add_done_callback(self.done.put)
        self.pending.clear()

    def collect(self, future: Future) -> None:
        """Take what the executor has finished, or record why it failed."""
        tasks = self.futures.pop(future)
        for task, reason in zip(tasks, _failures_of(future, tasks), strict=True):
            content = None if reason else self.store.load(self.key(task))
            if content is not None:
                self.outcome.executed += 1
                self.report("finished", task, content)
                self.finish(task, content)
            else:
                reason = reason or self.store.notices.pop()
                self.outcome.failures[task] = reason
                self.failed.add(task.run)
                self.report("failed", task, reason)
                self.advance()

    def finish(self, task: Task, content: dict) -> None:
        """Keep what a task found, and submit what waited for it."""
        done = trained_from(content) if task.question is None else result_from(content)
        if done.notice and done.notice not in self.said:
            self.said.add(done.notice)
            self.report("notice", task, f"{task.label}: {done.notice}")
        if task.question is not None:
            self.outcome.results.setdefault(task.question, []).append((task, done))
            return
        done.checkpoints.clear()  # workers read them from the store; here they would pile up
        self.outcome.trained[task.run] = done
        for question, request in self.waiting.pop(task.run, []):
            self.submit(Task(request.run, question, request.settings))
        if task.run in self.headline:
            self.measure(task.run)
        self.advance()

    def advance(self) -> None:
        """Submit what has become possible: the headline runs of variants now chosen."""
        for variant in self.grid.variants:
            if variant not in self.outcome.chosen and self.is_tuned(variant):
                self.choose(variant)
                chosen = self.outcome.chosen[variant]
                runs = [self.grid.run(variant, seed, chosen) for seed in range(self.grid.seeds)]
                self.headline.update(runs)
                for run in runs:
                    self.submit(Task(run))
                for run in runs:
                    if run in self.outcome.trained:  # while candidates were compared
                        self.measure(run)

    def measure(self, run: Run) -> None:
        """Ask every question of a headline run that is trained, once."""
        if run in self.asked:
            return
        self.asked.add(run)
        for question in self.grid.questions:
            for request in question.requests(run, self.grid.preset):
                self.ask(question, request)

    def ask(self, question: Measurement, request: Request) -> None:
        """Submit a measurement, or first the training it needs."""
        if request.run in self.outcome.trained:
            self.submit(Task(request.run, question, request.settings))
        else:
            self.waiting.setdefault(request.run, []).append((question, request))
            self.submit(Task(request.run))

    def is_tuned(self, variant: str) -> bool:
        return all(r in self.outcome.trained or r in self.failed for r in self.candidates[variant])

    def choose(self, variant: str) -> None:
        runs = self.candidates[variant]
        elbos = validation_elbos(runs, self.outcome.trained)
        self.outcome.chosen[variant] = choose(runs, elbos)
        if elbos:
            self.outcome.tuning[variant] = elbos


def in_turn(tasks: list[Task]) -> list[Task]:
    """One task of each variant after another: workers that start together then compile the steps
    of different variants, and each finds the others' on the disk."""
    place: Counter[str] = Counter()
    turns = []
    for task in tasks:
        turns.append(place[task.run.variant])
        place[task.run.variant] += 1
    return [task for _, task in sorted(zip(turns, tasks), key=lambda pair: pair[0])]


def together(tasks: list[Task]) -> list[list[Task]]:
    """Tasks that one call of `work` does: each alone, but stacked trainings by all but seed."""
    groups: dict[object, list[Task]] = {}
    for task in tasks:
        stacked = task.question is None and task.run.device in STACKED_ON
        groups.setdefault(task.run.with_(seed=-1) if stacked else task, []).append(task)
    return list(groups.values())


def _failures_of(future: Future, tasks: list[Task]) -> list[str | None]:
    try:
        return future.result()
    except Exception as error:  # a worker that died, e.g. killed for memory
        return [f"the worker process died ({error})"] * len(tasks)
