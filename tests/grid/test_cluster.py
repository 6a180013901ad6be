"""A grid on a real Dask cluster on this machine: the rows of a local run, whatever is lost.

Skipped where the optional extra is not installed. Its workers start in a folder of their own, so
that they find nothing of the project but what they are sent.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from bench import cli
from bench.config import PRESETS
from bench.data.dataset import Dataset, load
from bench.errors import BenchError
from bench.grid import cluster, remote
from bench.grid import outcome as outcomes
from bench.grid.cluster import Cluster
from bench.grid.environment import of_workers
from bench.grid.progress import Progress
from bench.grid.runner import execute
from bench.grid.tasks import Grid
from bench.questions import named
from bench.report import rows as tidy

distributed = pytest.importorskip("distributed", reason="needs requirements-cluster.lock")

ROOT = Path(__file__).parents[2]
DASK = Path(sys.executable).with_name("dask")
VARIANT = """
import time
from vaes.input_dependent import InputDependent

class Slow(InputDependent):
    def encode(self, x):
        time.sleep(0.01)
        return super().encode(x)
"""


class Machines:
    """A scheduler and its workers, each a process started in a folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.address = folder, f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        )
        self.workers: list[subprocess.Popen] = []

    def _start(self, *words: str) -> subprocess.Popen:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [DASK, *words], cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def start_worker(self, threads: int = 1) -> subprocess.Popen:
        words = ("--nthreads", str(threads), "--no-nanny", "--no-dashboard")
        self.workers.append(self._start("worker", self.address, *words))
        return self.workers[-1]

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@contextmanager
def machines(folder: Path, workers: int) -> Iterator[Machines]:
    started = Machines(folder)
    try:
        for _ in range(workers):
            started.start_worker()
        with distributed.Client(started.address, timeout=60, set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers, timeout=60)
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Iterator[Machines]:
    with machines(tmp_path_factory.mktemp("machines"), workers=2) as started:
        yield started


@pytest.fixture
def grid(tmp_path) -> Grid:
    return Grid(
        "digits",
        ("input_dependent",),
        2,
        PRESETS["quick"],
        overrides=(("epochs", 2), ("latent_dim", 2), ("hidden_dim", 8)),
        cache=tmp_path / "cache",
        questions=named(["headline"]),
    )


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def on(said) -> Callable[..., outcomes.Outcome]:
    """`on(machines, grid)` runs a grid there; `told` is called with its reports."""

    def run(where: Machines, grid: Grid, data: Dataset | None = None, told=lambda *_: None):
        data = data or load(grid.dataset)
        progress = Progress(Console(file=said, width=300))
        heard = progress.hear
        progress.hear = lambda *message: heard(*message) or told("heard", *message)
        with Cluster(where.address, grid, data, progress) as pool:
            return execute(grid, data, pool, told)

    return run


def rows_of(grid: Grid, outcome: outcomes.Outcome) -> pd.DataFrame:
    assert not outcome.failures
    table = tidy.frame(outcomes.rows(grid, outcome))
    return table[table.unit != "s"].reset_index(drop=True)


def here(grid: Grid, inline) -> pd.DataFrame:
    """The rows of a local run."""
    grid = replace(grid, cache=grid.cache.with_name("local"))
    return rows_of(grid, execute(grid, load(grid.dataset), inline))


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_rows_are_those_of_a_local_run_and_are_kept_here(two, grid, on, inline):
    outcome = on(two, grid)
    expected = here(grid, inline)
    same(rows_of(grid, outcome), expected)
    assert outcome.executed == 4
    assert len(list(grid.cache.glob("*.run"))) == 4
    again = execute(grid, load(grid.dataset), inline)
    assert (again.executed, again.cached) == (0, 4)
    same(rows_of(grid, again), expected)


def test_no_folder_need_be_shared_and_a_run_goes_on_from_what_is_cached(
    two, grid, on, inline, monkeypatch
):
    """Trainings that were found here are sent to be measured; nothing is left on a worker."""
    monkeypatch.setattr(Path, "touch", lambda path: None)  # what shows that the cache is shared
    same(rows_of(grid, on(two, grid)), here(grid, inline))
    stored = sorted(grid.cache.glob("*.run"), key=lambda path: path.stat().st_size)
    assert len(stored) == 4
    for measured in stored[:2]:
        measured.unlink()
    outcome = on(two, grid)
    assert (outcome.executed, outcome.cached) == (2, 2)
    same(rows_of(grid, outcome), here(grid, inline))
    assert not list(two.folder.rglob("*.run"))


def test_data_and_variants_of_ones_own_are_sent(two, grid, tiny, on, inline, tmp_path):
    elsewhere = tmp_path / "slow.py"
    elsewhere.write_text(VARIANT)
    own = replace(grid, dataset=str(tiny), variants=("slow",), seeds=1, files=(elsewhere,))
    data, expected = load(own.dataset), here(own, inline)
    tiny.unlink()
    outcome = on(two, own, data, told=lambda *_: elsewhere.unlink(missing_ok=True))
    same(rows_of(own, outcome), expected)


def test_progress_and_environment_name_the_workers(two, grid, on, said):
    told = []
    outcome = on(two, grid, told=lambda *news: told.append(news))
    workers = {entry["worker"] for event, _, entry in told if event == "heard"}
    assert workers
    assert workers <= outcome.workers.keys()
    assert said.getvalue().startswith(f"2 workers of the cluster at {two.address}")
    described = of_workers(outcome.workers.values())
    assert described["cores"] == len(outcome.workers)
    assert described["cpu"] == next(iter(outcome.workers.values()))["cpu"]
    assert sum(kind["workers"] for kind in described["workers"]) == len(outcome.workers)
    assert not any("tcp:" in str(value) for value in described.values())


