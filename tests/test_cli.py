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
from bench.errors import BenchError
from bench.report import page

ROOT = Path(__file__).parents[1]


def run(capsys, monkeypatch, *arguments: object) -> tuple[int, str]:
    """Exit code and printed text of `python -m bench …` in this process."""
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
    monkeypatch.setattr(cli.console, "_width", 500, raising=False)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out + captured.err


def test_check_tells_of_every_variant_named_and_of_a_file_anywhere(capsys, monkeypatch, tmp_path):
    code, text = run(capsys, monkeypatch, "check", "flow,autoencoder")
    assert code == 0, text
    assert text.count("ok     builds") == 2
    file = tmp_path / "mine.py"
    lines = ("from vaes import VAE", "class Mine(VAE):", "    def posterior(self, x):")
    file.write_text("\n".join((*lines, "        return self.encode(x)")), encoding="utf-8")
    code, text = run(capsys, monkeypatch, "check", file)
    assert code == 1
    assert "WRONG  has the shapes: posterior(x) returned Tensor" in text
    file.write_text("import nothing_like_it", encoding="utf-8")
    code, text = run(capsys, monkeypatch, "check", file)
    assert code == 2
    assert text.startswith(f"error: {file} is no variant: ModuleNotFoundError")


def test_a_file_holds_options_that_the_command_line_overrides(capsys, monkeypatch, tmp_path):
    """And the results keep it; what it cannot say is one line."""
    file = tmp_path / "my options.toml"
    lines = ("hidden = [6, 5]", "latent = 3", 'activation = "relu"', "batch-size = 50", "seeds = 1")
    file.write_text("\n".join(lines), encoding="utf-8")
    places = ["--cache", tmp_path / "c", "--results", tmp_path / "r"]
    given = ["--dataset", "digits", "--preset", "quick", "--variants", "input_dependent"]
    given += ["--questions", "headline", "--epochs", "1", "--jobs", "1", "--latent", "2", *places]
    code, text = run(capsys, monkeypatch, "run", f"--config={file}", *given)
    assert code == 0, text
    (folder,) = (tmp_path / "r").glob("*/cpu")
    name = "digits-epochs-1-latent_dim-2-hidden_dim-6-5-relu-batch_size-50-quick"
    assert folder.parent.name == name
    assert (folder / "config.toml").read_bytes() == file.read_bytes()
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "latent 2, hidden 6-5, activation relu, batch size 50" in page
    assert "--latent 2 --hidden 6,5 --activation relu --batch-size 50" in page
    file.write_text("lantent = 2", encoding="utf-8")
    code, text = run(capsys, monkeypatch, "run", "--config", file, *given)
    assert code == 2
    assert "did you mean --latent?" in text.lower()
    # names of commands are options all the same
    for text, said in (
        ('samples = "abc"', "--samples must be a whole number, not abc"),
        ("likelihood = 'nonsense'", "unknown likelihood 'nonsense'"),
        ("latent = 2.5", "--latent must be a whole number, not 2.5"),
        ("run = 3", 'unknown option: "[run]"'),
    ):
        file.write_text(text, encoding="utf-8")
        code, told = run(capsys, monkeypatch, "run", "--config", file, "--preset", "quick")
        assert code == 2, told
        assert said in told.replace("Unknown", "unknown")
    file.write_text("latent = ", encoding="utf-8")
    code, text = run(capsys, monkeypatch, "run", "--config", file, *given)
    assert code == 2
    assert "cannot be read as a TOML file" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variants", "input_dependant"], "did you mean 'input_dependent'?"),
        (["--dataset", "minst"], "did you mean 'mnist'?"),
        (["--preset", "fulll"], "unknown preset 'fulll': choose from default, quick, full"),
        (["--estimator", "pathwize"], "did you mean 'pathwise'?"),
        (["--questions", "headlines"], "did you mean 'headline'?"),
        (["--measurements", "headlines"], "did you mean 'headline'?"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda"], "no CUDA GPU"),
        (["--device", "gpu"], "did you mean 'cuda'?"),
        (["--questions", "throughput"], "it is timed by 'make throughput'"),
        (["--questions", "headline,tuning"], "it is made by 'make tune'"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--seeds", "five"], "--seeds must be a whole number, not five"),
        (["--beta", "strong"], "--beta must be a number, not strong"),
        (["--seeds", "1.5"], "--seeds must be a whole number, not 1.5"),
        (["--samples", "2.7"], "--samples must be a whole number, not 2.7"),
        (["--questions", ""], "no question named"),
        (["--hyperparameters", "scale"], "names and numbers, e.g. 'scale=0.3'"),
        (["--hyperparameters", "scale=nan"], "names and numbers"),
        (["--hyperparameters", "scale=1,scale=2"], "names and numbers"),
        (["--hyperparameters", "scael=0.3"], "did you mean 'scale'?"),
        (["--hyperparameters", "scale=-1"], "--hyperparameters scale must be above 0, not -1"),
        (
            ["--variants", "flow", "--hyperparameters", "scale=1"],
            "no variant named has a hyperparameter 'scale'",
        ),
        (["--dataset", "digits", "--train-size", "9999"], "more than the 1,297 training images"),
        (["--optimizer", "sgd", "--epsilon", "1e-2"], "--optimizer sgd has no --epsilon"),
        (["--optimizer", "rmsprop", "--betas", "0.5,0.99"], "leave the first at 0.9"),
        (["--free-bits", "0.1", "--beta", "0"], "--beta 0 leaves no KL of which"),
        (["--kl-warmup-epochs", "1", "--beta", "0"], "--beta 0 leaves no KL to warm up to"),
        (
            ["--variants", "autoencoder", "--beta", "4", "--prior", "vamp"],
            "nothing changes by --beta and --prior",
        ),
        (
            ["--variants", "full_covariance", "--prior", "vamp", "--estimator", "pathwise"],
            "use --estimator pathwise_sampled_kl",
        ),
        (["--sedes", "5"], "--seeds"),
        (["digits"], "no option takes 'digits': give each value after its option"),
        (["--device", ","], "no device named: choose from auto, cpu, cuda"),
        (["--variants", str(ROOT / "vaes/flow.py")], "flow.py is the variant 'flow': name it so"),
        (["--importance-samples", "1,ten"], "'1,ten'"),
        (["--precision", "bf61"], "did you mean 'bf16'?"),
        (["--dataset", "absent.npz"], "absent.npz"),
        (["--latent", "0"], "--latent must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--beta", "-1"], "--beta must be at least 0"),
        (["--hidden", "200,x"], "e.g. '200' or '512,256'"),
        (["--hidden", "200,0"], "e.g. '200' or '512,256'"),
        (["--activation", "rleu"], "did you mean 'relu'?"),
        (["--epochs", "5", "--kl-warmup-epochs", "6"], "longer than the training of 5 epochs"),
        (["--likelihood", "continuous_bernoulli"], "add --binarize none"),
        (["--dataset", "ppca", "--likelihood", "continuous_bernoulli"], "--likelihood gaussian"),
        (["--prior", "vmap"], "did you mean 'vamp'?"),
        (["--optimizer", "adm"], "did you mean 'adam'?"),
        (["--betas", "0.9"], "--betas '0.9' must be two numbers"),
        (["--betas", "0.9,1"], "from 0 to below 1"),
        (["--epsilon", "0"], "--epsilon must be above 0"),
        (["--epsilon", "nan"], "--epsilon must be above 0"),
        (["--free-bits", "nan"], "--free-bits must be at least 0, not nan"),
        (["--schedule", "cosin"], "did you mean 'cosine'?"),
        (["--schedule", "exponential"], "e.g. exponential:3000"),
        (["--early-stopping", "5"], "add --schedule constant"),
        (["--objective", "iwea"], "did you mean 'iwae'?"),
        (["--objective", "iwae", "--estimator", "rloo"], "use one of iwae, dreg"),
        (["--gated", "--activation", "relu"], "drop one of the two"),
        (["--training-split", "all"], "unknown training split 'all'"),
        (["--training-split", "train+valid"], "add --learning-rate"),
        (
            ["--training-split", "train+valid", "--learning-rate", "1e-3"],
            "add --binarize threshold or none",
        ),
        (["--free-bits", "0.1"], "variant 'full_covariance' cannot be trained so: pathwise"),
        (["--estimator", "pathwise"], "variant 'flow' cannot be trained so: pathwise with S = 1"),
        (["--estimator", "rloo"], "rloo with S = 1: its baseline is the other samples"),
        (["--variants", "absent.py"], "absent.py does not exist"),
        (["--likelihood", "gaussian"], "--likelihood continuous_bernoulli --binarize none"),
        (["--dataset", "~nosuchuser/x.npz"], "check the path"),
        (["--dataset", "vaes"], "vaes is a folder without images"),
        (["--dataset", "."], "its own name"),
        (["--config", "absent.toml"], "--config absent.toml does not exist: name a TOML file"),
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


def test_there_is_no_version_flag_but_an_error(capsys, monkeypatch):
    code, text = run(capsys, monkeypatch, "--version")
    assert code == 2
    assert text.startswith("error: Unknown command")


def test_a_page_of_somebody_elses_is_never_replaced(capsys, monkeypatch, tmp_path):
    own = tmp_path / "README.md"
    own.write_text("# Mine")
    places = ("--cache", tmp_path / "c", "--results", tmp_path)
    code, text = run(capsys, monkeypatch, "run", "--dataset", "digits", *places)
    assert code == 2
    assert "is no page of results and would be replaced" in text
    assert [*tmp_path.iterdir()] == [own]
    own.write_text("# Results\n")
    page.refuse_foreign(tmp_path)
    (tmp_path / "index.html").write_text("<!doctype html><title>Mine</title>")
    with pytest.raises(BenchError, match="would be replaced"):
        page.refuse_foreign(tmp_path)


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


@pytest.mark.slow
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
