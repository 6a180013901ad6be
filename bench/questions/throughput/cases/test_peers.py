"""The training step and log p(x) beside pythae, JAX and torch.compile, on one core and in turns.

Every contestant starts from the same weights and trains on the same images. A call is one epoch of
at most `IMAGES` images, since pythae's trainer and a jitted scan know no single step. All are in
this process, held to one core where the system can; seconds are the process's own, all threads
included, so that nobody's second thread is free and other processes do not count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import pytest

from bench.config import REFERENCE, Run
from bench.data.binarization import as_float
from bench.data.dataset import Dataset
from bench.errors import one_line
from bench.questions.throughput.actions import (
    Action,
    filled,
    importance_bound,
    ordinary_step,
    training_step,
)
from bench.questions.throughput.parts import LONG
from bench.questions.throughput.rivals import RIVALS, one_hidden_layer, pythae_log_likelihood
from bench.questions.throughput.run_cases import LIBRARIES
from bench.randomness import generator
from bench.training.loop import build
from vaes import VAE

IMAGES = 5000
IMPORTANCE_IMAGES, IMPORTANCE_SAMPLES = 10, 1000
PATIENCE = 20
"""Times as long as for another case: a round has five contestants and a whole epoch of each."""
NETWORKS = ("two_hidden_layers", "one_hidden_layer")


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Threads that a library starts from here on stay on the core too."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def patient(request: pytest.FixtureRequest) -> Iterator[None]:
    """More time for a case; `timed` reads the option when it is made."""
    option = request.config.option
    before = option.case_seconds
    option.case_seconds = PATIENCE * before
    yield
    option.case_seconds = before


@pytest.mark.parametrize("batch_size", [100, 1000])
@pytest.mark.parametrize("layers", NETWORKS)
def test_peer_training(patient, timed, setup, layers, batch_size):
    run, kind, network = _network(setup, layers)
    run, data = run.with_(batch_size=batch_size, steps=LONG), _images(setup, batch_size)
    steps = len(data.train) // batch_size
    ours = _epoch(setup.compiled(lambda: training_step(run, kind, data), brief=True), steps)
    bound = setup.bound(training_step(run.with_(steps=1), kind, data))  # compiled, none is seen
    beside = {"bound": _epoch(bound, steps)}
    beside["ordinary"], missing = _epoch(ordinary_step(run, kind, data), steps), {}
    for name, rival in RIVALS.items():
        model = _model(run, kind, data)
        found = _unless_it_fails(partial(rival, model, data.train, batch_size))
        (missing if isinstance(found, str) else beside)[name] = found
    timed(
        ours,
        beside,
        items=len(data.train),
        kind="peer",
        network=network,
        batch=batch_size,
        missing=missing,
        versions=_versions(),
    )


@pytest.mark.parametrize("layers", NETWORKS)
def test_peer_log_likelihood(patient, timed, setup, layers):
    """Our IW bound, compiled as on a large test set, beside pythae's `get_nll`."""
    run, kind, network = _network(setup, layers)
    model, k = _model(run, kind, setup.data).eval(), IMPORTANCE_SAMPLES
    x = as_float(setup.data.test[:IMPORTANCE_IMAGES])
    noise = generator(setup.device, "importance")
    make = partial(importance_bound, model, x, noise, k, compiled=True)
    ours = setup.compiled(make, brief=True)
    theirs = _unless_it_fails(partial(pythae_log_likelihood, model, x, k))
    failed = isinstance(theirs, str)
    bound = setup.bound(importance_bound(model, x, noise, k))
    timed(
        ours,
        {"bound": bound} if failed else {"bound": bound, "pythae": theirs},
        items=k * len(x),
        kind="peer_nll",
        network=network,
        K=k,
        missing={"pythae": theirs} if failed else {},
    )


def _network(setup, layers: str) -> tuple[Run, type[VAE], str]:
    """A run of the reference, its class, and the networks as `784-400-20`."""
    run, kind = setup.run(REFERENCE), setup.variant(REFERENCE)
    if layers == NETWORKS[0]:
        sizes = (run.hidden_dim, run.hidden_dim)
    else:
        run, kind = run.with_(hidden_dim=2 * run.hidden_dim), one_hidden_layer(kind)
        sizes = (run.hidden_dim,)
    sizes = (setup.data.train.shape[1], *sizes, run.latent_dim)
    return run, kind, "-".join(map(str, sizes))


def _images(setup, batch_size: int) -> Dataset:
    return filled(replace(setup.data, train=setup.data.train[:IMAGES]), batch_size)


def _model(run: Run, kind: type[VAE], data: Dataset) -> VAE:
    return build(run, kind, as_float(data.train).mean(0))


def _epoch(step: Action, steps: int) -> Action:
    def epoch() -> None:
        for _ in range(steps):
            step()

    return epoch


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _unless_it_fails(build_action: Callable[[], Action]) -> Action | str:
    """The action after its first call, or why there is none.

    Whatever a library does wrong, it must not lose the timings of the others.
    """
    try:
        action = build_action()
        action()
        return action
    except Exception as error:
        return f"{type(error).__name__}: {one_line(error)}"
