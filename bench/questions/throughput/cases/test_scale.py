"""How memory grows with the sizes of an action, and the cost of a grid with its tasks."""

from __future__ import annotations

import time

import pytest

from bench.questions.throughput.cases.memory import peak_of
from bench.questions.throughput.cases.scale import scale
from bench.questions.throughput.fresh import in_fresh_process

MEMORY = {
    ("training", "pixels"): ((784, 20_000), {}),
    ("importance_bound", "samples"): ((10, 100, 1000, 10_000, 100_000), {"images": 1}),
    ("importance_bound", "images"): ((10, 100, 1000), {"samples": 1000}),
    ("gradient_variance", "samples"): ((1, 16, 256, 4096), {"images": 16, "passes": 20_000}),
    ("gradient_variance", "images"): ((16, 64, 256, 1024), {"samples": 1, "passes": 20_000}),
    ("gradient_variance", "passes"): ((20_000, 200_000, 2_000_000), {"images": 16, "samples": 1}),
}
"""(action, what of it grows) → its values, and the other settings, of `memory`'s actions."""
TASKS = (50, 500, 5000)


@pytest.mark.benchmark(timer=time.perf_counter)
@pytest.mark.parametrize(
    ("action", "axis", "value"),
    [(*which, value) for which, (values, _) in MEMORY.items() for value in values],
)
def test_memory(benchmark, setup, action, axis, value):
    if not setup.full:
        pytest.skip("a fresh process takes long to start: with --full alone")
    _, others = MEMORY[action, axis]
    settings = {**others, axis: value}
    found = benchmark.pedantic(in_fresh_process, (peak_of, action, setup.device, settings))
    benchmark.extra_info |= {"kind": "memory", "action": action, "axis": axis, "value": value}
    benchmark.extra_info |= {"others": others, **found}


@pytest.mark.benchmark(timer=time.perf_counter)
@pytest.mark.parametrize("tasks", TASKS)
def test_scale(benchmark, setup, tmp_path, tasks):
    """Tiny trainings and their measurements: done, found done, and reported."""
    if setup.device == "cuda" or not setup.full:
        pytest.skip("thousands of tasks take minutes: on a CPU, with --full alone")
    found = benchmark.pedantic(in_fresh_process, (scale, str(tmp_path), tasks))
    benchmark.extra_info |= {"kind": "scale", "value": tasks, **found}