def test_a_worker_that_will_not_do_ends_the_run_in_one_line(two, grid, on, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(BenchError, match=r"has torch .*, and this machine 1\.0: install") as caught:
        on(two, grid)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{free}", "tcp://127.0.0.1:{deaf}", "host"])
def test_a_scheduler_that_does_not_answer_is_one_line_within_seconds(
    address, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with socket.socket() as deaf, socket.socket() as free:
        for end in (deaf, free):
            end.bind(("127.0.0.1", 0))
        deaf.listen()
        port = {"deaf": deaf.getsockname()[1], "free": free.getsockname()[1]}
        words = ["run", "--dataset", "digits", "--preset", "quick", "--engine", "dask"]
        words += ["--scheduler", address.format(**port), "--questions", "headline"]
        words += ["--cache", str(tmp_path), "--results", str(tmp_path)]
        started = time.monotonic()
        with pytest.raises(BenchError, match=r"no Dask scheduler answers.*: start one") as caught:
            cli.app(words, exit_on_error=False, print_error=False)
        assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 20 * cluster.PATIENCE


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--engine", "dusk"], "did you mean 'dask'"),
        (["--engine", "dask"], "needs --scheduler"),
        (["--scheduler", "tcp://host:1"], "add --engine dask"),
    ],
)
def test_an_engine_that_lacks_something_is_one_line(words, line):
    with pytest.raises(BenchError, match=line):
        cli.app(["run", *words], exit_on_error=False, print_error=False)


def test_without_the_extra_it_is_one_line(grid, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BenchError, match=r"make ENGINE=dask"):
        Cluster("tcp://127.0.0.1:1", grid, load("digits"), Progress(Console(quiet=True)))


def test_the_lock_has_what_is_declared_and_replaces_nothing():
    def pinned(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {line.partition("==")[0] for line in lines if not line.startswith("#")}

    extra = pinned("requirements-cluster.lock")
    assert not extra & pinned("requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {d.partition(">=")[0] for d in project["optional-dependencies"]["cluster"]} <= extra


def test_make_installs_the_extra_only_when_asked(tmp_path):
    def planned(*arguments: str) -> str:
        command = ["make", "--dry-run", f"VENV={tmp_path}", "bench", *arguments]
        outer = ("MAKE", "MFLAGS", "BENCH_ARG")  # `make test` hands down its own
        own = {name: v for name, v in os.environ.items() if not name.startswith(outer)}
        return subprocess.run(
            command, cwd=ROOT, env=own, capture_output=True, text=True, check=True
        ).stdout

    assert "requirements-cluster.lock" not in planned()
    assert "--no-deps -r requirements-cluster.lock" in planned("ENGINE=dask", "SCHEDULER=tcp://h:1")


# --- what is lost ----------------------------------------------------------------------------


@pytest.fixture
def slow(grid, tmp_path) -> Grid:
    """Trainings of some seconds each."""
    elsewhere = tmp_path / "slow.py"
    elsewhere.write_text(VARIANT)
    overrides = (*grid.overrides, ("epochs", 8))
    return replace(grid, variants=("slow",), seeds=4, files=(elsewhere,), overrides=overrides)


@pytest.mark.slow
def test_a_killed_workers_tasks_are_done_by_one_that_joins_late(slow, on, inline, tmp_path):
    expected = here(slow, inline)
    with machines(tmp_path, workers=1) as changing:
        first, late = changing.workers[0], []

        def told(event: str, *_: object) -> None:
            if event == "heard" and not late:  # in the middle of a training
                late.append(changing.start_worker())
                first.kill()

        outcome = on(changing, slow, told=told)
        same(rows_of(slow, outcome), expected)
        assert first.wait() < 0
        assert (outcome.executed, len(outcome.workers)) == (8, 1)


@pytest.mark.slow
def test_a_scheduler_that_is_lost_is_one_line_and_another_goes_on(slow, on, inline, tmp_path):
    with machines(tmp_path, workers=2) as lost:

        def told(event: str, *_: object) -> None:
            if event == "finished":
                lost.scheduler.kill()

        with pytest.raises(BenchError, match=r"scheduler at .* is gone: start it") as caught:
            on(lost, slow, told=told)
        assert "\n" not in str(caught.value)
    with machines(tmp_path, workers=1) as another:
        outcome = on(another, slow)
    assert outcome.cached >= 1
    same(rows_of(slow, outcome), here(slow, inline))


@pytest.mark.slow
def test_workers_of_several_threads_are_refused(grid, on, tmp_path):
    with machines(tmp_path, workers=0) as wide:
        wide.start_worker(threads=2)
        with pytest.raises(BenchError, match=r"has 2 threads.*--nthreads 1"):
            on(wide, grid)


# --- without a cluster -----------------------------------------------------------------------


def test_a_worker_tells_of_its_epochs_now_and_then(monkeypatch):
    logged = []

    class Worker:
        address = "tcp://w"
        log_event = staticmethod(lambda topic, message: logged.append((topic, message)))

    monkeypatch.setattr("distributed.get_worker", Worker)
    topic = remote._Topic("t")
    for epoch in range(3):
        topic.put(("label", {"epoch": epoch}))
    assert logged == [("t", ("label", {"epoch": 0, "worker": "tcp://w"}))]


def test_the_function_sent_travels_by_its_code():
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(remote.unpacked_and_done())
