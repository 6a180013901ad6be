"""The command for a GPU, rehearsed: its steps, what it says, and that it ends with what it has."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bench.commands.gpu_check import command, steps
from bench.commands.gpu_check.steps import Check, Step
from bench.errors import BenchError
from bench.questions.throughput.files import FILE, STATISTICS, joined, stored


def called(**options) -> tuple[int, str]:
    asked = {"device": "cpu", "dataset": "digits", "variants": "autoencoder", "preset": "quick"}
    text = io.StringIO()
    console = Console(file=text, width=300, highlight=False)
    asked |= {"minutes": 1.0, "results": None, **options}
    return command.gpu_check(**asked, console=console), text.getvalue()


@pytest.fixture
def check(tmp_path) -> Check:
    found = Check("cpu", "digits", ("autoencoder", "flow"), "quick", 0.5, str(tmp_path))
    found.folder.mkdir(parents=True)
    return found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(BenchError, match="no CUDA device: rehearse with --device cpu"):
        called(device="cuda")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "--device tpu: must be cuda"),
        ({"results": command.COMMITTED}, "must not write into results/"),
        ({"dataset": "ppca"}, "not on 'ppca'"),
        ({"dataset": "digit"}, "digits"),
        ({"variants": "none"}, "unknown variant 'none'"),
    ],
)
def test_a_mistake_is_one_line(options, message):
    with pytest.raises(BenchError, match=message):
        called(**options)


def one(name: str) -> Step:
    (step,) = (step for step in steps.STEPS if step.name == name)
    return step


def test_the_command_rehearses_and_ends_in_time(tmp_path):
    """By the command line, with time for a few steps alone: the rest is said to be left out."""
    words = [sys.executable, "-m", "bench", "gpu-check", "--device", "cpu", "--dataset", "digits"]
    words += ["--variants", "autoencoder", "--preset", "quick", "--minutes", "0.2"]
    started = time.monotonic()
    done = subprocess.run(
        [*words, "--results", str(tmp_path)],
        cwd=steps.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert time.monotonic() - started < 60
    assert done.returncode == 1
    log = (tmp_path / "digits" / "cpu" / command.LOG).read_text()
    assert log.split() == done.stdout.split()
    for step in steps.STEPS:
        assert f"{step.name}: " in log
    *_, good, bad = log.splitlines()
    assert good.startswith("rehearsed, proving nothing: ")
    assert "out of time" in bad


def test_what_a_step_finds_is_kept_where_it_fails_or_hangs(check, monkeypatch):
    """Real processes: one that hangs with a child is ended, and the next step goes on."""
    said: list[str] = []
    start = "import sys, subprocess; print('found', flush=True); "
    endings = {
        "hangs": "subprocess.run(['sleep', '60'])",
        "is not so": "print('not so: 1 < 20'); sys.exit(3)",
        "breaks": "raise RuntimeError('no such kernel')",
        "is good": "",
    }
    real = subprocess.Popen

    def popen(command, **options):
        return real([sys.executable, "-c", start + endings[command[3]]], **options)

    monkeypatch.setattr(command.subprocess, "Popen", popen)
    states = {}
    for name in endings:
        step = Step(name, 1, steps.gpu_tests)
        states[name] = command._attempt(step, check, 3 if name == "hangs" else 60, said.append)
    assert states == {
        "hangs": "out of time",
        "is not so": "failed",
        "breaks": "failed",
        "is good": "",
    }
    assert said.count("  found") == 4
    assert "  | RuntimeError: no such kernel" in said


def test_stacked_seeds_must_gain_enough():
    case = {"variant": "flow", "items": 500, "ordinary_ratio": 4.4, "lean_ratio": 1.1}
    (line,) = steps.too_slow([case], ("flow",))
    assert line == "flow: 22.0 x the ordinary loop, 5.5 x the lean loop"
    slow = case | {"lean_ratio": 0.9, "ordinary_ratio": float("nan")}
    with pytest.raises(BenchError, match=r"nan x the ordinary loop, not 20; flow 4\.5 x the lean"):
        list(steps.too_slow([slow], ("flow",)))
    with pytest.raises(BenchError, match="autoencoder was not timed"):
        list(steps.too_slow([case], ("autoencoder", "flow")))


def test_captured_steps_agree_with_themselves(check, monkeypatch):
    monkeypatch.setattr(steps, "SAME_STEPS", 5)
    found = list(steps.captured_graphs(check))
    assert [line.split(":")[0] for line in found] == ["autoencoder", "flow"]
    assert all("within 0.0e+00" in line for line in found)
    whole = steps.Stack._step
    monkeypatch.setattr(steps.Stack, "_step", lambda stack, index: 1.01 * whole(stack, index))
    monkeypatch.setattr(steps.Stack, "__call__", lambda stack, index, *_: whole(stack, index))
    with pytest.raises(BenchError, match="captured losses differ"):
        list(steps.captured_graphs(check))


def test_devices_that_agree_agree_and_others_do_not(check, monkeypatch):
    one = Check(**vars(check) | {"variants": ("input_dependent",)})
    found = list(steps.agreement_with_the_cpu(one))
    assert "the same weights within 0.0e+00 an image" in found[0]
    assert "cpu - cpu, " in found[0]
    whole = steps._trained

    def worse(runs, kind, data):
        return whole([run.with_(learning_rate=1e-5) for run in runs], kind, data)

    monkeypatch.setattr(steps, "_trained", worse)
    with pytest.raises(BenchError, match="input_dependent: trainings differ"):
        list(steps.agreement_with_the_cpu(one))


def test_cases_timed_in_groups_are_stored_together(check, monkeypatch):
    def run_cases(folder: Path, *_, only: str, **__) -> None:
        if only == "skipped":
            return
        statistics = dict.fromkeys(STATISTICS, 1)
        cases = [
            {"name": name, "stats": statistics, "extra_info": {"kind": only}}
            for name in (only, "shared")
        ]
        found = {"benchmarks": cases, "machine_info": {}}
        if (folder / FILE).exists():
            found = joined(stored(folder / FILE), found)
        (folder / FILE).write_text(json.dumps(found))

    monkeypatch.setattr(steps.timing, "run_cases", run_cases)
    assert steps._timed(check, "skipped") == []
    assert len(steps._timed(check, "a")) == 2
    steps._timed(check, "b")
    cases = json.loads((check.folder / FILE).read_text())["benchmarks"]
    assert [(c["name"], c["extra_info"]["kind"]) for c in cases] == [
        ("a", "a"),
        ("b", "b"),
        ("shared", "b"),
    ]
