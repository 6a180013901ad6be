"""What a run leaves in its folder: partial runs merge, nothing is lost, "again" is true."""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from bench import cli
from bench.commands import arguments, contestants, report, run
from bench.config import PRESETS
from bench.errors import BenchError
from bench.grid import recorded, tasks
from bench.options import Config
from bench.report import page_cache, results
from vaes import VAE, Discovery, discover
from vaes.base import diagonal_gaussian

VARIANTS = "autoencoder,input_dependent"


@pytest.fixture
def bench(tiny, tmp_path, inline, monkeypatch, in_process):
    """`bench(questions="headline", …)` runs in this process; its exit code and what it said."""
    monkeypatch.setattr(run, "Workers", lambda *arguments: inline)

    def call(**options) -> tuple[int, str]:
        asked = {"dataset": str(tiny), "preset": "quick", "variants": VARIANTS, "seeds": 1}
        asked |= {"results": tmp_path / "results", "cache": tmp_path / "cache", **options}
        text = io.StringIO()
        console = Console(file=text, width=300, highlight=False)
        return run.run(Config(**asked), console), text.getvalue()

    return call


@pytest.fixture
def folder(tmp_path):
    """The one folder of results there is."""

    def find() -> Path:
        (path,) = (tmp_path / "results").glob("*/*/rows.csv.gz")
        return path.parent

    return find


def test_partial_runs_merge(bench, folder):
    code, text = bench(questions="headline")
    assert code == 0, text
    headline = results.read(folder()).of("headline")
    assert bench(questions="loss_noise", variants="input_dependent")[0] == 0
    both = results.read(folder())
    assert not both.problems
    assert len(both.of("headline")) == len(headline) > 0
    assert len(both.of("loss_noise")) > 0
    assert set(both.variants()) == {"autoencoder", "input_dependent"}
    assert [run["questions"] for run in both.environment["runs"]] == [["headline"], ["loss_noise"]]


def test_a_run_replaces_what_it_measures_anew(bench, folder):
    bench(questions="headline", seeds=2)
    bench(questions="headline", variants="input_dependent", seeds=1)
    stored = results.read(folder())
    by_variant = stored.of("headline", "distortion").groupby("variant").seed.nunique()
    assert by_variant.to_dict() == {"autoencoder": 2, "input_dependent": 1}
    assert stored.history.groupby("variant").seed.nunique().to_dict() == by_variant.to_dict()


def test_a_second_run_changes_no_file_and_asks_no_folder_again(bench, folder, monkeypatch):
    bench(questions="headline")
    root = folder().parents[1]
    first = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    loaded, load = [], page_cache.load

    def told(*which):
        loaded.append(load(*which) is not None)
        return load(*which)

    monkeypatch.setattr(page_cache, "load", told)
    monkeypatch.setattr("os.getloadavg", lambda: (123.0, 0.0, 0.0))
    bench(questions="headline")
    second = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert [p for p in {*first, *second} if first.get(p) != second.get(p)] == []
    assert loaded == [True]


def test_other_settings_have_a_folder_of_their_own(bench, tmp_path):
    bench(questions="headline")
    bench(questions="headline", epochs=1)
    bench(questions="headline", importance_samples="1,5")
    names = sorted(path.parent.name for path in (tmp_path / "results").glob("*/cpu"))
    assert len(names) == 3
    assert any("epochs-1" in name for name in names)
    assert any("K-1,5" in name for name in names)


def test_two_files_of_one_name_do_not_share_a_folder(bench, tiny, tmp_path):
    other = tmp_path / "elsewhere" / tiny.name
    other.parent.mkdir()
    arrays = dict(np.load(tiny))
    np.savez(other, **(arrays | {"test": arrays["test"][::-1]}))
    bench(questions="headline")
    bench(questions="headline", dataset=str(other))
    assert len(list((tmp_path / "results").glob("tiny-*/cpu"))) == 2


@pytest.fixture
def recorded_here(tmp_path, monkeypatch):
    """What is recorded goes to a file of this test."""
    path = tmp_path / "recorded.json"
    monkeypatch.setattr(recorded, "FILE", path)
    return path


def test_what_tune_chooses_is_recorded_and_used_by_the_next_run(
    bench, folder, tiny, tmp_path, recorded_here, monkeypatch
):
    preset = replace(PRESETS["quick"], tuned=True, epochs={"": 4}, halvings=1)
    monkeypatch.setitem(PRESETS, "quick", preset)
    text = io.StringIO()
    where = {"results": tmp_path / "results", "cache": tmp_path / "cache"}
    config = Config(dataset=str(tiny), preset="quick", variants="fixed_variance", **where)
    assert run.tune(config, Console(file=text, width=300)) == 0
    assert "fixed_variance, 4 epochs: learning rate 0.0" in text.getvalue()
    evidence = results.read(folder()).of("tuning")
    assert set(evidence.epochs) == {2, 4}
    assert results.read(folder()).rows.question.eq("tuning").all()
    chosen = evidence[evidence.chosen & evidence.epochs.eq(4)].iloc[0]
    assert len(json.loads(recorded_here.read_text())) == 2

    code, said = bench(variants="fixed_variance", questions="headline,budget")
    assert code == 0
    stored = results.read(folder())
    assert len(stored.of("tuning")) == len(evidence)
    longest = stored.of("budget", "elbo", epochs=4)
    assert set(longest.learning_rate) == {chosen.learning_rate}
    assert set(longest.hyperparameter_scale) == {chosen.hyperparameter_scale}
    assert "time went into" in said


