"""`python -m bench run` and `tune`: a grid is run, and what it found stored."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Screen

from bench.commands import configuration, contestants
from bench.commands.arguments import command
from bench.commands.report import redraw
from bench.commands.throughput import time_once
from bench.config import OPTIONS, Run, of_dataset
from bench.data.dataset import Dataset, notices_of
from bench.data.splits import SPLITS
from bench.errors import BenchError
from bench.grid import TUNING, recorded
from bench.grid.environment import commit, environment, of_workers
from bench.grid.outcome import Outcome, history, pictures, rows
from bench.grid.progress import Progress
from bench.grid.runner import execute
from bench.grid.store import Store
from bench.grid.tasks import Grid, start_worker
from bench.machine.console import say
from bench.machine.processes import Workers, deaf
from bench.machine.storage import locked, write_atomically
from bench.options import Config
from bench.report import results
from bench.report import rows as tidy
from bench.report.provenance import QUICK
from vaes import discover


def run(config: Config, console: Console) -> int:
    """`python -m bench run`: the exit code, 1 where something failed."""
    configuration.check(config)
    variants = contestants.sound_variants(config.variants, console)
    questions = configuration.questions_named(config.questions)
    data = configuration.data_named(config, console)
    overrides = configuration.overrides_of(config, data)
    known = discover(files=contestants.variant_files(config.variants)).variants
    contestants.check_variants(known, variants, overrides, data.train.shape[1])
    for line in (
        *contestants.own_shapes(known, variants, data.image_shape),
        *contestants.unused_options(known, variants, config),
        *contestants.of_one_sample(config),
    ):
        say(console, line, "yellow")
    code, folders = 0, []
    for device in configuration.devices_of(config.device, config.engine):
        folder = config.results / configuration.folder_name(config, data, overrides) / device
        grid = configuration.grid(config, data, variants, questions, device)
        if config.questions != "all" or data.binarization == "real":
            _say_what_is_left_out(grid, console)
        results.prepare(folder)
        outcome = _run_grid(grid, data, config, folder, console)
        code |= bool(outcome.failures)
        timed = config.questions == "all" and config.preset != "quick" and config.engine == "local"
        if timed and data.binarization != "real":
            with results.writing(config.results, partial(say, console)):
                time_once(grid, folder, data)
        folders.append(folder)
    if config.preset == "quick":
        say(console, QUICK, "yellow")
    return (
        code
        | redraw(config.results, folders, console, Store(grid.cache))
        | contestants.some_left_out(config.variants, variants)
    )


def tune(config: Config, console: Console) -> int:
    """`python -m bench tune`: choose anew, record it beside the code, and store the evidence."""
    configuration.check(config)
    chosen = configuration.preset_of(config)
    if not chosen.tuned:
        raise BenchError(
            f"preset '{config.preset}' has one learning rate for all: leave --preset out"
        )
    variants = contestants.sound_variants(config.variants, console)
    data = configuration.data_named(config, console)
    if data.binarization == "real" and data.name not in OPTIONS:
        raise BenchError(f"'{data.name}' is a real-valued table: it is tuned when it is run")
    device, *more = configuration.devices_of(config.device, config.engine)
    if more:
        raise BenchError(f"what is chosen holds for any device: name one, not '{config.device}'")
    folder = config.results / configuration.folder_name(config, data, {}) / device
    results.prepare(folder)
    questions = configuration.questions_named(config.questions)
    if config.questions == "all":
        questions = tuple(question for question in questions if question.tuned)
    keeping = "headline" not in {question.name for question in questions}
    if config.seeds:
        chosen = replace(
            chosen, sweep_seeds={"": config.seeds}, comparison_sweep_seeds=config.seeds
        )
    grid = configuration.grid(config, data, variants, questions, device)
    grid = replace(grid, seeds=of_dataset(chosen.sweep_seeds, data.name), preset=chosen)
    outcome = _run_grid(grid, data, config, folder, console, choosing=True, keeping=keeping)
    known = [contest for contest in outcome.contests if contest.succeeded()]
    recorded.record(
        [(contest.open, contest.chosen()) for contest in known],
        grid.known,
        data.fingerprint,
    )
    for contest in outcome.contests:
        run = contest.chosen()
        how = "" if run.estimator == Run.estimator else f" by {run.estimator}, S = {run.samples}"
        choices = {"learning rate": run.learning_rate, **dict(run.hyperparameters)}
        said = ", ".join(f"{name} {value:g}" for name, value in choices.items())
        said = said if contest in known else "every training failed"
        say(console, f"{run.variant}, {run.length}{how}: {said}")
    return int(len(known) < len(outcome.contests))


def _run_grid(
    grid: Grid,
    data: Dataset,
    config: Config,
    folder: Path,
    console: Console,
    choosing: bool = False,
    keeping: bool = False,
) -> Outcome:
    """Run the grid on workers, store its rows in the folder, and say what failed."""
    where = environment(grid.device)
    store = Store(grid.cache)
    with locked(grid.cache, partial(say, console)):
        store.sweep()
        with Progress(console) as progress, _workers(grid, data, config, progress) as pool:
            outcome = execute(grid, data, pool, progress.report, choosing, keeping)
    with results.writing(config.results, partial(say, console)):
        notices = results.store(
            folder,
            tidy.frame(rows(grid, outcome)),
            history(outcome),
            pictures(outcome),
            where
            | of_workers(outcome.workers.values())
            | _described(grid, data, config, progress.workers, choosing),
            computed=outcome.executed > 0,
        )
        if config.config:
            write_atomically(folder / "config.toml", config.config.read_bytes())
    for notice in notices:
        say(console, notice, "yellow")
    for task, reason in outcome.failures.items():
        say(console, f"failed: {task.label}: {reason}", "red")
    console.print(f"{outcome.executed} tasks done, {outcome.cached} found in the cache")
    _say_where_the_time_went(outcome, console)
    return outcome


@contextmanager
def _workers(grid: Grid, data: Dataset, config: Config, progress: Progress) -> Iterator[Executor]:
    """Processes of one thread each (a GPU has one), or the workers of a cluster."""
    if config.engine == "dask":
        from bench.grid.cluster import Cluster

        with Cluster(config.scheduler, grid, data, progress) as pool:
            yield pool
        return
    progress.workers = 1 if grid.device == "cuda" else configuration.jobs_of(config)
    context = get_context("spawn")
    with deaf():
        queue = context.Queue()
    progress.listen(queue)
    with Workers(progress.workers, context, start_worker, (queue,)) as pool:
        yield pool


def _say_what_is_left_out(grid: Grid, console: Console) -> None:
    """Questions that are not asked of such models, as that for pictures of what is no image.

    Raises BenchError where that is all of them.
    """
    runs = [grid.run(variant, 0) for variant in grid.variants]
    left_out = [
        question.name
        for question in grid.questions
        if not any(any(question.requests(run, grid.preset)) for run in runs)
    ]
    why = "nothing to measure with these data and options"
    if len(left_out) == len(grid.questions):
        raise BenchError(f"{', '.join(left_out)}: {why}, and nothing else was asked for")
    for name in left_out:
        said = f"{name}: left out, it has {why}"
        say(console, said, "yellow")


def _say_where_the_time_went(outcome: Outcome, console: Console) -> None:
    """By purpose: tasks, core-seconds and their share, the dearest first."""
    whole = sum(spent.seconds for spent in outcome.spent.values())
    shown = Screen(box=box.SIMPLE_HEAD)
    for heading in ("time went into", "tasks", "core-seconds", "share"):
        shown.add_column(heading, justify="left" if heading == "time went into" else "right")
    if not whole:  # all was found, or failed
        return
    for purpose, spent in sorted(outcome.spent.items(), key=lambda pair: -pair[1].seconds):
        share = f"{spent.seconds / whole:.0%}"
        shown.add_row(purpose, str(spent.tasks), f"{spent.seconds:,.0f}", share)
    console.print(shown)


def _described(
    grid: Grid, data: Dataset, config: Config, workers: int, choosing: bool
) -> dict[str, object]:
    """What was asked for, and the command that asks for it again."""
    questions = [TUNING] if choosing else [question.name for question in grid.questions]
    settings = {
        "dataset": data.name,
        "binarization": data.binarization,
        "preset": config.preset,
        "epochs": of_dataset(grid.preset.epochs, data.name),
        "learning_rate": grid.rate,
        "seeds": grid.seeds,
        "importance_samples": list(grid.preset.importance_samples),
        "variants": list(grid.variants),
        "questions": questions,
        "jobs": workers,
        "data_fingerprint": data.fingerprint,
        **dict(grid.overrides),
    }
    if config.hyperparameters:
        settings["hyperparameters"] = config.hyperparameters
    run = {
        "command": command(config, grid.device, "tune" if choosing else "run"),
        "variants": list(grid.variants),
        "questions": questions,
        "commit": commit(),
    }
    known = {"image_shape": list(data.image_shape), "notices": list(notices_of(data))}
    known |= {"images": {split: len(getattr(data, split)) for split in SPLITS}}
    return {"config": settings, "runs": [run]} | known
