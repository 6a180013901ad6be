"""What was chosen for the built-in data sets before: a line a run, valid for the code it names."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from bench.config import Run
from bench.errors import BenchError, one_line
from bench.grid.fingerprint import bare
from bench.machine.storage import write_atomically
from vaes import Autoencoder

FILE = Path(__file__).with_name("recorded.json")
CHOSEN = ("learning_rate", "hyperparameters")


def choice(open_run: Run, variant: type[Autoencoder], data_fingerprint: str) -> Run | None:
    """The open run with what was chosen for it; None where that is not recorded of this code."""
    entry = _entries(FILE).get(_name(open_run))
    if entry is None or (entry["code"], entry["data"]) != (stamp(variant), data_fingerprint):
        return None
    return open_run.with_(
        learning_rate=entry["learning_rate"],
        hyperparameters=tuple(sorted(entry["hyperparameters"].items())),
    )


def record(
    chosen: Iterable[tuple[Run, Run]],
    variants: Mapping[str, type[Autoencoder]],
    data_fingerprint: str,
) -> None:
    """Add (open run, choice) pairs to the file, in place of what it had of the same runs."""
    path = FILE
    entries = dict(_entries(path)) if path.exists() else {}
    for open_run, run in chosen:
        entries[_name(open_run)] = {
            "learning_rate": run.learning_rate,
            "hyperparameters": dict(run.hyperparameters),
            "code": stamp(variants[run.variant]),
            "data": data_fingerprint,
        }
    lines = (f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries))
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
    _entries.cache_clear()


@cache
def stamp(variant: type[Autoencoder]) -> str:
    """Hash of a variant's own classes, docstrings and comments apart; the same on any Python."""
    own = [c for c in variant.__mro__ if issubclass(c, Autoencoder)]
    texts = [ast.unparse(bare(ast.parse(inspect.getsource(c)).body[0])) for c in own]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _name(open_run: Run) -> str:
    """The run by what it is, its seed and where and how precisely it is computed aside."""
    identity = open_run.with_(device=Run.device, precision=Run.precision).identity()
    return json.dumps(
        {k: v for k, v in identity.items() if k not in ("seed", *CHOSEN)}, sort_keys=True
    )


@cache
def _entries(path: Path) -> Mapping[str, dict]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{path} cannot be read ({one_line(error)}): restore it from the repository"
        ) from None