def test_of_one_question_tune_chooses_for_its_trainings_alone(
    tiny, tmp_path, recorded_here, monkeypatch
):
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], tuned=True, halvings=1))
    where = {"results": tmp_path / "results", "cache": tmp_path / "cache", "questions": "headline"}
    config = Config(dataset=str(tiny), preset="quick", variants="autoencoder", **where)
    assert run.tune(config, Console(file=io.StringIO(), width=300)) == 0
    (longest,) = map(json.loads, json.loads(recorded_here.read_text()))
    assert longest["epochs"] == 2


def test_what_no_training_can_tell_is_not_recorded(
    bench, tiny, tmp_path, recorded_here, monkeypatch
):
    found = discover()
    more = Discovery({**found.variants, "broken": Broken}, {})
    for module in (run, tasks, contestants):
        monkeypatch.setattr(module, "discover", lambda **files: more)
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], tuned=True, halvings=0))
    text = io.StringIO()
    where = {"results": tmp_path / "results", "cache": tmp_path / "cache"}
    config = Config(dataset=str(tiny), preset="quick", variants="autoencoder,broken", **where)
    assert run.tune(config, Console(file=text, width=300)) == 1
    assert "broken, 2 epochs: every training failed" in text.getvalue()
    assert "autoencoder, 2 epochs: learning rate" in text.getvalue()
    (known,) = json.loads(recorded_here.read_text())
    assert "autoencoder" in known


@pytest.mark.parametrize("rate", ["fast", "0", "-1e-3", "nan", "inf"])
def test_a_learning_rate_that_is_none_is_refused_before_any_work(bench, rate):
    with pytest.raises(BenchError, match=f"--learning-rate '{rate}' must be 'auto' or a number"):
        bench(learning_rate=rate)


class Broken(VAE):
    """Fails once it is trained."""

    rank = 4

    def posterior(self, x):
        if len(x) > 20:  # more than its contract is checked with
            raise RuntimeError("no <b>such</b> posterior | here")
        return diagonal_gaussian(self.encode(x), torch.ones(len(x), self.latent_dim))


def test_where_every_training_fails_what_was_stored_stays(bench, folder, monkeypatch):
    bench(questions="headline")
    before = results.read(folder())
    found = discover()
    broken = Discovery(dict.fromkeys(found.variants, Broken), {})
    for module in (tasks, run):
        monkeypatch.setattr(module, "discover", lambda **files: broken)
    code, text = bench(questions="headline")
    assert code == 1
    assert "no <b>such</b> posterior" in text
    after = results.read(folder())
    assert not after.problems
    assert len(after.of("headline")) == len(before.of("headline"))
    assert len(after.history) == len(before.history)
    assert set(after.of("failure").variant) == set(VARIANTS.split(","))
    index = folder().parents[1] / "index.html"
    assert "&lt;b&gt;such" in index.read_text(encoding="utf-8")
    assert "<b>such" not in index.read_text(encoding="utf-8")
    monkeypatch.undo()


def test_after_a_run_of_failures_a_later_one_works(bench, folder, monkeypatch):
    """From nothing: an empty history must not poison the folder."""
    found = discover()
    broken = Discovery(dict.fromkeys(found.variants, Broken), {})
    with monkeypatch.context() as patch:
        for module in (tasks, run):
            patch.setattr(module, "discover", lambda **files: broken)
        assert bench(questions="headline")[0] == 1
    code, text = bench(questions="headline")
    assert code == 0, text
    stored = results.read(folder())
    assert not stored.problems
    assert stored.of("failure").empty
    assert not stored.of("headline").empty


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"\n"),
    "foreign": lambda path: path.write_bytes(b"another program's"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["rows.csv.gz", "history.csv", "environment.json", "pictures.npz"])
def test_a_damaged_file_is_told_in_one_line_and_the_rest_is_made(bench, folder, name):
    bench(questions="headline")
    path, root = folder() / name, folder().parents[1]
    whole = path.read_bytes()
    for damage in DAMAGES.values():
        path.write_bytes(whole)
        damage(path)
        text = io.StringIO()
        assert report.report(root, None, Console(file=text, width=300)) == 1
        errors = [line for line in text.getvalue().splitlines() if line.startswith("error:")]
        assert len(errors) == 1, text.getvalue()
        assert name in errors[0]
        assert "make bench" in errors[0]
        assert "What does the posterior" in (root / "index.html").read_text(encoding="utf-8")
    code, text = bench(questions="headline")
    assert code == 0, text
    assert not results.read(path.parent).problems


