"""`python -m bench validate`: published numbers, made again under their own conditions.

Each row's trainings are a grid of their own; all share the worker processes and the cache, so that
what was interrupted goes on. `results/validation/` keeps our values and the page, of every row as
soon as it is made.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.commands import configuration, contestants
from bench.data.dataset import Dataset, load
from bench.errors import BenchError, nearest, one_line
from bench.grid.environment import commit
from bench.grid.outcome import Outcome
from bench.grid.progress import Progress
from bench.grid.runner import execute
from bench.grid.store import Store
from bench.grid.tasks import Grid, start_worker
from bench.machine.console import say
from bench.machine.places import ROOT, without_links
from bench.machine.processes import Workers, deaf
from bench.machine.storage import locked, write_atomically
from bench.options import Config
from bench.questions.published import closed_forms, report
from bench.questions.published.measure import Conditions
from bench.questions.published.published import Published, rows
from bench.report import rows as tidy
from bench.report.results import prepare, writing

VALUES, CLOSED_FORMS = "values.csv", "closed_forms.csv"
DRAWS = 10_000_000
"""Estimates behind a variance in closed form, at least."""
RELATIVE_ERROR = report.EXACTLY / 3
"""Of such a variance, as a standard error: what is called equal is three of them."""


def validate(
    config: Config,
    names: str,
    console: Console,
    draws: int = DRAWS,
    relative_error: float = RELATIVE_ERROR,
) -> int:
    """Make rows again, comma-separated names or 'all'; the exit code, 1 where one is missed.

    Of the preset `quick` those that take minutes, and variances of `draws` alone.
    """
    configuration.check(config)
    device, *more = configuration.devices_of(config.device)
    if more:
        raise BenchError(f"what is published is made again on one device, not '{config.device}'")
    config = replace(config, device=device)
    known = rows()
    chosen = [*known] if names == "all" else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known:
            raise nearest("published row", name, known)
    if config.preset == "quick":
        relative_error = math.inf
        if not (chosen := [name for name in chosen if known[name].quick]):
            raise BenchError(f"none of '{names}' takes minutes: leave the preset out")
    folder = config.results / "validation"
    prepare(folder)
    trainings, left_out = _trainings([known[name] for name in chosen], config, console)
    for table, lines in _executed(trainings, config, console, (draws, relative_error)):
        beside = table == VALUES
        made = _beside_others(lines, _stored(folder / table)) if beside else pd.DataFrame(lines)
        with writing(config.results, partial(say, console)):
            write_atomically(folder / table, tidy.csv(made))
        redraw(config.results, console)
    values, closed = _stored(folder / VALUES), _stored(folder / CLOSED_FORMS)
    wrong = 0
    for table in (report.table(known, values), report.closed_form_table(closed)):
        said = report.verdicts(table)
        wrong += said.count("missed")
        say(console, f"{table.name}: {report.counted(said)}")
    say(console, f"Validation page: {folder / 'README.md'}")
    return int(bool(wrong or left_out))


def redraw(results: Path, console: Console) -> None:
    """Make the page again from the stored values, where there are any."""
    folder = results / "validation"
    values, closed = _stored(folder / VALUES), _stored(folder / CLOSED_FORMS)
    if len(closed):
        page = report.page(rows(), values, closed)
        without_links(folder)
        with writing(results, partial(say, console)):
            write_atomically(folder / "README.md", f"{page}\n".encode())


@dataclass(frozen=True)
class _Training:
    """One of a row's trainings: as published, or the one of which it is told the difference."""

    row: Published
    minus: bool
    grid: Grid
    data: Dataset


def _trainings(
    wanted: Iterable[Published], config: Config, console: Console
) -> tuple[list[_Training], int]:
    """What is to be trained, and how many rows cannot be, each told with the reason."""
    found, left_out = [], 0
    for row in wanted:
        try:
            found.append(_training(row, False, config))
            if row.minus:
                found.append(_training(row, True, config))
        except BenchError as error:
            left_out += 1
            say(console, f"left out: {row.name}: {error}", "yellow")
    return found, left_out


