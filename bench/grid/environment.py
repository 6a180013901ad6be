"""Where and how numbers were made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

import torch

from bench.grid.fingerprint import PACKAGES
from bench.machine.places import ROOT

LIBRARIES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "altair")


def environment(device: str) -> dict[str, object]:
    """The machine, the packages and the commit; neither host nor user."""
    gpu = device == "cuda" and torch.cuda.is_available()  # a cluster may have it instead
    return {
        "cpu": machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in LIBRARIES},
        "commit": commit(),
        "load_average_at_start": os.getloadavg()[0],
    }


def of_workers(workers: Iterable[Mapping[str, str | None]]) -> dict[str, object]:
    """Of a grid that ran elsewhere: the machines of its workers, each a `Done.where`.

    How many workers ran on each kind, and in the terms of `environment` what all of them are.
    """
    kinds = Counter(tuple((k, v) for k, v in w.items() if k != "worker") for w in workers)
    each = [{**dict(kind), "workers": n} for kind, n in sorted(kinds.items(), key=str)]
    models = {k: dict.fromkeys(kind[k] for kind in each if kind[k]) for k in ("cpu", "gpu")}
    joined = {k: ", ".join(names) or None for k, names in models.items()}
    return {**joined, "cores": kinds.total(), "workers": each} if each else {}


def machine() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def commit() -> str | None:
    """The checkout's commit, `-dirty` where it was edited since; None outside of one.

    A new file of code is an edit, what a run wrote to `results/` before is none.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        edited = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
        edited += git("status", "--porcelain", "--", *PACKAGES)
        return git("describe", "--always") + ("-dirty" if edited else "")
    except (OSError, subprocess.CalledProcessError):
        return None
