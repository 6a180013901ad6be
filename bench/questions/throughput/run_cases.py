"""The command that runs the pytest-benchmark cases into one JSON file, and compares two such."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from bench.data.own import is_own
from bench.errors import BenchError
from bench.machine.places import ROOT
from bench.machine.storage import write_atomically
from bench.questions.throughput.files import FILE, check_comparable, joined, stored, without_rounds

FOLDER = Path(__file__).parent
CASES = FOLDER / "cases"
PEERS = CASES / "test_peers.py"
LIBRARIES = ("jax", "optax", "pythae")
"""What the cases of `PEERS` time beside our own: an optional extra."""
TIMED = ("run_cases.py", "actions.py", "fresh.py", "parts.py", "rivals.py")
CODE = (*(FOLDER / name for name in TIMED), *sorted(CASES.glob("*.py")))
"""The cases and what they time; pytest finds them, so that no function here names them."""
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
    peers: bool = False,
) -> Path:
    """Time every case on one device; pytest-benchmark's JSON, written when all are done.

    Cases that were stored by the same code on the same machine stay, unless they are timed again.
    `full` adds every estimator of every variant, `peers` other libraries' steps; `only` is
    pytest's `-k`. Raises BenchError where cases failed (what was measured is stored all the same)
    or pytest-benchmark is missing.
    """
    if find_spec("pytest_benchmark") is None:
        raise BenchError("throughput needs pytest-benchmark: run `pip install pytest-benchmark`")
    path, partial = folder / FILE, folder / f"{FILE}.partial"
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(CASES),
        "--rootdir",
        str(ROOT),
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        "-q",
        "--disable-warnings",
        "--benchmark-only",
        f"--benchmark-json={partial.absolute()}",
        "--benchmark-columns=min,median,rounds",
        # on a CPU the clock counts this thread's own time: other processes do not slow it
        f"--benchmark-timer={'time.perf_counter' if device == 'cuda' else 'time.process_time'}",
        f"--case-seconds={seconds}",
        f"--dataset={_absolute(dataset)}",
        f"--device={device}",
        f"--variants={','.join(variants)}",
    ]
    if data_dir:
        command.append(f"--data-dir={Path(data_dir).absolute()}")
    if full:
        command.append("--full")
    if not peers:
        command.append(f"--ignore={PEERS}")
    if only:
        command += ["-k", only]
    code = subprocess.run(command, cwd=ROOT, env=_environment()).returncode
    if partial.exists() and partial.stat().st_size:
        found = {"code": fingerprint(), **without_rounds(stored(partial))}
        with suppress(BenchError):  # where there is none, or none that can be read
            found = joined(stored(path), found)
        write_atomically(path, (json.dumps(found, indent=1) + "\n").encode())
    partial.unlink(missing_ok=True)
    if code:
        raise BenchError(f"some throughput cases failed (see above); {path} has the others")
    return path


def require_peers() -> None:
    """Raises BenchError, naming the remedy, where a library of the peers is not installed."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise BenchError(
            f"--peers needs {', '.join(missing)}: 'make throughput PEERS=1' installs what it needs"
        )


def fingerprint() -> str:
    """Hash of the cases: timings of others are not theirs."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in CODE)).hexdigest()


def compare(base: Path, new: Path) -> None:
    """Two JSON files side by side, by `pytest-benchmark compare`.

    Raises BenchError where one is missing or damaged, or both are the same.
    """
    if base.is_dir():
        raise BenchError(f"{base} is a folder: name another commit's throughput.json (BASE=…)")
    if base.resolve() == new.resolve():
        raise BenchError(f"{base} would be compared with itself: name another commit's")
    for path in (base, new):
        check_comparable(path)
    files = [str(path.absolute()) for path in (base, new)]  # it cannot mix the two kinds
    command = [sys.executable, "-m", "pytest_benchmark", "compare", *files]
    # by name, not by full name: a case is the same wherever its file was moved
    options = ["--columns=min,median,rounds", "--group-by=name", "--sort=name"]
    if subprocess.run([*command, *options]).returncode:
        raise BenchError(
            f"pytest-benchmark could not compare {base} with {new}, for the reason above: time one "
            "of them again with 'make throughput'"
        )


def _absolute(dataset: str) -> str:
    return str(Path(dataset).expanduser().absolute()) if is_own(dataset) else dataset


def _environment() -> dict[str, str]:
    # tests that run side by side must not make the cases do so
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    return own | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}
