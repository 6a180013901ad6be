"""What each command does: run a grid and store what it found, time the throughput, redraw."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table as Screen

from bench.config import OPTIONS, PRECISIONS, Config, Preset, Run, of_dataset, preset
from bench.data.dataset import Dataset, load
from bench.errors import BenchError, nearest
from bench.grid import fingerprint, recorded
from bench.grid.environment import commit, environment, machine
from bench.grid.outcome import Outcome, history, pictures, rows
from bench.grid.progress import Progress
from bench.grid.runner import execute
from bench.grid.store import Store
from bench.grid.tasks import Grid, start_worker
from bench.inference.gradients import ESTIMATORS
from bench.questions import QUESTIONS, Question, measured, named
from bench.questions.throughput import run_cases as timing
from bench.report import page, results
from bench.report import rows as tidy
from bench.report.section import Section
from bench.training.loop import train
from vaes import DECODERS, LIKELIHOODS, discover

CACHE = ".bench_cache"
SCREEN_COLUMNS = 4
"""As many columns of the headline table as fit 80 characters; the page has them all."""
MADE_BY_MAKE = ("dataset", "variants", "seeds", "device", "preset", "precision", "questions")
"""The fields of `Config` that the Makefile has a variable for."""
NOT_OF_A_PAGE = ("jobs", "results", "cache")
"""Fields that change no number."""


def run(config: Config, console: Console) -> int:
    """`python -m bench run`: the exit code, 1 where something failed."""
    _check(config)
    chosen = _preset(config)
    variants, questions = variants_named(config.variants, console), _questions(config.questions)
    data = load(config.dataset, config.data_dir, config.binarize)
    overrides = _overrides(config, data)
    code, folders = 0, []
    for device in _devices(config.device):
        folder = config.results / _folder(config, data, overrides) / device
        results.prepare(folder)
        grid = Grid(
            config.dataset,
            variants,
            config.seeds or chosen.seeds,
            chosen,
            device,
            tuple(overrides.items()),
            config.data_dir,
            _cache(config),
            questions,
        )
        outcome = _run_grid(grid, data, config, folder, console)
        code |= bool(outcome.failures)
        if config.questions == "all" and config.preset != "quick" and data.binarization != "real":
            _time_once(grid, folder, data)
        folders.append(folder)
    return code | _redraw(config.results, folders, console) | bool(discover().broken)


def tune(config: Config, console: Console) -> int:
    """`python -m bench tune`: choose anew, record it beside the code, and store the evidence."""
    _check(config)
    chosen = _preset(config)
    variants, data = variants_named(config.variants, console), load(config.dataset, config.data_dir)
    (device,) = _devices(config.device)
    folder = config.results / _folder(config, data, {}) / device
    results.prepare(folder)
    questions = tuple(question for question in _questions(config.questions) if question.tuned)
    seeds = config.seeds or of_dataset(chosen.sweep_seeds, data.name)
    grid = Grid(
        config.dataset,
        variants,
        seeds,
        chosen,
        device,
        (),
        config.data_dir,
        _cache(config),
        questions,
    )
    outcome = _run_grid(grid, data, config, folder, console, use_recorded=False)
    pairs = [(contest.open, contest.chosen()) for contest in outcome.contests]
    recorded.record(pairs, discover().variants, data.fingerprint)
    for open_run, run in pairs:
        hyper = "".join(f", {name} {value:g}" for name, value in run.hyperparameters)
        length = f"{run.steps} steps" if run.steps else f"{run.epochs} epochs"
        how = "" if run.estimator == Run.estimator else f" by {run.estimator}, S = {run.samples}"
        said = f"{open_run.label}, {length}{how}: learning rate {run.learning_rate:g}{hyper}"
        console.print(said, markup=False, soft_wrap=True)
    return int(bool(outcome.failures))


def throughput(
    config: Config, full: bool, seconds: float | None, console: Console, peers: bool = False
) -> int:
    """`python -m bench throughput`: times every case; the rest of a folder stays as it is."""
    if peers:
        timing.require_peers()
    variants, data = variants_named(config.variants, console), load(config.dataset, config.data_dir)
    if data.binarization == "real":
        raise BenchError(f"throughput is timed on images, and '{data.name}' has none: name another")
    code = 0
    for device in _devices(config.device):
        folder = config.results / _folder(config, data, {}) / device
        results.prepare(folder)
        again = command(config, device, "throughput")
        if peers:
            again += " PEERS=1" if again.startswith("make") else " --peers"
        run = {
            "command": again,
            "variants": list(variants),
            "questions": ["throughput"],
            "commit": commit(),
        }
        try:
            timing.run_cases(
                folder,
                config.dataset,
                device,
                variants,
                config.data_dir,
                full,
                seconds or timing.SECONDS,
                peers=peers,
            )
            Store(_cache(config)).save(_timing_key(device, data, variants), {})
            results.record(folder, run)
        except BenchError as error:
            console.print(f"failed: {error}", style="red", markup=False)
            code = 1
        if tidy.path_in(folder).exists():
            code |= _redraw(config.results, [folder], console)
        (question,) = (q for q in QUESTIONS if q.name == "throughput")
        for section in question.sections(results.read(folder)):
            console.print(f"{section.title}: {section.takeaway}", markup=False)
    return code


def report(root: Path, dataset: str | None, console: Console) -> int:
    """`python -m bench report`: the pages again, of one data set or of all."""
    folders = page.stored(root)
    if not folders:
        raise BenchError(f"no stored results under {root}: make them with 'make bench'")
    if dataset is not None:
        known = {folder.parent.name for folder in folders}
        if dataset not in known:
            raise nearest("folder of results", dataset, known)
        folders = [folder for folder in folders if folder.parent.name == dataset]
    return _redraw(root, folders, console)


# --- a grid ----------------------------------------------------------------------------------


def _run_grid(
    grid: Grid,
    data: Dataset,
    config: Config,
    folder: Path,
    console: Console,
    use_recorded: bool = True,
) -> Outcome:
    """Run the grid on worker processes, store its rows in the folder, and say what failed."""
    workers = 1 if grid.device == "cuda" else config.jobs or os.cpu_count() or 1
    where = environment(grid.device)
    with Progress(console, workers) as progress:
        context = get_context("spawn")
        queue = context.Queue()
        progress.listen(queue)
        pool = ProcessPoolExecutor(workers, context, start_worker, (queue,))
        try:
            outcome = execute(grid, data.to(grid.device), pool, progress.report, use_recorded)
        finally:
            pool.shutdown(cancel_futures=True)
    if not use_recorded:
        outcome.keep_choices_alone()
    notices = results.store(
        folder,
        tidy.frame(rows(grid, outcome)),
        history(outcome),
        pictures(outcome),
        where | _described(grid, data, config, workers),
    )
    for notice in notices:
        console.print(notice, style="yellow", markup=False)
    for task, reason in outcome.failures.items():
        console.print(f"failed: {task.label}: {reason}", style="red", markup=False)
    console.print(f"{outcome.executed} tasks done, {outcome.cached} found in the cache")
    _say_where_the_time_went(outcome, console)
    return outcome


def _say_where_the_time_went(outcome: Outcome, console: Console) -> None:
    """By purpose: tasks, core-seconds and their share, the dearest first."""
    whole = sum(spent.seconds for spent in outcome.spent.values())
    shown = Screen(box=box.SIMPLE_HEAD)
    for heading in ("time went into", "tasks", "core-seconds", "share"):
        shown.add_column(heading, justify="left" if heading == "time went into" else "right")
    for purpose, spent in sorted(outcome.spent.items(), key=lambda pair: -pair[1].seconds):
        share = f"{spent.seconds / whole:.0%}"
        shown.add_row(purpose, str(spent.tasks), f"{spent.seconds:,.0f}", share)
    if whole:
        console.print(shown)


def _described(grid: Grid, data: Dataset, config: Config, workers: int) -> dict[str, object]:
    """What was asked for, and the command that asks for it again."""
    questions = [question.name for question in grid.questions]
    asked = {
        "dataset": data.name,
        "binarization": data.binarization,
        "preset": config.preset,
        "epochs": of_dataset(grid.preset.epochs, data.name),
        "seeds": grid.seeds,
        "importance_samples": list(grid.preset.importance_samples),
        "variants": list(grid.variants),
        "questions": questions,
        "jobs": workers,
        "data_fingerprint": data.fingerprint,
        **dict(grid.overrides),
    }
    run = {
        "command": command(config, grid.device),
        "variants": list(grid.variants),
        "questions": questions,
        "commit": commit(),
    }
    return {"config": asked, "runs": [run]}


def command(config: Config, device: str, name: str = "run") -> str:
    """The command that does the same again, as one types it into a shell."""
    changed = {
        field.name: str(getattr(config, field.name))
        for field in fields(Config)
        if field.name not in NOT_OF_A_PAGE and getattr(config, field.name) != field.default
    }
    if "device" in changed:
        changed["device"] = device
    if set(changed) <= set(MADE_BY_MAKE):
        target = "bench" if name == "run" else name
        words = ["make", target, *(f"{name.upper()}={value}" for name, value in changed.items())]
    else:
        options = ((f"--{name.replace('_', '-')}", value) for name, value in changed.items())
        words = [".venv/bin/python", "-m", "bench", name, *(w for pair in options for w in pair)]
    return shlex.join(words)


def _time_once(grid: Grid, folder: Path, data: Dataset) -> None:
    """Time the throughput of this machine, unless that was done with the same code and data."""
    key, store = _timing_key(grid.device, data, grid.variants), Store(grid.cache)
    if store.load(key) is None or not (folder / timing.FILE).exists():
        timing.run_cases(
            folder,
            grid.dataset,
            grid.device,
            grid.variants,
            grid.data_dir,
            seconds=timing.BRIEF_SECONDS,
        )
        store.save(key, {})


def _timing_key(device: str, data: Dataset, variants: tuple[str, ...]) -> str:
    """Of the throughput of this machine, with this code and data."""
    found = discover().variants
    identity = {
        "throughput": data.fingerprint,
        "cases": timing.fingerprint(),
        "device": device,
        "machine": machine(),
    }
    return fingerprint.key(identity, timing.run_cases, train, *(found[v] for v in variants))


# --- what was asked for ----------------------------------------------------------------------


def _check(config: Config) -> None:
    """Refuse numbers and names that make no sense, before anything is loaded."""
    _rate(config)
    least = {"seeds": 1, "epochs": 1, "samples": 1, "jobs": 0, "kl_warmup_epochs": 0}
    for name, lowest in least.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            option = f"--{name.replace('_', '-')}"
            raise BenchError(f"{option} must be at least {lowest}, not {value}")
    known = {
        "estimator": ("auto", *ESTIMATORS),
        "precision": PRECISIONS,
        "likelihood": LIKELIHOODS,
        "decoder": DECODERS,
    }
    for kind, names in known.items():
        name = getattr(config, kind)
        if name is not None and name not in names:
            raise nearest(kind, name, names)


def _preset(config: Config) -> Preset:
    chosen = preset(config.preset)
    if config.importance_samples is None:
        return chosen
    try:
        counts = tuple(sorted({int(part) for part in config.importance_samples.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise BenchError(
            f"--importance-samples '{config.importance_samples}' must be numbers from 1 on, "
            "e.g. '1,10,100'"
        )
    return replace(chosen, importance_samples=counts)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def variants_named(text: str, console: Console) -> tuple[str, ...]:
    """The variants of a comma-separated list, or all; BenchError names what is none."""
    found = discover()
    for reason in found.broken.values():
        console.print(f"not a variant, left out: {reason}", style="yellow", markup=False)
    if text == "all":
        return tuple(found.variants)
    names = _names(text)
    for name in names:
        if name in found.broken:
            raise BenchError(f"variant '{name}' cannot be used: {found.broken[name]}")
        if name not in found.variants:
            raise nearest("variant", name, found.variants)
    if not names:
        raise BenchError("no variant named: give --variants names of files in vaes/, or 'all'")
    return tuple(sorted(names, key=list(found.variants).index))


def _questions(text: str) -> tuple[Question, ...]:
    return measured() if text == "all" else named(_names(text))


def _overrides(config: Config, data: Dataset) -> dict[str, object]:
    """The fields of `Run` that are not the data set's own or the preset's."""
    if data.binarization == "real" and config.likelihood == "bernoulli":
        raise BenchError(
            f"data set '{data.name}' is real-valued and has no Bernoulli likelihood: "
            "use --likelihood gaussian"
        )
    names = ("binarize", "epochs", "kl_warmup_epochs", "estimator", "samples")
    names += ("likelihood", "decoder", "precision")
    own = {name: getattr(Run, name, None) for name in names} | OPTIONS.get(data.name, {})
    asked = {name: getattr(config, name) for name in names}
    changed = {name: value for name, value in asked.items() if value not in (None, own[name])}
    rate = _rate(config)
    return changed if rate is None else changed | {"learning_rate": rate}


def _rate(config: Config) -> float | None:
    """The learning rate asked for; None where it is chosen on validation."""
    if config.learning_rate == "auto":
        return None
    with suppress(ValueError):
        if 0 < (rate := float(config.learning_rate)) < math.inf:
            return rate
    raise BenchError(
        f"--learning-rate '{config.learning_rate}' must be 'auto' or a number above 0, e.g. 1e-3"
    )


def _devices(text: str) -> list[str]:
    if text == "auto":
        return ["cuda" if torch.cuda.is_available() else "cpu"]
    devices = _names(text)
    for name in devices:
        if name not in ("cpu", "cuda"):
            raise nearest("device", name, ["auto", "cpu", "cuda"])
        if name == "cuda" and not torch.cuda.is_available():
            raise BenchError(
                "device 'cuda' was asked for but torch finds no CUDA GPU: use --device cpu"
            )
    return devices


def _folder(config: Config, data: Dataset, overrides: dict[str, object]) -> str:
    """Results made with other settings share no table with the defaults', hence no folder."""

    def parts() -> Iterator[str]:
        yield data.name
        if Path(config.dataset).suffix.lower() == ".npz":  # another file may have the same name
            yield data.fingerprint[:6]
        for name, value in overrides.items():
            if name != "binarize":
                yield value if isinstance(value, str) else f"{name}-{value}"
        if data.binarization == "none":
            yield "grey"
        elif "binarize" in overrides:
            yield str(overrides["binarize"])
        if config.importance_samples:
            yield f"K-{config.importance_samples}"
        if config.preset != "default":
            yield config.preset

    return "-".join(parts())


def _cache(config: Config) -> Path:
    return config.cache or Path(os.environ.get("BENCH_CACHE", CACHE))


# --- pages -----------------------------------------------------------------------------------


def _redraw(root: Path, folders: Iterable[Path], console: Console) -> int:
    """Redraw folders' pages and the index over all; print headlines; 1 where something is amiss."""
    drawn = page.write(root, list(folders), QUESTIONS)
    for folder, sections in drawn.sections.items():
        headline, *_ = sections or [Section("", "nothing was measured")]
        console.print(f"\n{folder}: {headline.takeaway}\n", markup=False)
        if headline.tables:
            console.print(_screen(headline.tables[0]))
    for problem in drawn.problems:
        console.print(f"error: {problem}", style="red", markup=False, soft_wrap=True)
    console.print(f"Results page: {drawn.index}", markup=False, soft_wrap=True)
    return int(bool(drawn.problems))


def _screen(table) -> Screen:
    shown = Screen(box=box.SIMPLE_HEAD)
    for place, column in enumerate(table.columns[:SCREEN_COLUMNS]):
        shown.add_column(column.name, justify="right" if place else "left")
    for line in range(len(table.lines)):
        shown.add_row(*table.texts(line)[:SCREEN_COLUMNS])
    return shown
