"""What tests of bad input share: the command line in this process, where no work is ever begun."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import cli
from bench.commands import contestants, new_variant, run, validation
from bench.commands.gpu_check import command as gpu_check
from bench.data import files
from bench.errors import BenchError
from bench.questions.throughput import run_cases

BEGUN = "begun"
"""In place of an exit code: nothing was wrong with what was asked for, and work would begin."""


@pytest.fixture
def counted(record_property) -> Callable[[], None]:
    """To be called once an input; the sum stands at the end of a run of the tests."""
    inputs = []
    yield lambda: inputs.append(None)
    record_property("inputs", len(inputs))


@pytest.fixture
def answer(monkeypatch, capsys, tmp_path, counted) -> Callable[..., tuple[int, str]]:
    """Exit code and text of `python -m bench …` in an empty folder; work and downloads are not
    begun. Asserts that no answer is a traceback, that one of code 2 is one line, and that it
    leaves nothing behind."""

    def begin(*_: object, **__: object) -> None:
        raise SystemExit(BEGUN)

    def download(*_: object) -> None:
        raise BenchError("no network here")

    for module, name in (
        (run, "_run_grid"),
        (validation, "_executed"),
        (gpu_check, "_run"),
        (run_cases, "run_cases"),
    ):
        monkeypatch.setattr(module, name, begin)
    monkeypatch.setattr(files, "_download", download)
    monkeypatch.setattr(new_variant.new_variant, "__defaults__", (tmp_path,))
    monkeypatch.setattr(cli.console, "_width", 500, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        counted()
        before = left_in(tmp_path)
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        told = capsys.readouterr()
        text = told.out + told.err
        assert code in (0, 1, 2, BEGUN), text
        assert "Traceback" not in text
        if code == 2:
            assert [line.startswith("error: ") for line in text.splitlines()][-1], text
            assert text.count("error: ") >= 1
            assert left_in(tmp_path) == before
        return code, text

    return call


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """Variants are taken to fulfil their contract: they are not what is tested."""
    monkeypatch.setattr(contestants, "problems", lambda variant: {})


def left_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.name != "cache"}
