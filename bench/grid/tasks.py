"""A grid's tasks, and the worker process that does one: trains or measures, and stores it."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

from bench.config import LEARNING_RATE, OPTIONS, SIZES, Preset, Run, of_dataset
from bench.data.dataset import Dataset, in_its_unit, load, unit_of
from bench.data.training_set import training_set
from bench.errors import BenchError
from bench.grid import fingerprint
from bench.grid.contract import Measurement, Result, Row, Subject
from bench.grid.store import Store
from bench.inference.gradients import ESTIMATORS
from bench.machine.processes import end_with_parent
from bench.randomness import generator
from bench.training.loop import Trained, train, train_branches
from bench.training.stacked import train_stacked
from vaes import Autoencoder, discover, mixins, with_options

STACKED_ON = ("cuda",)
"""Devices that are faster than a program can tell them what to do."""


@dataclass(frozen=True)
class Grid:
    """What a user asked for.

    Attributes:
        dataset, device, preset, variants: what to run, on what, how much.
        seeds: seeds 0 … seeds − 1.
        overrides: fields of `Run` set on the command line, the same for all variants.
        data_dir, cache: folders.
        questions: what is measured of its runs.
        files: of variants outside `vaes/`.
        hyperparameters: given, of variants that declare them; others are chosen.
    """

    dataset: str
    variants: tuple[str, ...]
    seeds: int
    preset: Preset
    device: str = "cpu"
    overrides: tuple[tuple[str, object], ...] = ()
    data_dir: str | None = None
    cache: Path = Path(".bench_cache")
    questions: tuple[Measurement, ...] = ()
    files: tuple[Path, ...] = ()
    hyperparameters: tuple[tuple[str, float], ...] = ()

    def choices(self, variant: str) -> Mapping[str, Sequence[float]]:
        """The variant's hyperparameters and their candidates, one where it is given."""
        candidates, given = self.known[variant].choices, dict(self.hyperparameters)
        return {
            name: (type(values[0])(given[name]),) if name in given else values
            for name, values in candidates.items()
        }

    @property
    def known(self) -> Mapping[str, type[Autoencoder]]:
        """The classes of all variants there are."""
        return discover(files=self.files).variants

    @property
    def rate(self) -> float | None:
        """The learning rate of every run; None where it is chosen on validation."""
        return dict(self.overrides).get(
            "learning_rate", None if self.preset.tuned else LEARNING_RATE
        )

    def run(self, variant: str, seed: int) -> Run:
        """The headline run of a variant and seed, its hyperparameters still to be chosen."""
        name = Path(self.dataset).stem
        latent, hidden = of_dataset(SIZES, name)
        run = Run(
            variant,
            name,
            seed,
            of_dataset(self.preset.epochs, name),
            latent,
            hidden,
            learning_rate=self.rate,
            device=self.device,
        )
        return run.with_(**(OPTIONS.get(name, {}) | dict(self.overrides)))


@dataclass(frozen=True)
class Task:
    """A training (no question) or one measurement of a run."""

    run: Run
    question: Measurement | None = None
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def label(self) -> str:
        run = self.run
        how = "" if run.estimator == Run.estimator else f" by {run.estimator}, S = {run.samples}"
        if self.question:
            return f"{run.label}{how}: {self.question.name}"
        return f"{run.label}: {run.length} at rate {run.learning_rate:g}{how}"


@dataclass(frozen=True)
class Done:
    """What came of a task: why it failed ("" where it did not), and the seconds it took.

    Of another machine also what it stored, as `Store.packed`, and where: the `worker` and what
    that runs on.
    """

    reason: str = ""
    seconds: float = 0.0
    content: bytes | None = None
    where: Mapping[str, str | None] | None = None


def key_of(task: Task, variant: type[Autoencoder], data_fingerprint: str) -> str:
    """The cache key of a task: its run and settings, the data, and the code that does it."""
    run = task.run
    code: list[Callable] = [variant, train_stacked if run.device in STACKED_ON else train]
    if run.estimator in ESTIMATORS:
        code.append(ESTIMATORS[run.estimator].function)
    changed = run.distinct or run.train_size or run.augmentation
    if changed or run.training_split != Run.training_split:
        code.append(training_set)
    code += mixins(variant, **run.networks)
    identity = {"run": run.identity(), "data": data_fingerprint, "torch": torch.__version__}
    if task.question is not None:
        code.append(task.question.measure)
        # a registry leads to no function: those it is asked for are named in the settings
        named = _flat(task.settings)
        code += [ESTIMATORS[name].function for name in named if name in ESTIMATORS]
        identity |= {"measurement": task.question.name, "settings": task.settings}
    return fingerprint.key(identity, *code)


