"""`python -m bench throughput`: every case timed; and the brief timings of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from bench.commands import configuration, contestants
from bench.commands.arguments import command
from bench.commands.report import redraw
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.grid import fingerprint
from bench.grid.environment import commit, machine
from bench.grid.store import Store
from bench.grid.tasks import Grid
from bench.machine.console import say
from bench.options import Config
from bench.questions import QUESTIONS
from bench.questions.throughput import run_cases as timing
from bench.report import results
from bench.report import rows as tidy
from bench.training.loop import train
from vaes import discover


def throughput(
    config: Config, full: bool, seconds: float | None, console: Console, peers: bool = False
) -> int:
    """`python -m bench throughput`: times every case; the rest of a folder stays as it is."""
    if peers:
        timing.require_peers()
    if files := contestants.variant_files(config.variants):
        raise BenchError(f"throughput is timed of files in vaes/ alone: copy {files[0]} there")
    variants = contestants.sound_variants(config.variants, console)
    data = configuration.data_named(config, console)
    if data.binarization == "real":
        raise BenchError(f"throughput is timed on images, and '{data.name}' has none: name another")
    code = 0
    for device in configuration.devices_of(config.device):
        folder = config.results / configuration.folder_name(config, data, {}) / device
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
            with results.writing(config.results, partial(say, console)):
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
                results.record(folder, run)
            Store(configuration.cache_folder(config)).save(_timing_key(device, data, variants), {})
        except BenchError as error:
            say(console, f"failed: {error}", "red")
            code = 1
        if tidy.path_in(folder).exists():
            code |= redraw(config.results, [folder], console)
        (question,) = (q for q in QUESTIONS if q.name == "throughput")
        for section in question.sections(results.read(folder)):
            console.print(f"{section.title}: {section.takeaway}", markup=False)
    return code


def time_once(grid: Grid, folder: Path, data: Dataset) -> None:
    """Time the throughput of this machine, unless that was done with the same code and data."""
    variants = tuple(name for name in grid.variants if name in discover().variants)
    key, store = _timing_key(grid.device, data, variants), Store(grid.cache)
    if store.load(key) is None or not (folder / timing.FILE).exists():
        timing.run_cases(
            folder,
            grid.dataset,
            grid.device,
            variants,
            grid.data_dir,
            seconds=timing.BRIEF_SECONDS,
        )
        results.record(folder)
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
