"""The command line: `python -m bench run|tune|validate|report|throughput|…`.

Options become a `Config`; what is done with it is in `bench.commands`, imported when it is used.
Commands on what is finished are in `bench.commands.finished`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Parameter

from bench.commands import finished
from bench.commands.arguments import from_file, numbers, usable_option, utf8
from bench.errors import BenchError, readable
from bench.machine.console import console, say
from bench.machine.places import shown
from bench.options import Config

app = App(
    name="python -m bench",
    help="Measure what a VAE's choice of posterior variance buys.",
    version_flags=[],
    result_action="return_value",
)
app.command(finished.app, name="*")

DEFAULT = Config()
Options = Annotated[Config, Parameter(name="*")]
Hidden = Annotated[str | None, Parameter(show=False)]
FORMER_NAMES = {
    "elbo": "headline",
    "mc_variance": "loss_noise",
    "gradient_variance": "gradient_noise",
    "training_by_estimator": "estimator_training",
}
"""Of questions, where 0.1 called them measurements."""


@app.command
def run(*, config: Options = DEFAULT, measurements: Hidden = None) -> int:
    """Train and evaluate the grid, then write and print the results.

    What was done before is found in the cache; an interrupted grid resumes.
    """
    with _loading():
        from bench.commands.run import run

    if measurements is not None:
        names = (FORMER_NAMES.get(name, name) for name in measurements.split(","))
        config = replace(config, questions=",".join(names))
    return run(config, console)


@app.command
def tune(
    *,
    dataset: str = Config.dataset,
    variants: str = Config.variants,
    questions: str = Config.questions,
    device: str = Config.device,
    jobs: int = Config.jobs,
    engine: str = Config.engine,
    scheduler: str | None = None,
    preset: str = Config.preset,
    seeds: int | None = None,
    data_dir: str | None = None,
    results: Path = Config.results,
    cache: Path | None = None,
) -> int:
    """Choose learning rates and hyperparameters anew, and record them for later runs.

    What is recorded stands beside the code, in bench/grid/recorded.json; what every candidate
    reached joins the results.

    Parameters
    ----------
    dataset
        Whose images.
    variants
        Comma-separated names of files in vaes/, or 'all'.
    questions
        Whose trainings: comma-separated names of folders in bench/questions/, or 'all'. Where
        headline is not named, what is recorded of its trainings is kept.
    device
        auto, cpu or cuda.
    jobs
        Worker processes, one thread each (0: one a core).
    engine
        local, or dask: the workers of a cluster.
    scheduler
        Address of a cluster's Dask scheduler, e.g. tcp://host:8786.
    preset
        default; full has trainings of the same lengths.
    seeds
        Runs of each candidate (default: the preset's).
    data_dir
        Folder of the data files (default: $BENCH_DATA).
    results
        Folder the evidence goes to.
    cache
        Folder of finished runs (default: $BENCH_CACHE, or .bench_cache).
    """
    with _loading():
        from bench.commands.run import tune

    config = Config(
        dataset=dataset,
        variants=variants,
        questions=questions,
        device=device,
        jobs=jobs,
        engine=engine,
        scheduler=scheduler,
        preset=preset,
        seeds=seeds,
        data_dir=data_dir,
        results=results,
        cache=cache,
    )
    return tune(config, console)


@app.command
def new_variant(name: str, /) -> int:
    """Write a commented, working file vaes/NAME.py to start a variant from.

    Parameters
    ----------
    name
        Of the file and in every table, e.g. low_rank.
    """
    from bench.commands.new_variant import new_variant

    written = new_variant(name)
    say(console, f"wrote {written}; next: make check NAME={name}")
    return 0


@app.command
def check(variants: str, /) -> int:
    """Put variants through their contract, and say what is wrong in the contract's words.

    Parameters
    ----------
    variants
        Comma-separated names of files in vaes/, or 'all', or a path to one file anywhere.
    """
    from bench.commands.check import check

    return check(variants, console)


@app.command
def throughput(
    *,
    dataset: str = Config.dataset,
    variants: str = Config.variants,
    device: str = Config.device,
    full: bool = False,
    peers: bool = False,
    seconds: float | None = None,
    data_dir: str | None = None,
    results: Path = Config.results,
) -> int:
    """Time training, evaluation and bounds, each beside its matrix products alone.

    Parameters
    ----------
    dataset
        Images whose shapes are timed.
    variants
        Comma-separated names of files in vaes/, or 'all'.
    device
        auto, cpu, cuda, or 'cpu,cuda'.
    full
        Every estimator of every variant, at every batch size.
    peers
        Also the step of pythae, JAX and torch.compile ('make throughput PEERS=1' installs them).
    seconds
        Of timing a case; fewer give rougher figures.
    data_dir
        Folder of the data files (default: $BENCH_DATA).
    results
        Folder the tables and figures go to.
    """
    with _loading():
        from bench.commands.throughput import throughput

    config = Config(
        dataset=dataset, variants=variants, device=device, data_dir=data_dir, results=results
    )
    return throughput(config, full, seconds, console, peers)


@app.command
def throughput_compare(
    base: Path, new: Path = Path("results/mnist5k/cpu/throughput.json"), /
) -> int:
    """Two commits' timings side by side, by `pytest-benchmark compare`.

    Parameters
    ----------
    base
        The throughput.json of another commit.
    new
        The one to compare with it.
    """
    from bench.questions.throughput.run_cases import compare

    compare(base, new)
    return 0


@app.command
def validate(
    *,
    rows: str = "all",
    preset: str = Config.preset,
    device: str = Config.device,
    jobs: int = Config.jobs,
    data_dir: str | None = None,
    results: Path = Config.results,
    cache: Path | None = None,
) -> int:
    """Make published numbers again under their own conditions, and table the differences.

    Parameters
    ----------
    rows
        Comma-separated names of files in bench/questions/published/rows/, or 'all'.
    preset
        quick: those that take minutes; default: all, some hours.
    device
        auto, cpu or cuda.
    jobs
        Worker processes, one thread each (0: one a core).
    data_dir
        Folder of the data files (default: $BENCH_DATA).
    results
        Folder that gets validation/.
    cache
        Folder of finished runs (default: $BENCH_CACHE, or .bench_cache).
    """
    with _loading():
        from bench.commands.validation import validate

    places = {"data_dir": data_dir, "results": results, "cache": cache}
    config = Config(preset=preset, device=device, jobs=jobs, **places)
    return validate(config, rows, console)


@app.command
def report(*, dataset: str | None = None, results: Path = Config.results) -> int:
    """Redraw every table and figure from the stored rows.

    Parameters
    ----------
    dataset
        Only the folder of this name under the results (default: every one).
    results
        Folder the tables and figures go to.
    """
    from bench.report import workers

    workers.start()  # while this process imports what it needs
    with _loading():
        from bench.commands.report import report

    return report(results, dataset, console)


@app.command
def gpu_check(
    *,
    device: str = "cuda",
    minutes: float = 10.0,
    dataset: str = Config.dataset,
    variants: str = Config.variants,
    preset: str = Config.preset,
    results: Path | None = None,
) -> int:
    """Show everything that only a GPU can, within ten minutes; writes a log of it.

    Parameters
    ----------
    device
        cuda, or cpu for a rehearsal.
    minutes
        After which it stops with what it has.
    dataset
        Images to train on.
    variants
        Comma-separated names of files in vaes/, or 'all'.
    preset
        How much the bench does: default, quick, full.
    results
        Folder the tables and figures go to (default: results, of a rehearsal a new folder).
    """
    from bench.commands.gpu_check.command import gpu_check

    return gpu_check(device, dataset, variants, preset, minutes, results, console)


@contextmanager
def _loading() -> Iterator[None]:
    """Imports within take less time: nothing of them is garbage to look for."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _say_error(message: str) -> None:
    """On one line, without the middle of a very long one."""
    said = readable(f"error: {message}")
    said = said if len(said) < 1000 else f"{said[:500]} … {said[-300:]}"
    say(console, said, "bold red")


def _told(error: Exception) -> str:
    """The mistake in a line, with the remedy where the parser names none."""
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return (
            f"no option takes {' '.join(map(repr, error.unused_tokens))}: give each value after "
            "its option, e.g. --dataset digits, and a switch such as --gated without one"
        )
    if isinstance(error, cyclopts.UnknownCommandError):
        return f"{error} '--help' explains each."
    return str(error)


def main() -> None:
    """Run the command line; a mistake is one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a stream that was put there by another program
            stream.reconfigure(errors="replace")  # a small character set has no ± or −
    try:
        words = [utf8(word) for word in sys.argv[1:]]
        app.config = [*from_file(words), numbers]
        command, given, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        for name, value in given.arguments.items():
            given.arguments[name] = usable_option(name, value)
        sys.exit(command(*given.args, **given.kwargs))
    except (BenchError, cyclopts.CycloptsError) as error:
        _say_error(_told(error))
        sys.exit(2)
    except OSError as error:  # a folder that vanishes, a disk that fills up
        name = shown(str(error.filename)) if error.filename else "a file"
        reason = error.strerror or str(error)
        _say_error(
            f"{name} cannot be used ({reason}): check the path, free or change the disk, and run "
            "again; what was finished is kept"
        )
        sys.exit(2)
