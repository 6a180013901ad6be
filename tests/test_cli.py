"""Behaviour through the real command line: one clear line for every mistake, and resumption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench import cli

ROOT = Path(__file__).parents[1]


def run(capsys, monkeypatch, *arguments: object) -> tuple[int, str]:
    """Exit code and printed text of `python -m bench …` in this process."""
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
    monkeypatch.setattr(cli.console, "_width", 500, raising=False)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variants", "input_dependant"], "did you mean 'input_dependent'?"),
        (["--dataset", "minst"], "did you mean 'mnist'?"),
        (["--preset", "fulll"], "did you mean 'full'?"),
        (["--estimator", "pathwize"], "did you mean 'pathwise'?"),
        (["--questions", "headlines"], "did you mean 'headline'?"),
        (["--measurements", "headlines"], "did you mean 'headline'?"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda"], "no CUDA GPU"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--seeds", "five"], "--seeds"),
        (["--sedes", "5"], "--seeds"),
        (["--importance-samples", "1,ten"], "'1,ten'"),
        (["--precision", "bf61"], "did you mean 'bf16'?"),
        (["--dataset", "absent.npz"], "absent.npz"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(capsys, monkeypatch, tmp_path, arguments, words):
    if "cuda" in arguments:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = [] if "--dataset" in arguments else ["--dataset", "digits"]
    places = ["--cache", tmp_path / "c", "--results", tmp_path / "r"]
    code, text = run(capsys, monkeypatch, "run", *given, *places, *arguments)
    assert code == 2
    assert words in text
    assert text.startswith("error: ")
    assert "Traceback" not in text
    assert not (tmp_path / "r").exists()


def test_a_results_folder_that_cannot_be_written(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    code, text = run(
        capsys,
        monkeypatch,
        "run",
        "--dataset",
        "digits",
        "--cache",
        tmp_path / "c",
        "--results",
        tmp_path / "file",
    )
    assert code == 2
    assert "cannot be written" in text
    assert "--results" in text


def test_report_without_results(capsys, monkeypatch, tmp_path):
    code, text = run(capsys, monkeypatch, "report", "--results", tmp_path)
    assert code == 2
    assert "make bench" in text


def command(tiny: Path, folder: Path, jobs: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "bench",
        "run",
        "--dataset",
        str(tiny),
        "--preset",
        "quick",
        "--variants",
        "autoencoder,fixed_variance,input_dependent",
        "--questions",
        "headline",
        "--jobs",
        str(jobs),
        "--cache",
        str(folder / "cache"),
        "--results",
        str(folder / "results"),
    ]


def rows(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(next((folder / "results").glob("*/*/rows.csv.gz")))
    return table[table.metric != "training_seconds"].reset_index(drop=True)


def test_jobs_and_a_killed_run_leave_the_rows_bit_for_bit_the_same(tiny, tmp_path):
    """One uninterrupted run of one job against one of two jobs killed half-way and resumed."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    done = subprocess.run(command(tiny, straight, 1), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Results page:" in done.stdout

    process = subprocess.Popen(command(tiny, killed, 2), cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(list((killed / "cache").glob("*.run"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(list((killed / "cache").glob("*.run")))
    assert kept >= 3
    again = subprocess.run(command(tiny, killed, 2), cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 found in the cache" not in again.stdout
    pd.testing.assert_frame_equal(rows(straight), rows(killed))
    front = (killed / "results" / "README.md").read_text(encoding="utf-8")
    assert "What does the posterior's variance buy?" in front
    (page,) = killed.glob("results/*/*/README.md")
    assert "What the posterior's variance buys" in page.read_text(encoding="utf-8")
    for figure in ("elbo", "rate_distortion", "learning_curves", "fixed_variance_tuning"):
        assert list(killed.glob(f"results/*/*/figures/{figure}.png")), figure
