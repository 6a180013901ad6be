"""The command line: `python -m bench run|report|throughput|throughput-compare`."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bench import benchmarks, cache, gradients, report, tidy
from bench.config import OPTIONS, PRECISIONS, PRESETS, BenchError, Run, nearest, preset
from bench.data import BINARIZATIONS, DATASETS, Dataset, load
from bench.measure import modules
from bench.progress import Progress
from bench.report.common import Section
from bench.report.index import write_index
from bench.runner import Outcome, execute
from bench.tasks import Grid, start_worker
from bench.train import train
from vaes import discover
from vaes._options import DECODERS, LIKELIHOODS

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True,
    help="Measure what a VAE's choice of posterior variance buys.",
)  # fmt: skip
console = Console(highlight=False)

RESULTS = Path("results")
TERMINAL_COLUMNS = 4
"""As many columns of the headline table as fit 80 characters; the page has them all."""
Results = Annotated[Path, typer.Option(help="Folder the tables and figures go to.")]


@app.command()
def run(
    dataset: Annotated[
        str, typer.Option(help=f"{', '.join(DATASETS)}, or a path to an .npz file.")
    ] = "mnist5k",
    variants: Annotated[
        str, typer.Option(help="Comma-separated names of files in vaes/, or 'all'.")
    ] = "all",
    seeds: Annotated[
        int | None, typer.Option(help="Training runs a variant (default: the preset's).")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or 'cpu,cuda'.")] = "auto",
    jobs: Annotated[
        int, typer.Option(min=0, help="Worker processes, one thread each (0: one a core).")
    ] = 0,
    preset_name: Annotated[
        str, typer.Option("--preset", help=f"How much is done: {', '.join(PRESETS)}.")
    ] = "default",
    binarize: Annotated[
        str | None, typer.Option(help=f"Override: {', '.join(BINARIZATIONS)} (none: grey).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Override the preset's epochs.")] = None,
    kl_warmup_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs over which the KL's weight rises from 0 to 1.")
    ] = 0,
    estimator: Annotated[
        str, typer.Option(help="Gradient estimator of the training, or 'auto' (pathwise).")
    ] = "auto",
    samples: Annotated[int, typer.Option(min=1, help="Noise samples an image and step.")] = 1,
    precision: Annotated[
        str, typer.Option(help=f"Of the training step: {', '.join(PRECISIONS)}.")
    ] = PRECISIONS[0],
    likelihood: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(LIKELIHOODS)} (default: the data set's own)."),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help=f"{', '.join(DECODERS)} (default: the data set's own).")
    ] = None,
    importance_samples: Annotated[
        str, typer.Option(help="K of the IW bounds, e.g. '1,10,100' (default: the preset's).")
    ] = "",
    measurements: Annotated[
        str, typer.Option(help=f"Comma-separated: {', '.join(modules())}, or 'all'.")
    ] = "all",
    data_dir: Annotated[
        str | None, typer.Option(help="Folder of the data files (default: $BENCH_DATA).")
    ] = None,
    results: Results = RESULTS,
    cache_folder: Annotated[
        Path, typer.Option("--cache", envvar="BENCH_CACHE", help="Folder of finished runs.")
    ] = Path(".bench_cache"),
) -> None:
    """Train and evaluate the grid, then write and print the results.

    What was done before is found in the cache; an interrupted grid resumes.
    """
    if seeds is not None and seeds < 1:
        raise BenchError(f"--seeds must be at least 1, not {seeds}: leave it out for the preset's")
    if estimator != "auto" and estimator not in gradients.estimators():
        raise nearest("estimator", estimator, gradients.estimators())
    chosen = preset(preset_name)
    if importance_samples:
        chosen = replace(chosen, importance_samples=_counts(importance_samples))
    names, wanted = _variants(variants), _measurements(measurements)
    data = load(dataset, data_dir, binarize)
    overrides = {"binarize": binarize, "epochs": epochs, "kl_warmup_epochs": kl_warmup_epochs,
                 "estimator": estimator, "samples": samples}  # fmt: skip
    overrides = {k: v for k, v in overrides.items() if v not in (None, getattr(Run, k, None))}
    overrides |= _options(data, likelihood, decoder, precision)
    failed, written = False, []
    for place in _devices(device):
        folder = results / _folder(dataset, data.binarization, preset_name, overrides) / place
        tidy.prepare(folder)
        grid = Grid(dataset, names, seeds or chosen.seeds, chosen, place,
                    tuple(overrides.items()), data_dir, cache_folder, wanted)  # fmt: skip
        workers = 1 if place == "cuda" else jobs or os.cpu_count() or 1
        config = {"dataset": data.name, "binarization": data.binarization, "preset": preset_name,
                  "seeds": grid.seeds, "importance_samples": chosen.importance_samples,
                  "variants": list(names), "jobs": workers,
                  "data_fingerprint": data.fingerprint, **overrides}  # fmt: skip
        outcome = _run_grid(grid, data, folder, workers, config)
        if wanted is None and preset_name != "quick" and data.binarization != "real":
            _time_once(grid, folder, data)
        failed |= bool(outcome.failures)
        written.append(folder)
    _write_report(results, written)
    if failed or discover().broken:
        sys.exit(1)


def _run_grid(grid: Grid, data: Dataset, folder: Path, workers: int, config: dict) -> Outcome:
    """Run the grid on worker processes, store its rows in the folder, and say what failed."""
    load_average = os.getloadavg()[0]
    with Progress(console, workers) as progress:
        context = get_context("spawn")
        queue = context.Queue()
        progress.listen(queue)
        pool = ProcessPoolExecutor(workers, context, start_worker, (queue,))
        try:
            outcome = execute(grid, data.to(grid.device), pool, progress.report)
        finally:
            pool.shutdown(cancel_futures=True)
    env = tidy.environment(grid, config) | {"load_average_at_start": load_average}
    tidy.store(folder, tidy.rows_of(grid, outcome), tidy.history_of(grid, outcome),
               tidy.pictures_of(outcome), env)  # fmt: skip
    for task, reason in outcome.failures.items():
        console.print(f"failed: {task.label}: {reason}", style="red", markup=False)
    console.print(f"{outcome.executed} tasks done, {outcome.cached} found in the cache")
    return outcome


def _time_once(grid: Grid, folder: Path, data: Dataset) -> None:
    """Time the throughput of this machine, unless that was done with the same code and data."""
    found = discover().variants
    identity = {"throughput": data.fingerprint, "cases": benchmarks.fingerprint(),
                "device": grid.device, "machine": tidy.machine()}  # fmt: skip
    key = cache.key(identity, benchmarks.run_cases, train, *(found[v] for v in grid.variants))
    store = cache.Store(grid.cache)
    if store.load(key) is None or not (folder / benchmarks.FILE).exists():
        benchmarks.run_cases(folder, grid.dataset, grid.device, grid.variants, grid.data_dir,
                             seconds=benchmarks.BRIEF_SECONDS)  # fmt: skip
        store.save(key, {})


@app.command()
def throughput(
    dataset: Annotated[str, typer.Option(help="Images whose shapes are timed.")] = "mnist5k",
    variants: Annotated[
        str, typer.Option(help="Comma-separated names of files in vaes/, or 'all'.")
    ] = "all",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or 'cpu,cuda'.")] = "auto",
    full: Annotated[
        bool, typer.Option("--full", help="Every estimator of every variant, at every batch size.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Of timing a case; fewer give rougher figures.")
    ] = benchmarks.SECONDS,
    data_dir: Annotated[
        str | None, typer.Option(help="Folder of the data files (default: $BENCH_DATA).")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Time training, evaluation and bounds, each beside its matrix products alone."""
    names, data = _variants(variants), load(dataset, data_dir)
    if data.binarization == "real":
        raise BenchError(f"throughput is timed on images, and '{data.name}' has none: name another")
    for place in _devices(device):
        folder = results / _folder(dataset, data.binarization, "default", {}) / place
        tidy.prepare(folder)
        failure = None
        try:
            benchmarks.run_cases(folder, dataset, place, names, data_dir, full, seconds)
        except BenchError as error:
            failure = error
        if (folder / "rows.csv").exists():
            _write_report(results, [folder])
        for section in benchmarks.report_of(folder):
            console.print(f"{section.title}: {section.takeaway}", markup=False)
        if failure:
            raise failure


