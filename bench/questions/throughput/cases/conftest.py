"""Options and fixtures of the throughput cases.

A case is timed in rounds; between two rounds its bound and its baseline take their turn, so that
a busy moment hits all of them and the ratios hold on a shared machine.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import bench  # noqa: F401, before torch: see bench.machine.vector_instructions

# isort: split
import pytest
import torch

from bench.config import REFERENCE, SIZES, Run, of_dataset
from bench.data.binarization import as_float
from bench.data.dataset import Dataset, load
from bench.errors import BenchError
from bench.grid.environment import machine
from bench.inference.gradients import ESTIMATORS
from bench.inference.native import NotCompiled
from bench.machine import vector_instructions
from bench.questions.throughput.actions import (
    Action,
    filled,
    memory_copy,
    products_of,
    synchronize,
)
from bench.training.loop import build
from bench.training.stacked import captured
from vaes import VAE, Autoencoder, discover

T = TypeVar("T")
FOUND = discover().variants
ROUNDS = (2, 20)
"""Fewest and most rounds of a case."""

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("throughput")
    group.addoption("--dataset", default="mnist5k", help="images whose shapes are timed")
    group.addoption("--data-dir", default=None, help="folder of the data files")
    group.addoption("--device", default="cpu", choices=("cpu", "cuda"))
    group.addoption("--variants", default=",".join(FOUND))
    group.addoption("--full", action="store_true", help="every estimator of every variant")
    group.addoption("--case-seconds", type=float, default=0.8, help="of timing a case")


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict:
    """What the numbers depend on; neither host nor user."""
    cuda = config.getoption("--device") == "cuda"
    return {
        "cpu": machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
        "avx512_chosen": vector_instructions.chosen(),
        "python": platform.python_version(),
        "load_average_at_start": os.getloadavg()[0],
    }


def pytest_benchmark_update_json(config: pytest.Config, benchmarks, output_json: dict) -> None:
    output_json["dataset"] = config.getoption("--dataset").rpartition("/")[2]
    output_json["device"] = config.getoption("--device")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """After the table of times, what the trick of the gradient's variance gains."""
    session = getattr(config, "_benchmarksession", None)
    for case in session.benchmarks if session else ():
        if "trick_ratio" in case.extra_info:
            terminalreporter.write_line(
                f"tr(C G) draws {case.extra_info['trick_ratio']:.0f} x the noise samples a second "
                "of brute-force backpropagation"
            )


@dataclass(frozen=True)
class Setup:
    """What the command line asked for."""

    dataset: str
    data_dir: str | None
    device: str
    data: Dataset
    full: bool

    def run(self, variant: str, **changes) -> Run:
        """A run of the headline shapes; of one step, so that no case is compiled unasked."""
        latent, hidden = of_dataset(SIZES, self.data.name)
        run = Run(variant, self.data.name, 0, 1, latent, hidden, steps=1, device=self.device)
        return run.with_(**changes)

    def filled(self, batch_size: int) -> Dataset:
        """The data in whole batches of that size."""
        return filled(self.data, batch_size)

    def compiled(self, make: Callable[[], T], brief: bool = False) -> T:
        """What `make` compiles; where it cannot be had the case is skipped, saying why.

        It takes long, so only what is `brief` is compiled without --full.
        """
        if self.device != "cpu":
            pytest.skip("compiled on a CPU alone")
        if not (brief or self.full):
            pytest.skip("compiling takes long: with --full alone")
        try:
            return make()
        except (BenchError, NotCompiled) as reason:
            pytest.skip(str(reason))

    def bound(self, action: Action) -> Action:
        """The action's matrix products alone; on a GPU one graph, so that no launch counts."""
        multiply = products_of(action).action()
        return captured(multiply, [torch.Generator(self.device)])

    def moved(self, run: Run) -> int:
        """Bytes that Adam must move in a step of the run: it reads the weights, two moments and
        the gradient, and writes all but the last."""
        mean = as_float(self.data.train[:1]).mean(0)
        weights = build(run, self.variant(run.variant), mean).parameters()
        return 7 * sum(w.numel() * w.element_size() for w in weights)

    def variant(self, name: str) -> type[Autoencoder]:
        return FOUND[name]


@pytest.fixture(scope="session")
def setup(request: pytest.FixtureRequest) -> Setup:
    option = request.config.getoption
    data = load(option("--dataset"), option("--data-dir")).to(option("--device"))
    places = option("--dataset"), option("--data-dir"), option("--device")
    return Setup(*places, data, option("--full"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case for each variant asked for, and for each estimator of the reference (or of all)."""
    variants = metafunc.config.getoption("--variants").split(",")
    if "estimator" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        shown = variants if full or REFERENCE not in variants else [REFERENCE]
        sizes = (100, 1000, 10_000) if full else (100,)
        metafunc.parametrize("variant", [v for v in shown if issubclass(FOUND[v], VAE)])
        metafunc.parametrize("estimator", ESTIMATORS)
        if "batch_size" in metafunc.fixturenames:
            metafunc.parametrize("batch_size", sizes)
    elif "variant" in metafunc.fixturenames:
        metafunc.parametrize("variant", variants)


@pytest.fixture
def timed(benchmark, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`timed(action, beside, items=…, repeats=…, **labels)` times `repeats` calls a round.

    `beside` maps `bound` and `ordinary` to the actions that take turns with it. Stored with the
    labels are seconds a call (median over rounds), and each companion's seconds and its ratio to
    the action (median over rounds). On a CPU seconds are this process's own.

    Where `moved` bytes are given, the roofline too: the bound, and these bytes at the bandwidth of
    a copy that takes its turn with the others.
    """
    device = request.config.getoption("--device")
    budget = request.config.getoption("--case-seconds")
    clock = time.perf_counter if device == "cuda" else time.process_time

    def seconds(action: Action, repeats: int) -> float:
        action()  # whoever had the turn before left the cache full of its own
        synchronize(device)
        started = clock()
        for _ in range(repeats):
            action()
        synchronize(device)
        return (clock() - started) / repeats

    def measure(
        action: Action,
        beside: Mapping[str, Action],
        items: int,
        repeats: int = 1,
        moved: int = 0,
        fewest: int = ROUNDS[0],
        **labels,
    ) -> None:
        copy, copied = memory_copy(device) if moved else (None, 0)
        actions = [action, *beside.values()]
        round_seconds = repeats * sum(seconds(each, 1) for each in actions)
        rounds = min(max(int(budget / round_seconds), fewest), ROUNDS[1])
        taken: dict[str, list[float]] = {name: [] for name in beside}
        moving: list[float] = []

        def take_turns() -> None:
            if copy is not None:
                moving.append(seconds(copy, 1) * moved / copied)
            for name, other in beside.items():
                taken[name].append(seconds(other, repeats))
            action()

        def target() -> None:
            for _ in range(repeats):
                action()
            synchronize(device)

        benchmark.pedantic(target, setup=take_turns, rounds=rounds)
        own = [t / repeats for t in benchmark.stats.stats.data]
        found = {"items": items, "seconds": statistics.median(own), "best_seconds": min(own)}
        for name, theirs in taken.items():
            ratios = [t / o for t, o in zip(theirs, own, strict=True)]
            found[f"{name}_seconds"] = statistics.median(theirs)
            found[f"{name}_ratio"] = statistics.median(ratios)
        if copy is not None:
            limits = zip(taken["bound"], moving, own, strict=True)
            found["moved_ratio"] = statistics.median(m / o for m, o in zip(moving, own))
            found["roofline_ratio"] = statistics.median((b + m) / o for b, m, o in limits)
        benchmark.extra_info |= labels | found

    return measure
