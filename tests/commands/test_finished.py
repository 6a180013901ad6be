"""Commands on finished work, end to end on one small run of the digits."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Inline
from rich.console import Console

from bench import cli
from bench.commands import apply, run
from bench.data.dataset import load
from bench.data.sources import SOURCES
from bench.machine.console import console
from bench.options import Config
from bench.report import results
from bench.weights import imported

OPTIONS = ("--dataset", "digits", "--preset", "quick", "--epochs", "2")
FOLDER = "digits-epochs-2-quick/cpu"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a finished run: its cache, its results, and its test images."""
    place = tmp_path_factory.mktemp("finished")
    config = Config(
        dataset="digits",
        preset="quick",
        epochs=2,
        device="cpu",
        variants="autoencoder,input_dependent",
        questions="headline",
        results=place / "results",
        cache=place / "cache",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Workers", lambda *arguments: Inline())
        patch.setattr(run, "redraw", lambda *arguments: 0)
        assert run.run(config, Console(file=io.StringIO())) == 0
    np.save(place / "test.npy", SOURCES["digits"].read("digits", None)["test"])
    return place


@pytest.fixture
def bench(place, capsys, monkeypatch):
    """`bench("codes", …)`: its exit code and what it said."""

    def call(*arguments: object, options=OPTIONS) -> tuple[int, str]:
        words = [*arguments, *options]
        words += ["--cache", place / "cache", "--device", "cpu"] if options else []
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        monkeypatch.setattr(console, "_width", 200, raising=False)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, capsys.readouterr().out

    return call


def test_likelihoods_of_the_test_images_are_the_headlines(bench, place):
    code, text = bench("likelihood", place / "test.npy", "--out", place / "l.csv")
    assert code == 0, text
    values = pd.read_csv(place / "l.csv")
    assert len(values) == 300
    stored = results.read(place / "results" / FOLDER)
    for metric, settings in (("elbo", {}), ("iw_bound", {"K": 100})):
        (row,) = stored.of(
            "headline", metric, variant="input_dependent", seed=0, **settings
        ).itertuples()
        assert values[metric].mean() == pytest.approx(row.value, rel=1e-6)
    assert set(values.K) == {100}
    assert values.effective_sample_size.between(1, 100).all()


def test_codes_and_samples_of_a_variant_and_seed(bench, place):
    for seed in (0, 1):
        out = place / f"codes{seed}.npz"
        assert bench("codes", place / "test.npy", "--out", out, "--seed", seed)[0] == 0
    first, second = (np.load(place / f"codes{seed}.npz") for seed in (0, 1))
    assert first["mean"].shape == first["standard_deviation"].shape == (300, 8)
    assert not np.allclose(first["mean"], second["mean"])
    assert bench("samples", "--out", place / "s.npz", "--count", "7")[0] == 0
    assert np.load(place / "s.npz")["draws"].shape == (7, 8, 8)


def test_exported_weights_give_the_codes(bench, place):
    path = place / "model.safetensors"
    code, text = bench("export-weights", path, "--variant", "autoencoder")
    assert (code, text) == (0, f"wrote {path}\n")
    out = ("--out", place / "codes.npz", "--variant", "autoencoder")
    assert bench("codes", place / "test.npy", *out)[0] == 0
    x = apply.images_of(place / "test.npy", load("digits"))
    codes = np.load(place / "codes.npz")["mean"]
    np.testing.assert_allclose(imported(path).encode(x).detach(), codes, atol=1e-6)


def test_the_list_names_the_folder_of_its_results(bench, place):
    code, text = bench("list", "--results", place / "results", "--latent", "5")
    assert code == 0
    assert text.startswith("digits-epochs-2-latent_dim-5-quick on cpu, from ")


def test_the_list_says_what_is_done(bench, place):
    files = sorted((place / "cache").iterdir())
    code, text = bench("list", "--results", place / "results", "--questions", "headline,loss_noise")
    assert code == 0
    lines = {tuple(its.split()[:2]): its.split()[2:] for its in text.splitlines() if its.split()}
    assert lines["headline", "input-dependent"] == ["2", "0", "0"]
    assert lines["loss_noise", "autoencoder"] == ["0", "3", "0"]
    assert lines["headline", "flow"] == ["0", "2", "0"]
    assert lines["headline", "fixed-variance"] == ["0", "0", "2"]
    assert f"{place / 'results' / FOLDER}: commit " in text
    assert "; quick, 2 epochs, 2 seeds; written 20" in text
    assert text.rstrip().endswith("; headline")
    assert sorted((place / "cache").iterdir()) == files


def test_a_comparison_says_by_its_exit_code_what_changed(bench, place, tmp_path):
    folder = place / "results" / FOLDER
    code, text = bench("compare", folder, folder, options=())
    assert code == 0, text
    assert "paired by seed" in text
    assert "None of 7 comparisons changed beyond noise." in text
    stored = results.read(folder)
    stored.rows.loc[stored.rows.metric == "elbo", "value"] += 1
    results.store(tmp_path / "cpu", stored.rows, stored.history, {}, stored.environment)
    code, text = bench("compare", folder, tmp_path / "cpu", options=())
    assert code == 1
    assert "1 of 7 comparisons changed beyond noise: higher in B `elbo of input-dependent`" in text
    code, text = bench("compare", folder, tmp_path / "absent", options=())
    assert (code, text) == (
        2,
        f"error: {tmp_path / 'absent'} holds no results: name a folder such as "
        "results/mnist5k/cpu\n",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("samples", "--seed", "5"), "no finished run of 'input_dependent', seed 5, with these"),
        (("samples", "--seed", "-1"), "--seed must be at least 0"),
        (("samples", "--variant", "flwo"), "did you mean 'flow'"),
        (("samples", "--variant", "flow,autoencoder"), "name one variant"),
        (("samples", "--variant", "fixed_variance"), "no finished run of 'fixed_variance'"),
        (("samples", "--count", "0"), "--count must be at least 1"),
        (("samples", "--latent", "0"), "--latent must be at least 1"),
        (("samples", "--latent", "3"), "make it with '.venv/bin/python -m bench run "),
        (("samples", "--seed", "12"), " --seeds 13"),
        (("samples", "--variants", "fixed_variance"), "no finished run of 'fixed_variance'"),
        (("samples", "--variants", "flow,autoencoder"), "one model is applied: name it with"),
        (("codes", "absent.npy"), "absent.npy does not exist"),
        (("likelihood", "absent.npy", "--latent", "3"), "absent.npy does not exist"),
    ],
)
def test_a_mistake_is_one_line(bench, tmp_path, arguments, words):
    code, text = bench(*arguments, "--out", tmp_path / "x.npz")
    assert code == 2
    assert words in text
    assert text.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