def _flat(values: object) -> Iterator[object]:
    """What tuples of tuples hold."""
    for value in values:
        if isinstance(value, tuple):
            yield from _flat(value)
        else:
            yield value


_progress: list = []
"""The queue epochs are told through, once the worker is started with one."""
given: list[Dataset] = []
"""The data, of a worker on another machine, which has no files of it."""


def start_worker(queue=None) -> None:
    """Initialise a worker process: one torch thread, epochs told through `queue`."""
    torch.set_num_threads(1)
    end_with_parent()
    tell_through(queue)


def tell_through(queue=None) -> None:
    """Put `(label, history entry)` of every epoch into a queue from now on."""
    _progress[:] = [queue] if queue is not None else []


def _tell(label: str, entry: dict) -> None:
    for queue in _progress:
        queue.put((label, entry))


@lru_cache(maxsize=2)
def _data(dataset: str, data_dir: str | None, binarize: str | None, device: str) -> Dataset:
    data = given[0] if given else load(dataset, data_dir, binarize)
    return data.to(device)


def work(tasks: list[Task], keys: list[str], trained_key: str, grid: Grid) -> list[Done]:
    """Do tasks of one variant in this process and store them."""
    done: dict[Task, Done] = {}
    started = time.perf_counter()
    if len(tasks) > 1:
        with suppress(Exception):  # whatever it is, one run's failure must stay its own
            for task in _train_together(dict(zip(tasks, keys, strict=True)), grid):
                now = time.perf_counter()
                done[task] = Done(seconds=now - started)
                started = now
    for task, key in zip(tasks, keys, strict=True):
        if task not in done:
            reason = _work_alone(task, key, trained_key, grid)
            now = time.perf_counter()
            done[task] = Done(reason or "", now - started)
            started = now
    return [done[task] for task in tasks]


def _work_alone(task: Task, key: str, trained_key: str, grid: Grid) -> str | None:
    try:
        variant, data = subject_of(task.run, grid)
        store = Store(grid.cache)
        _seed_own_samples(task)
        if task.question is None:
            trained = train(task.run, variant, data, lambda entry: _tell(task.label, entry))
            content = trained_to(trained)
        else:
            _tell(task.label, {})
            trained = trained_from(store.load(trained_key), task.run)
            subject = Subject(trained, variant, data)
            content = result_to(task.question.measure(subject, **dict(task.settings)))
        store.save(key, content)
        return None
    except BenchError as error:
        return str(error)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        return f"{type(error).__name__} at {place}: {error}"


def _seed_own_samples(task: Task) -> None:
    """Posteriors that are no map of given noise sample by torch's global generator."""
    run, name = task.run, task.question.name if task.question else None
    own = generator("cpu", run.dataset, run.seed, name, "own samples")
    torch.manual_seed(own.initial_seed())


def _train_together(keys: Mapping[Task, str], grid: Grid) -> Iterator[Task]:
    """Train runs that differ in nothing but their seed, or their length, and store each in turn."""
    tasks = {task.run: task for task in keys}
    runs = list(tasks)
    variant, data = subject_of(runs[0], grid)
    _seed_own_samples(tasks[runs[0]])
    together = train_stacked if runs[0].device in STACKED_ON else train_branches
    found = together(runs, variant, data, lambda run, entry: _tell(tasks[run].label, entry))
    for trained in found:
        task = tasks[trained.run]
        Store(grid.cache).save(keys[task], trained_to(trained))
        yield task


def subject_of(run: Run, grid: Grid) -> tuple[type[Autoencoder], Dataset]:
    """What a run trains, and what on."""
    variant = with_options(grid.known[run.variant], **run.networks)
    data = _data(grid.dataset, grid.data_dir, run.binarize, run.device)
    return in_its_unit(variant, unit_of(data)), training_set(data, run)


def trained_to(trained: Trained) -> dict:
    """Plain values and tensors, for the store, whose key tells the run."""
    return {name: value for name, value in vars(trained).items() if name != "run"}


def trained_from(content: dict, run: Run) -> Trained:
    """The inverse of `trained_to`; of content without tensors, it has no checkpoints."""
    return Trained(**(content | {"run": run}))


def result_to(result: Result) -> dict:
    """Plain values and tensors, for the store."""
    return vars(result) | {"rows": [asdict(row) for row in result.rows]}


def result_from(content: dict) -> Result:
    """The inverse of `result_to`."""
    return Result(**(content | {"rows": [Row(**row) for row in content["rows"]]}))
