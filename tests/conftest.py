"""Shared by all tests: shapes checked, one torch thread, a tiny data set, an executor."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path

import bench  # noqa: F401, before torch: see bench.machine.vector_instructions

# isort: split
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# before the first import of either: every call is checked against its signature's shapes
install_import_hook(["vaes", "bench.inference"], "beartype.beartype")
torch.set_num_threads(1)

# a fixture is made once for all inputs of a test, and the machine may be busy
PATIENT = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("test", max_examples=40, derandomize=True, **PATIENT)
settings.register_profile("fuzz", max_examples=500, **PATIENT)
settings.load_profile("test")


def pytest_terminal_summary(terminalreporter) -> None:
    """How many bad inputs were tried, by `counted` of tests/bad_input."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    ended = [report for report in reports if getattr(report, "when", None) == "teardown"]
    tried = sum(dict(report.user_properties).get("inputs", 0) for report in ended)
    failed = any(
        "bad_input" in report.nodeid for report in terminalreporter.stats.get("failed", ())
    )
    if tried:
        verdict = "see the failures" if failed else "no answer was a traceback"
        terminalreporter.write_line(f"{tried:,} bad inputs: {verdict}")


def pytest_addoption(parser: pytest.Parser) -> None:
    for name in ("--before", "--after"):
        parser.addoption(name, default=None, help="a folder of results, for test_unchanged.py")


class Inline(Executor):
    """Runs each task at once in this process: the runner sees only the executor's interface."""

    def submit(self, fn, /, *args, **kwargs) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def inline() -> Inline:
    return Inline()


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch) -> None:
    """No test takes a step that another has compiled, or only pretended to."""
    from bench.training import compiled

    monkeypatch.setattr(compiled, "_compiled", {})


@pytest.fixture
def in_process(monkeypatch, inline) -> None:
    """Pages are drawn in this process: the JavaScript engine starts once for all tests."""
    from bench.report import page

    monkeypatch.setattr(page.workers, "context", lambda: None)
    monkeypatch.setattr(page, "ProcessPoolExecutor", lambda *_, **__: inline)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_images(tmp_path)


def tiny_images(folder: Path) -> Path:
    """An .npz of 4 × 4 images: two noisy prototypes."""
    rng = np.random.default_rng(0)
    prototypes = rng.random((2, 16))

    def images(n: int) -> np.ndarray:
        noise = rng.normal(0, 0.15, (n, 16))
        return np.clip(prototypes[rng.integers(0, 2, n)] + noise, 0, 1).astype(np.float32)

    path = folder / "tiny.npz"
    np.savez(path, train=images(120), valid=images(20), test=images(30))
    return path