@app.command("throughput-compare")
def compare_throughput(
    base: Annotated[Path, typer.Argument(help="The throughput.json of another commit.")],
    new: Annotated[Path, typer.Argument(help="The one to compare with it.")] = (
        RESULTS / "mnist5k" / "cpu" / benchmarks.FILE
    ),
) -> None:
    """Two commits' timings side by side, by `pytest-benchmark compare`."""
    benchmarks.compare(base, new)


@app.command("report")
def redraw(results: Results = RESULTS) -> None:
    """Redraw every table and figure from the stored rows."""
    folders = sorted(path.parent for path in results.glob("*/*/rows.csv"))
    if not folders:
        raise BenchError(f"no stored results under {results}: make them with 'make bench'")
    _write_report(results, folders)


def _write_report(results: Path, folders: list[Path]) -> None:
    """Redraw the folders' results, print their headline tables, and write the index."""
    for folder in folders:
        headline, *_ = report.write(tidy.read(folder)) or [Section("", "nothing was measured")]
        console.print(f"\n{folder}: {headline.takeaway}\n", markup=False)
        if headline.table:
            console.print(_terminal_table(headline.table))
    console.print(f"Results page: {write_index(results)}", markup=False, soft_wrap=True)


def _terminal_table(markdown: str) -> Table:
    header, _, *lines = [
        [cell.strip(" *") for cell in line.strip("|").split("|")] for line in markdown.splitlines()
    ]
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(header[:TERMINAL_COLUMNS]):
        table.add_column(name, justify="right" if place else "left")
    for line in lines:
        table.add_row(*(cell.split(" (pairs")[0] for cell in line[:TERMINAL_COLUMNS]))
    return table


