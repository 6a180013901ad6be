"""From a grid's outcome to tidy rows, history and pictures, and to the files that hold them."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.cache import write_atomically
from bench.config import BenchError, Run
from bench.measure import Row, modules, setting
from bench.report.common import Results
from bench.runner import REFERENCE, Outcome, headline
from bench.tasks import Grid

COLUMNS = ["dataset", "device", "variant", "seed", "measurement", "metric", "setting", "value",
           "standard_error", "n", "unit"]  # fmt: skip


def rows_of(grid: Grid, outcome: Outcome) -> pd.DataFrame:
    """All rows of an outcome: measurements, comparisons, sweeps and failures."""
    lines = []

    def add(run: Run, measurement: str, row: Row) -> None:
        identity = [run.dataset, run.device, run.variant, run.seed, measurement]
        values = asdict(row)
        lines.append(identity + [values[name] for name in COLUMNS[5:]])

    for name, results in outcome.results.items():
        for task, result in results:
            for row in result.rows:
                add(task.run, name, row)
        compare = getattr(modules()[name], "compare", None)
        if compare is not None:
            by_run = {(task.run.variant, task.run.seed): result for task, result in results}
            for variant, seed, row in compare(by_run, REFERENCE):
                add(grid.run(variant, seed), name, row)
    for variant, sweep in outcome.sweeps.items():
        for run, value in sweep:
            chosen = run.hyperparameters == outcome.chosen[variant]
            where = setting(**dict(run.hyperparameters), chosen=int(chosen))
            add(run, "sweep", Row("valid_elbo", value, "nats/image", where))
    for task, reason in outcome.failures.items():
        where = f"{task.label}: {reason}".replace(";", ",")
        add(task.run, "failure", Row(task.measurement or "training", float("nan"), "", where))
    frame = pd.DataFrame(lines, columns=COLUMNS)
    return frame.sort_values(COLUMNS[:7], kind="stable", ignore_index=True)


def history_of(grid: Grid, outcome: Outcome) -> pd.DataFrame:
    """One line a headline run and epoch."""
    lines = [
        {"variant": run.variant, "seed": run.seed} | entry
        for run in sorted(headline(grid, outcome) & outcome.trained.keys(), key=_by_variant)
        for entry in outcome.trained[run].history
    ]
    return pd.DataFrame(lines)


def pictures_of(outcome: Outcome) -> dict[str, np.ndarray]:
    """`measurement/variant/seed/name` → array, for the figures."""
    return {
        f"{name}/{task.run.variant}/{task.run.seed}/{key}": value.numpy()
        for name, results in outcome.results.items()
        for task, result in results
        for key, value in result.pictures.items()
    }


def _by_variant(run: Run) -> tuple[str, int]:
    return run.variant, run.seed


def environment(grid: Grid, config: dict) -> dict:
    """Where and how the numbers were made."""
    packages = ("torch", "numpy", "pandas", "scikit-learn", "matplotlib")
    return {
        "cpu": machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if grid.device == "cuda" else None,
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in packages},
        "commit": _commit(),
        "config": config,
    }


def machine() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        folder = Path(__file__).parent
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def store(
    folder: Path, rows: pd.DataFrame, history: pd.DataFrame, pictures: dict, env: dict
) -> None:
    """Write `rows.csv`, `history.csv`, `pictures.npz` and `environment.json`, each atomically.

    What the folder holds of other variants stays, where it was made with the same configuration;
    their number of seeds may be another, and so may the worker processes.
    """
    prepare(folder)
    if _same_config(folder, env):
        old = read(folder)
        rows = _keep_others(old.rows, rows)
        history = _keep_others(old.history, history)
        there = set(rows.variant)
        pictures = {k: v for k, v in old.pictures.items() if k.split("/")[1] in there} | pictures
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **pictures)
    write_atomically(folder / "pictures.npz", buffer.getvalue())
    write_atomically(folder / "history.csv", _csv(history))
    write_atomically(folder / "rows.csv", _csv(rows))
    write_atomically(folder / "environment.json", json.dumps(env, indent=2).encode() + b"\n")


def read(folder: Path) -> Results:
    """The stored results of a folder; BenchError where there are none."""
    try:
        rows = pd.read_csv(folder / "rows.csv", keep_default_na=True, dtype={"setting": str})
        history = pd.read_csv(folder / "history.csv")
        with np.load(folder / "pictures.npz") as arrays:
            pictures = dict(arrays)
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{folder} holds no complete results ({error}): make them with 'make bench'"
        ) from None
    return Results(rows, history, pictures, folder)


def prepare(folder: Path) -> None:
    """Make the results folder; BenchError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BenchError(
            f"the results folder {folder} cannot be written ({error.strerror}): "
            "change its permissions or name another with --results"
        ) from None


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, float_format="%.8g").encode()


def _same_config(folder: Path, env: dict) -> bool:
    try:
        stored = json.loads((folder / "environment.json").read_text())
    except (OSError, ValueError):
        return False
    ours = json.loads(json.dumps(env["config"]))

    def of_numbers(config: dict) -> dict:
        return {k: v for k, v in config.items() if k not in ("variants", "seeds", "jobs")}

    return of_numbers(stored.get("config", {})) == of_numbers(ours)


def _keep_others(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    others = old[~old.variant.isin(set(new.variant))]
    return pd.concat([others, new], ignore_index=True) if len(others) else new
