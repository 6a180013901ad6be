"""Training, evaluation and IW bounds of every variant, each beside its matrix products."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

import pytest

from bench.config import REFERENCE, Run
from bench.data.binarization import as_float
from bench.errors import BenchError
from bench.inference.gradients import admit
from bench.questions.throughput.actions import (
    evaluation,
    fewest_samples,
    importance_bound,
    matrix_product,
    memory_copy,
    ordinary_step,
    training_step,
)
from bench.questions.throughput.fresh import start
from bench.questions.throughput.parts import LONG
from bench.randomness import generator
from bench.training.loop import build
from bench.training.stacked import Stack
from vaes import VAE

IMPORTANCE_IMAGES, IMPORTANCE_SAMPLES = 10, 1000
MEMORY_SAMPLES = (10, 100, 1000, 10_000, 100_000)
SEEDS = 5
MOST_PASSES = 100_000
"""Decoder passes a step; more would not fit the memory of a small machine."""


@pytest.mark.parametrize("batch_size", [100, 1000, 10_000])
def test_training(timed, setup, variant, batch_size):
    if batch_size > 1000 and variant != REFERENCE and not (setup.full or setup.device == "cuda"):
        pytest.skip("takes long: with --full alone")
    run, data = setup.run(variant, batch_size=batch_size), setup.filled(batch_size)
    step = training_step(run, setup.variant(variant), data)
    beside = {"bound": setup.bound(step)}
    with suppress(NotImplementedError):
        beside["ordinary"] = ordinary_step(run, setup.variant(variant), data)
    timed(
        step,
        beside,
        items=batch_size,
        repeats=max(1, 1000 // batch_size),
        moved=setup.moved(run),
        kind="training",
        variant=variant,
        batch=batch_size,
    )


@pytest.mark.parametrize("batch_size", [100, 1000])
def test_compiled_training(timed, setup, variant, batch_size):
    """The step of a long training, beside the eager one and the ordinary loop."""
    run, data = setup.run(variant, batch_size=batch_size), setup.filled(batch_size)
    kind = setup.variant(variant)
    brief = (variant, batch_size) == (REFERENCE, 100)
    step = setup.compiled(lambda: training_step(run.with_(steps=LONG), kind, data), brief)
    eager = training_step(run, kind, data)
    beside = {"bound": setup.bound(eager), "lean": eager}
    with suppress(NotImplementedError):
        beside["ordinary"] = ordinary_step(run, kind, data)
    timed(
        step,
        beside,
        items=batch_size,
        repeats=max(1, 1000 // batch_size),
        moved=setup.moved(run),
        fewest=10 if setup.full else 2,
        kind="compiled",
        variant=variant,
        batch=batch_size,
    )


def test_training_by_estimator(timed, setup, variant, estimator, batch_size):
    run, passes = _admitted(setup, variant, estimator, batch_size)
    step = training_step(run, setup.variant(variant), setup.filled(batch_size))
    timed(
        step,
        {"bound": setup.bound(step)},
        items=batch_size,
        kind="estimator",
        variant=variant,
        estimator=estimator,
        samples=run.samples,
        passes=passes,
        batch=batch_size,
    )


def test_evaluation(timed, setup, variant):
    x = as_float(setup.data.test[:1000])
    action = evaluation(_model(setup, variant), x, generator(setup.device, "evaluation"))
    timed(action, {"bound": setup.bound(action)}, items=len(x), kind="evaluation", variant=variant)


def test_compiled_evaluation(timed, setup, variant):
    """As in the validations of a long training, beside the eager evaluation."""
    x, model = as_float(setup.data.test[:1000]), _model(setup, variant)
    noise = generator(setup.device, "evaluation")
    make = partial(evaluation, model, x, noise, compiled=True)
    compiled = setup.compiled(make, variant == REFERENCE)
    eager = evaluation(model, x, noise)
    timed(
        compiled,
        {"bound": setup.bound(eager), "lean": eager},
        items=len(x),
        kind="compiled_evaluation",
        variant=variant,
    )


def test_importance_bound(timed, setup, variant):
    model, k = _model(setup, variant), IMPORTANCE_SAMPLES
    if not isinstance(model, VAE):
        pytest.skip("a plain autoencoder has no posterior, so no bound")
    x = as_float(setup.data.test[:IMPORTANCE_IMAGES])
    action = importance_bound(model, x, generator(setup.device, "importance"), k)
    timed(
        action,
        {"bound": setup.bound(action)},
        items=k * len(x),
        kind="importance",
        variant=variant,
        K=k,
    )


def test_compiled_importance_bound(timed, setup, variant):
    """The bound as on a large test set, beside the eager one."""
    model, k = _model(setup, variant), IMPORTANCE_SAMPLES
    if not isinstance(model, VAE):
        pytest.skip("a plain autoencoder has no posterior, so no bound")
    x = as_float(setup.data.test[:IMPORTANCE_IMAGES])
    noise = generator(setup.device, "importance")
    make = partial(importance_bound, model, x, noise, k, compiled=True)
    compiled = setup.compiled(make, variant == REFERENCE)
    eager = importance_bound(model, x, noise, k)
    timed(
        compiled,
        {"bound": setup.bound(eager), "lean": eager},
        items=k * len(x),
        kind="compiled_importance",
        variant=variant,
        K=k,
    )


@pytest.mark.benchmark(timer=time.perf_counter)
def test_first_step_and_memory(benchmark, setup, variant):
    if variant != REFERENCE and not setup.full:
        pytest.skip("a fresh process takes long to start: with --full alone")
    # with --full `test_memory` measures the bound's memory, beside others'
    ks = MEMORY_SAMPLES if variant == REFERENCE and not setup.full else ()
    found = benchmark.pedantic(start, (setup.run(variant), setup.dataset, setup.data_dir, ks))
    benchmark.extra_info |= {"kind": "fresh", "variant": variant, **found}


@pytest.mark.benchmark(timer=time.perf_counter)
def test_first_step_and_memory_by_estimator(benchmark, setup, variant, estimator):
    if not setup.full:
        pytest.skip("a fresh process takes long to start: with --full alone")
    run, _ = _admitted(setup, variant, estimator, batch_size=100)
    found = benchmark.pedantic(start, (run, setup.dataset, setup.data_dir, ()))
    benchmark.extra_info |= {
        "kind": "fresh_estimator",
        "variant": variant,
        "estimator": estimator,
        "batch": 100,
        **found,
    }


def test_matrix_rate(timed, setup):
    action, flop = matrix_product(setup.device)
    timed(action, {}, items=flop, kind="matrix_rate")


def test_copy_bandwidth(timed, setup):
    action, moved = memory_copy(setup.device)
    timed(action, {}, items=moved, kind="copy_bandwidth")


def test_precision(timed, setup):
    """bf16 beside float32 on the reference variant."""
    run, data = setup.run(REFERENCE), setup.filled(100)
    step = training_step(run.with_(precision="bf16"), setup.variant(REFERENCE), data)
    float32 = training_step(run, setup.variant(REFERENCE), data)
    timed(step, {"float32": float32}, items=100, kind="precision", precision="bf16")


def test_stacked_training(timed, setup, variant):
    """All seeds at once, captured in a CUDA graph, beside one seed's lean and ordinary steps."""
    if setup.device != "cuda":
        pytest.skip("stacked training pays where kernels are launched faster than they run: CUDA")
    runs = [setup.run(variant).with_(seed=seed) for seed in range(SEEDS)]
    data, kind = setup.filled(100), setup.variant(variant)
    stack = Stack(runs, kind, data)
    indices = stack.indices()
    beside = {"lean": training_step(runs[0], kind, data)}
    beside["ordinary"] = ordinary_step(runs[0], kind, data)
    timed(
        lambda: stack(next(indices), runs[0].learning_rate, 1.0),
        beside,
        items=100 * SEEDS,
        repeats=50,
        kind="stacked",
        variant=variant,
        seeds=SEEDS,
    )


def _admitted(setup, variant: str, estimator: str, batch_size: int) -> tuple[Run, int]:
    """A run with the fewest samples the estimator admits, and its decoder passes an image.

    Skips the case, saying why, where it admits none or the passes are too many.
    """
    model, x = _model(setup, variant), as_float(setup.data.train[:1])
    try:
        samples = fewest_samples(estimator, model, x)
    except BenchError as error:
        pytest.skip(str(error))
    passes = admit(estimator, model.posterior(x), model.prior, samples).total
    if batch_size * passes > MOST_PASSES:
        pytest.skip(f"{batch_size * passes} decoder passes a step")
    changes = {"batch_size": batch_size, "estimator": estimator, "samples": samples}
    return setup.run(variant, **changes), passes


def _model(setup, variant):
    mean = as_float(setup.data.train).mean(0)
    return build(setup.run(variant), setup.variant(variant), mean).eval()