def _training(row: Published, minus: bool, config: Config) -> _Training:
    variant = str(ROOT / row.variant) if row.variant.endswith(".py") else row.variant
    options = {**row.options, **(row.minus if minus else {}), "variants": variant}
    own = replace(configuration.config_of(options), data_dir=config.data_dir, cache=config.cache)
    configuration.check(own)
    data = _loaded(own.dataset, own.data_dir, own.binarize)
    variants = contestants.variants_named(variant, Console(quiet=True))
    conditions = Conditions(row.quantities, row.epochs, row.samples, row.stage)
    grid = configuration.grid(own, data, variants, (conditions,), config.device)
    return _Training(row, minus, replace(grid, seeds=row.seeds), data)


@cache
def _loaded(dataset: str, data_dir: str | None, binarize: str | None) -> Dataset:
    return load(dataset, data_dir, binarize)


def _executed(
    trainings: list[_Training], config: Config, console: Console, precision: tuple[int, float]
) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Tables' names and lines as they are made, all on common workers: those of variances in closed
    form, and those of a row once all its trainings are measured."""
    on_gpu = any(training.grid.device == "cuda" for training in trainings)
    workers = 1 if on_gpu else configuration.jobs_of(config)
    context = get_context("spawn")
    with deaf():
        queue = context.Queue()
    store = Store(configuration.cache_folder(config))
    with (
        locked(store.folder, partial(say, console)),
        Progress(console, workers) as progress,
        ThreadPoolExecutor(len(trainings) + 1) as threads,
        Workers(workers, context, start_worker, (queue,)) as pool,
    ):
        progress.listen(queue)
        closed = [pool.submit(closed_forms.lines, name, *precision) for name in closed_forms.SHOWN]
        grids = {
            threads.submit(execute, t.grid, t.data.to(t.grid.device), pool, progress.report): t
            for t in trainings
        }
        exact = threads.submit(lambda: [line for future in closed for line in future.result()])
        under_way = Counter(training.row.name for training in trainings)
        lines: defaultdict[str, list] = defaultdict(list)
        for future in as_completed([exact, *grids]):
            if future is exact:
                yield CLOSED_FORMS, exact.result()
                continue
            training, outcome = grids[future], future.result()
            for task, reason in outcome.failures.items():
                say(console, f"failed: {task.label}: {reason}", "red")
            name = training.row.name
            lines[name] += _lines(training, outcome)
            under_way[name] -= 1
            if not under_way[name]:
                yield VALUES, lines[name]


def _lines(training: _Training, outcome: Outcome) -> Iterator[dict[str, object]]:
    """A line each number measured, and each failure."""
    own = {"row": training.row.name, "minus": training.minus, "commit": commit()}
    for reason in outcome.failures.values():
        yield own | {"reason": one_line(reason)}
    for results in outcome.results.values():
        for task, result in results:
            about = {row.metric: row.value for row in result.rows}
            about = {name: about[name] for name in ("trained_epochs", "seconds")}
            for row in result.rows:
                if row.metric not in about:
                    yield (
                        own
                        | about
                        | {
                            "quantity": row.metric,
                            "epochs": task.run.epochs,
                            "seed": task.run.seed,
                            "value": row.value,
                            "standard_error": row.standard_error,
                            "K": row.settings.get("K"),
                        }
                    )


def _beside_others(lines: list[dict[str, object]], stored: pd.DataFrame) -> pd.DataFrame:
    """A row's lines, among those of other rows; failures do not replace what is known."""
    made = pd.DataFrame(lines, columns=[*report.COLUMNS])
    known = set(stored.row[stored.value.notna()])
    made = made[made.value.notna() | ~made.row.isin(known)]
    found = pd.concat([stored[~stored.row.isin(set(made.row))], made], ignore_index=True)
    return found.sort_values(["row", "minus", "quantity", "epochs", "seed"], ignore_index=True)


def _stored(path: Path) -> pd.DataFrame:
    """Values of earlier runs; none where they cannot be read, for they are made again."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError):
        return pd.DataFrame(columns=[*report.COLUMNS])
