"""pytest-benchmark cases of throughput, and the command that runs them into one JSON file."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from bench.config import BenchError
from bench.report import growth, throughput
from bench.report.common import Results, Section

FOLDER = Path(__file__).parent
CODE = (*sorted(FOLDER.glob("*.py")), FOLDER.parent / "measure" / "throughput.py")
"""The cases and what they time; pytest finds them, so that no function here names them."""
FILE = throughput.FILE
SECONDS = 0.8
"""Of timing a case by `make throughput`."""
BRIEF_SECONDS = 0.3
"""Of timing a case as a part of `make bench`: rougher, but soon done."""


def run_cases(
    folder: Path,
    dataset: str,
    device: str,
    variants: tuple[str, ...],
    data_dir: str | None = None,
    full: bool = False,
    seconds: float = SECONDS,
    only: str = "",
) -> Path:
    """Time every case on one device; pytest-benchmark's JSON, replaced when all are done.

    `full` adds every estimator of every variant; `only` is pytest's `-k`. Raises BenchError where
    cases failed (what was measured is stored all the same) or pytest-benchmark is missing.
    """
    if find_spec("pytest_benchmark") is None:
        raise BenchError("throughput needs pytest-benchmark: run `pip install pytest-benchmark`")
    path, partial = folder / FILE, folder / f"{FILE}.partial"
    command = [
        sys.executable, "-m", "pytest", str(FOLDER), "--rootdir", str(FOLDER.parents[1]),
        "-p", "no:cacheprovider", "-o", "addopts=", "-q", "--disable-warnings", "--benchmark-only",
        f"--benchmark-json={partial.absolute()}", "--benchmark-columns=min,median,rounds",
        # on a CPU the clock counts this thread's own time: other processes do not slow it
        f"--benchmark-timer={'time.perf_counter' if device == 'cuda' else 'time.process_time'}",
        f"--case-seconds={seconds}", f"--dataset={_absolute(dataset)}", f"--device={device}",
        f"--variants={','.join(variants)}",
    ]  # fmt: skip
    if data_dir:
        command.append(f"--data-dir={Path(data_dir).absolute()}")
    if full:
        command.append("--full")
    if only:
        command += ["-k", only]
    code = subprocess.run(command, cwd=FOLDER.parents[1], env=_environment()).returncode
    if partial.exists() and partial.stat().st_size:
        os.replace(partial, path)
    if code:
        raise BenchError(f"some throughput cases failed (see above); {path} has the others")
    return path


def fingerprint() -> str:
    """Hash of the cases: timings of others are not theirs."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in CODE)).hexdigest()


def compare(base: Path, new: Path) -> None:
    """Two JSON files side by side, by `pytest-benchmark compare`."""
    for path in (base, new):
        if not path.is_file():
            raise BenchError(f"{path} does not exist: make it with 'make throughput'")
    columns = "--columns=min,median,rounds"
    files = [str(path.absolute()) for path in (base, new)]  # it cannot mix the two kinds
    command = [sys.executable, "-m", "pytest_benchmark", "compare", *files]
    code = subprocess.run([*command, columns, "--group-by=fullname", "--sort=name"]).returncode
    if code:
        raise BenchError(f"pytest-benchmark could not compare {base} with {new}")


def report_of(folder: Path) -> list[Section]:
    """The report's sections on a folder's timings, for a folder that may hold nothing else."""
    columns = ["variant", "seed", "measurement", "metric", "setting", "value"]
    rows = folder / "rows.csv"
    frame = (
        pd.read_csv(rows, dtype={"setting": str})
        if rows.exists()
        else pd.DataFrame([], columns=columns)
    )
    results = Results(frame, pd.DataFrame(), {}, folder)
    return [*throughput.sections(results), *growth.sections(results)]


def _absolute(dataset: str) -> str:
    return str(Path(dataset).absolute()) if dataset.endswith(".npz") else dataset


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(FOLDER.parents[1]), "COLUMNS": "120"}
