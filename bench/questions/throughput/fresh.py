"""What only a fresh process shows: the time to its first step, and peaks of memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import load
from bench.errors import BenchError
from bench.machine.places import ROOT
from bench.questions.throughput.actions import filled, importance_bound, synchronize, training_step
from bench.randomness import generator
from bench.training.loop import build
from vaes import discover


def in_fresh_process(function: Callable[..., dict], *arguments: object) -> dict:
    """What a function of a module gives in a new interpreter, for arguments that JSON can write.

    Raises BenchError with the process's last line where it fails.
    """
    code = (
        f"import json, sys; from {function.__module__} import {function.__name__} as function; "
        "print(json.dumps(function(*json.load(sys.stdin))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"{function.__name__}{arguments}: a fresh process failed ({reason})")
    return json.loads(done.stdout.splitlines()[-1])


def start(run: Run, dataset: str, data_dir: str | None, ks: tuple[int, ...]) -> dict:
    """`first_step` of the run in a new interpreter, counted from here; `ks` are those of bounds."""
    return in_fresh_process(first_step, run.identity(), dataset, data_dir, time.time(), ks)


def peak_memory(device: str) -> int:
    """Bytes: the allocator's peak on CUDA, else this process's peak resident size.

    Linux's `VmHWM` belongs to this program alone; `ru_maxrss` would start from its parent's.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def first_step(
    run: dict, dataset: str, data_dir: str | None, started: float, importance_samples: list[int]
) -> dict:
    """Meant for a fresh process: load, build, take one training step; then IW bounds for each K.

    `started` is `time.time()` at the process's start; K ascends, since a peak never falls.
    Returns `seconds`, `peak_bytes` after ten steps, and `importance_bytes` by K (one image).
    """
    torch.set_num_threads(1)
    run = Run(**run)
    data = filled(load(dataset, data_dir).to(run.device), run.batch_size)
    variant = discover().variants[run.variant]
    step = training_step(run, variant, data)
    step()
    synchronize(run.device)
    seconds = time.time() - started
    for _ in range(9):
        step()
    found = {"seconds": seconds, "peak_bytes": peak_memory(run.device), "importance_bytes": {}}
    model = build(run, variant, as_float(data.train).mean(0)) if importance_samples else None
    for k in importance_samples:
        if run.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        noise = generator(run.device, "memory")
        importance_bound(model, as_float(data.test[:1]), noise, k)()
        found["importance_bytes"][k] = peak_memory(run.device)
    return found
