"""Where the time of a compiled step goes, part by part, beside its products and the copying."""

from __future__ import annotations

import pytest

from bench.config import REFERENCE
from bench.questions.throughput.actions import training_step
from bench.questions.throughput.parts import LONG, without_a_part


@pytest.mark.parametrize("batch_size", [100, 1000])
def test_parts(timed, benchmark, setup, batch_size):
    run, data = setup.run(REFERENCE, batch_size=batch_size), setup.filled(batch_size)
    kind = setup.variant(REFERENCE)
    parts = setup.compiled(lambda: without_a_part(run, kind, data))
    step = training_step(run.with_(steps=LONG), kind, data)
    timed(
        step,
        {"bound": setup.bound(training_step(run, kind, data)), **parts},
        items=batch_size,
        repeats=max(1, 1000 // batch_size),
        moved=setup.moved(run),
        fewest=10,
        kind="parts",
        variant=REFERENCE,
        batch=batch_size,
    )
    found = benchmark.extra_info
    share = {name: found[f"{name}_ratio"] for name in parts}
    found["parts"] = {
        "matrix products": found["bound_ratio"],
        "what the optimizer must move": found["moved_ratio"],
        "optimizer": share["step"] - share["optimizer"],
        "likelihood": share["step"] - share["likelihood"],
        "activations": share["step"] - share["activations"],
        "batch, binarization and noise": 1 - share["step"],
        "calls": share["calls"] / 10,
    }
