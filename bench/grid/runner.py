"""Executes a grid: finds what is already done, does the rest, and isolates failures.

Tasks go to a `concurrent.futures` executor. A task is a training run or a measurement of one;
a measurement becomes ready when its run is trained, a run whose learning rate or hyperparameters
are open when they are chosen. Trainings that differ only in their length go together, as branches
of one trunk; on a GPU those that differ only in their seed, as one stacked model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from bench.config import LEARNING_RATE, Run, of_dataset
from bench.data.dataset import Dataset
from bench.errors import BenchError, one_line
from bench.grid import TRAINING, TUNING, recorded
from bench.grid.contract import Measurement, Request
from bench.grid.outcome import Outcome
from bench.grid.store import Store
from bench.grid.tasks import (
    STACKED_ON,
    Done,
    Grid,
    Task,
    key_of,
    result_from,
    trained_from,
    work,
)
from bench.grid.tuning import Tuning, opened
from bench.training.loop import steps_of

Report = Callable[[str, Task, object], None]
"""Told of every task: `submitted`, `cached`, `finished`, `failed` or `notice`, and the reason."""


def execute(
    grid: Grid,
    data: Dataset,
    executor: Executor,
    report: Report = lambda event, task, value: None,
    choosing: bool = False,
    keeping: bool = False,
) -> Outcome:
    """Run the grid to its end; failures are recorded and do not stop the rest.

    `choosing`: what can be chosen is, whatever is recorded, and nothing else is done; `keeping`
    what is recorded of headline runs.
    """
    return Runner(grid, data, executor, report, choosing, keeping).run()


class Runner:
    """A grid under way.

    Attributes:
        outcome: what was found so far.
        tuning: what is chosen, or being chosen, for runs that leave it open.
        pending: tasks that are ready and not yet sent.
        open: requests (of a question, or of none for a headline run) whose run is being chosen.
        waiting: run → the measurements that wait for its training.
        futures: what the executor is doing; `done` gives those it has finished.
        purposes: task → the question that it was first needed for, or `TRAINING`, `TUNING`.
        asked: what `ask` was called with.
        failed: run → why it could not be trained.
        sound: runs whose weights are known to be there, or are being made.
        news: whether a contest has a new score.

    What is done when a task finishes takes the same time however many there are, so that
    thousands of tasks cost as much each as ten.
    """

    def __init__(
        self,
        grid: Grid,
        data: Dataset,
        executor: Executor,
        report: Report,
        choosing: bool,
        keeping: bool = False,
    ) -> None:
        self.grid, self.data, self.executor, self.report = grid, data, executor, report
        self.choosing = choosing
        self.variants = grid.known
        self.store = Store(grid.cache)
        self.outcome = Outcome()
        self.tuning = Tuning(
            grid.rate,
            self.seeds_that_choose,
            {name: grid.choices(name) for name in grid.variants},
            partial(self.recorded_of_headline, keeping) if choosing else self.recorded,
            lambda run: steps_of(run, data),
        )
        self.pending: list[Task] = []
        self.open: list[tuple[Measurement | None, Request]] = []
        self.waiting: dict[Run, list[tuple[Measurement, Request]]] = {}
        self.futures: dict[Future, list[Task]] = {}
        self.done: SimpleQueue[Future] = SimpleQueue()
        self.purposes: dict[Task, str] = {}
        self.asked: set[tuple[Measurement | None, Request]] = set()
        self.failed: dict[Run, str] = {}
        self.sound: set[Run] = set()
        self.news = True
        self.said: set[str] = set()

    def run(self) -> Outcome:
        """Submit what is possible, send it, take what is finished, until nothing is left."""
        for variant in self.grid.variants:
            for seed in range(self.grid.seeds):
                run = self.grid.run(variant, seed)
                self.ask(None, Request(run))
                for question, request in self.requests(run.with_(learning_rate=LEARNING_RATE)):
                    # of another length and choice: to be trained on the same trunk
                    if request.run.learning_rate is None and _of_one_trunk(request.run, run):
                        self.ask(question, request)
        self.advance()
        self.send()
        while self.futures:
            self.collect(self.done.get())
            with suppress(Empty):  # whatever else has finished by now
                while True:
                    self.collect(self.done.get_nowait())
            self.advance()
            self.send()
        self.outcome.contests = list(self.tuning.contests.values())
        return self.outcome

    def seeds_that_choose(self, run: Run) -> int:
        """How many runs each candidate for this one has; of those left open, only trainings by
        estimator are of so many steps."""
        preset = self.grid.preset
        seeds = (
            preset.comparison_sweep_seeds
            if run.steps
            else of_dataset(preset.sweep_seeds, run.dataset)
        )
        return seeds if self.choosing else min(seeds, self.grid.seeds)

    def recorded(self, run: Run) -> Run | None:
        """Where none of its hyperparameters is given."""
        if self.grid.choices(run.variant) != self.variants[run.variant].choices:
            return None
        return recorded.choice(run, self.variants[run.variant], self.data.fingerprint)

    def recorded_of_headline(self, keeping: bool, run: Run) -> Run | None:
        """`recorded`, where that is kept and this is a headline run."""
        kept = keeping and run == opened(self.grid.run(run.variant, 0), self.grid.rate)
        return self.recorded(run) if kept else None

    def key(self, task: Task) -> str:
        return key_of(task, self.variants[task.run.variant], self.data.fingerprint)

    def submit(self, task: Task, purpose: str) -> None:
        """Find the task done, or put it among those to be sent."""
        if task in self.purposes:
            return
        self.purposes[task] = purpose
        content = self.found(task)
        if content is not None:
            self.outcome.cached += 1
            self.report("cached", task, None)
            self.finish(task, content)
        elif task.question is None or self.has_weights(task.run):
            self.start(task)
        else:
            self.purposes.pop(task)
            waiting = self.waiting.setdefault(task.run, [])
            waiting.append((task.question, Request(task.run, task.settings)))

    def stored(self, task: Task, whole: bool = False) -> dict | None:
        """What is stored of a task; of a training without its weights, unless `whole`."""
        return self.store.load(self.key(task), whole or task.question is not None)

    def found(self, task: Task, whole: bool = False) -> dict | None:
        """`stored`, and told of what was amiss."""
        content = self.stored(task, whole)
        while self.store.notices:
            self.tell_once(task, self.store.notices.pop())
        return content

    def tell_once(self, task: Task, notice: str) -> None:
        """Pass on what a user should know, unless that was said before."""
        if notice not in self.said:
            self.said.add(notice)
            self.report("notice", task, notice)

    def has_weights(self, run: Run) -> bool:
        """Whether those of a run that is trained are there; where they are damaged it is trained
        again."""
        if run in self.outcome.trained and run not in self.sound:
            if self.found(Task(run), whole=True) is None:
                self.outcome.trained.pop(run)
                self.outcome.cached -= 1
                self.start(Task(run))
            else:
                self.sound.add(run)
        return run in self.outcome.trained

    def start(self, task: Task) -> None:
        """Put a task among those to be sent."""
        if task.question is None:
            self.sound.add(task.run)
        self.pending.append(task)
        self.report("submitted", task, None)

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
        for task, done in zip(tasks, _done(future, tasks), strict=True):
            self.outcome.spend(self.purposes[task], done.seconds)
            if done.where is not None:
                self.outcome.workers[done.where["worker"]] = done.where
            if done.content is not None and self.store.packed(self.key(task)) != done.content:
                self.store.keep(self.key(task), done.content)
            content = None if done.reason else self.stored(task)
            if content is not None:
                self.outcome.executed += 1
                self.report("finished", task, content)
                self.finish(task, content)
            else:
                reason = self.reason(task, done)
                self.report("failed", task, reason)
                if task.question is None:
                    self.failed[task.run] = reason
                    self.news |= self.tuning.tell(task.run, None, reason)
                needed = self.waiting.pop(task.run, []) if task.question is None else []
                if self.purposes[task] != TUNING or needed:  # else it is told beside its score
                    self.outcome.failures[task] = reason

    def reason(self, task: Task, done: Done) -> str:
        """Why a task failed; BenchError where it was for the cache, which will fail every other."""
        path = self.store.path(self.key(task))
        if str(path) in done.reason:  # it cannot be written
            raise BenchError(done.reason)
        training = self.store.path(self.key(Task(task.run)))
        if not done.reason and self.store.notices:
            return self.store.notices.pop()
        if not done.reason or (not training.exists() and task.question is not None):
            raise BenchError(
                f"finished work has vanished from the cache folder {self.store.folder}: leave it "
                "alone and run again; results are as they were, and what is still in it is kept"
            )
        return done.reason

    def finish(self, task: Task, content: dict) -> None:
        """Keep what a task found, and submit what waited for it."""
        training = task.question is None
        done = trained_from(content, task.run) if training else result_from(content)
        if done.notice and done.notice not in self.said:
            self.said.add(done.notice)
            self.report("notice", task, f"{task.label}: {done.notice}")
        if not training:
            self.outcome.results.setdefault(task.question, []).append((task, done))
            return
        done.checkpoints.clear()  # workers read them from the store; here they would pile up
        self.outcome.trained[task.run] = done
        self.news |= self.tuning.tell(task.run, done)
        for question, request in self.waiting.pop(task.run, []):
            self.submit(Task(request.run, question, request.settings), question.name)
        if task.run in self.outcome.headline:
            self.measure(task.run)

    def advance(self) -> None:
        """Submit what has become possible: further candidates, and runs that are now chosen."""
        while self.news:
            self.news = False
            for run in self.tuning.further():
                self.submit(Task(run), TUNING)
                if run in self.outcome.trained or run in self.failed:  # for another purpose before
                    trained, reason = self.outcome.trained.get(run), self.failed.get(run, "")
                    self.news |= self.tuning.tell(run, trained, reason)
            undecided, self.open = self.open, []
            for question, request in undecided:
                self.go_on(question, request)

    def ask(self, question: Measurement | None, request: Request) -> None:
        """Submit a measurement, or first the training it needs, or first the choice of its run.

        Without a question: train a headline run, and ask every question of it.
        """
        if (question, request) not in self.asked:
            self.asked.add((question, request))
            self.go_on(question, request)

    def go_on(self, question: Measurement | None, request: Request) -> None:
        """`ask`, for the first time or again."""
        known = len(self.tuning.contests)
        run = self.tuning.resolved(request.run)
        if run is None:
            self.open.append((question, request))
            self.news |= len(self.tuning.contests) > known
        elif self.choosing:
            if question is None:
                self.measure(run)  # what the questions leave open
        elif run in self.failed:  # as a candidate, when all others failed too
            self.outcome.failures[Task(run)] = self.failed[run]
        elif question is None:
            self.outcome.headline.add(run)
            self.submit(Task(run), TRAINING)
            if run in self.outcome.trained:
                self.measure(run)
        elif run in self.outcome.trained:
            self.submit(Task(run, question, request.settings), question.name)
        else:
            waiting = self.waiting.setdefault(run, [])
            waiting.append((question, Request(run, request.settings)))
            self.submit(Task(run), question.name)

    def measure(self, run: Run) -> None:
        """Ask every question of a headline run that is trained."""
        for question, request in self.requests(run):
            self.ask(question, request)

    def requests(self, run: Run) -> list[tuple[Measurement, Request]]:
        return [(q, r) for q in self.grid.questions for r in q.requests(run, self.grid.preset)]


def _of_one_trunk(run: Run, other: Run) -> bool:
    """Whether two runs differ in nothing but their length and what is chosen for them."""
    open_runs = (opened(run, None).but_for_length, opened(other, None).but_for_length)
    return run != other and open_runs[0] == open_runs[1]


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
    """Tasks that one call of `work` does: each alone, but trainings together that differ only in
    their length; on a GPU those that differ only in their seed."""
    groups: dict[object, list[Task]] = {}
    for task in tasks:
        same: object = task
        if task.question is None:
            stacked = task.run.device in STACKED_ON
            same = task.run.with_(seed=-1) if stacked else task.run.but_for_length
        groups.setdefault(same, []).append(task)
    return list(groups.values())


def _done(future: Future, tasks: list[Task]) -> list[Done]:
    try:
        return future.result()
    except BenchError:  # of an executor that is of no use any more
        raise
    except BrokenExecutor:
        why = "was killed, as happens where memory is short: run again, with fewer --jobs"
    except (Exception, SystemExit) as error:
        why = f"died ({one_line(error)})"
    return [Done(f"the worker process {why}")] * len(tasks)