def _variants(text: str) -> tuple[str, ...]:
    found = discover()
    for reason in found.broken.values():
        console.print(f"not a variant, left out: {reason}", style="yellow", markup=False)
    if text == "all":
        return tuple(found.variants)
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name in found.broken:
            raise BenchError(f"variant '{name}' cannot be used: {found.broken[name]}")
        if name not in found.variants:
            raise nearest("variant", name, found.variants)
    if not names:
        raise BenchError("no variant named: give --variants names of files in vaes/, or 'all'")
    return tuple(sorted(names, key=list(found.variants).index))


def _measurements(text: str) -> tuple[str, ...] | None:
    """The measurements named; None for all."""
    if text == "all":
        return None
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in modules():
            raise nearest("measurement", name, modules())
    return names


def _options(
    data: Dataset, likelihood: str | None, decoder: str | None, precision: str
) -> dict[str, str]:
    """The likelihood and decoder where they are not the data set's own, and a reduced precision."""
    for kind, name, known in (("likelihood", likelihood, LIKELIHOODS),
                              ("decoder", decoder, DECODERS),
                              ("precision", precision, PRECISIONS)):  # fmt: skip
        if name is not None and name not in known:
            raise nearest(kind, name, known)
    if data.binarization == "real" and likelihood == "bernoulli":
        raise BenchError(
            f"data set '{data.name}' is real-valued and has no Bernoulli likelihood: "
            "use --likelihood gaussian"
        )
    own = {"likelihood": Run.likelihood, "decoder": Run.decoder, "precision": Run.precision}
    own |= OPTIONS.get(data.name, {})
    asked = {"likelihood": likelihood, "decoder": decoder, "precision": precision}
    return {kind: name for kind, name in asked.items() if name not in (None, own[kind])}


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise BenchError(
            f"--importance-samples '{text}' must be numbers from 1 on, e.g. '1,10,100'"
        )
    return counts


def _devices(text: str) -> list[str]:
    if text == "auto":
        return ["cuda" if torch.cuda.is_available() else "cpu"]
    devices = [name.strip() for name in text.split(",")]
    for name in devices:
        if name not in ("cpu", "cuda"):
            raise nearest("device", name, ["auto", "cpu", "cuda"])
        if name == "cuda" and not torch.cuda.is_available():
            raise BenchError(
                "device 'cuda' was asked for but torch finds no CUDA GPU: use --device cpu"
            )
    return devices


def _folder(dataset: str, binarization: str, preset_name: str, overrides: dict) -> str:
    """Results made with other settings share no table with the defaults', hence no folder."""
    parts = [Path(dataset).stem]
    for name, value in overrides.items():
        parts.append(str(value) if isinstance(value, str) else f"{name}-{value}")
    parts = ["grey" if part == "none" else part for part in parts]
    if binarization == "none" and "grey" not in parts:
        parts.append("grey")
    if preset_name not in ("default", "full"):
        parts.append(preset_name)
    return "-".join(parts)


def main() -> None:
    """Run the command line; a BenchError is one line and exit code 2."""
    try:
        app()
    except BenchError as error:
        console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted: finished runs are kept, the same command goes on from here")
        sys.exit(130)