def test_a_table_of_real_values(bench, tmp_path):
    """It asks for a density, is told of what is left out, and has a page with its own folder."""
    random = np.random.RandomState(0)
    path = tmp_path / "sensors.npy"
    np.save(path, random.randn(150, 2) @ random.randn(2, 5) + random.randn(150, 5))
    with pytest.raises(BenchError, match="use --likelihood gaussian"):
        bench(dataset=str(path))
    assert not (tmp_path / "results").exists()
    asked = {"questions": "headline,pictures", "likelihood": "gaussian", "latent": 2}
    code, text = bench(dataset=str(path), **asked)
    assert code == 0, text
    assert "pictures: left out" in text
    assert "Σ log s" in text
    (folder,) = (tmp_path / "results").glob("sensors-*/cpu")
    assert "Σ log s" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_folder_of_images(bench, tmp_path):
    """Its pictures are coloured by class; another folder of its name has a place of its own."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    random = np.random.RandomState(0)
    for place in ("here", "there"):
        for name in ("a", "b"):
            folder = tmp_path / place / "mine" / name
            folder.mkdir(parents=True)
            for number in range(65):
                pixels = random.randint(0, 256, (4, 4)).astype(np.uint8)
                image.fromarray(pixels).save(folder / f"{number}.png")
        code, text = bench(dataset=str(tmp_path / place / "mine"), questions="pictures")
        assert code == 0, text
    one, _ = (tmp_path / "results").glob("mine-*/cpu")
    labels = results.read(one).arrays("pictures", "labels")
    assert {len(set(found.tolist())) for found in labels.values()} == {2}


def test_again_is_the_command_that_makes_the_page(bench, folder, monkeypatch, tmp_path):
    """Parsed by the real command line, it gives the same rows in a new place."""
    bench(questions="headline", binarize="threshold", epochs=1, kl_warmup_epochs=1)
    before = results.read(folder())
    (again,) = (run["command"] for run in before.environment["runs"])
    program, dash, module, *arguments = shlex.split(again)
    assert (program, dash, module) == (".venv/bin/python", "-m", "bench")
    elsewhere = ["--results", str(tmp_path / "again"), "--cache", str(tmp_path / "other")]
    code = cli.app([*arguments, *elsewhere], exit_on_error=False, print_error=False)
    assert code == 0
    (made,) = (tmp_path / "again").glob("*/*/rows.csv.gz")
    assert made.parent.parent.name == folder().parent.name
    after = results.read(made.parent)
    untimed = [r.rows[r.rows.unit != "s"].reset_index(drop=True) for r in (before, after)]
    pd.testing.assert_frame_equal(*untimed)
    assert after.environment["runs"][0]["command"] == again


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "with space.npz"},
        {"dataset": 'a$b`c"d;e&f(g)#h.npz'},
        {"dataset": "mnist", "variants": "flow,autoencoder", "seeds": 3},
        {"device": "cuda"},
        {"device": "cpu"},
        {"questions": "headline,loss_noise", "preset": "full", "precision": "bf16"},
    ],
)
def test_again_survives_the_shell_and_make(changes, tmp_path):
    """`make bench …` reaches the program with every value as one argument."""
    shown = tmp_path / "shown.py"
    shown.write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    again = arguments.command(Config(**changes), changes.get("device", "cpu"))
    assert again.startswith("make bench")
    root = Path(run.__file__).parents[2]
    instead = shlex.join([f"PY=python3 {shown}", f"READY={shown}"])
    outer = ("MAKE", "MFLAGS", "BENCH_ARG")  # `make test` hands down its own
    own = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    done = subprocess.run(
        f"{again} {instead}", shell=True, cwd=root, capture_output=True, text=True, env=own
    )
    words = json.loads(done.stdout.splitlines()[-1])
    pairs = dict(zip(words[3::2], words[4::2]))
    for name, value in changes.items():
        assert pairs[f"--{name}"] == str(value)


def test_cache_and_results_are_no_part_of_again(tmp_path):
    config = Config(dataset="digits", cache=tmp_path, results=tmp_path, jobs=2)
    assert arguments.command(config, "cpu") == "make bench DATASET=digits"


def test_a_device_that_is_not_there(bench, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BenchError, match="no CUDA GPU"):
        bench(device="cuda")


def test_rows_of_another_version_are_refused_and_kept_aside(bench, folder):
    bench(questions="headline")
    path = folder() / "rows.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace("question,", "measurement,", 1).encode()))
    (problem,) = results.read(folder()).problems
    assert "measurement" in problem
    assert bench(questions="headline")[0] == 0
    assert (folder() / "rows.csv.gz.unreadable").exists()
