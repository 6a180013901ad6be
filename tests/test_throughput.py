"""What is timed is what it claims to be; how long it takes is never asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bench import benchmarks
from bench.benchmarks import run_cases
from bench.config import BenchError, Run, generator
from bench.data import as_float, load
from bench.measure.throughput import (
    evaluation,
    fewest_samples,
    filled,
    importance_bound,
    matrix_product,
    memory_copy,
    ordinary_step,
    peak_memory,
    products_of,
    training_step,
)
from bench.report import growth, throughput
from bench.report.common import Results
from bench.train import build, train
from vaes import VAE, discover

VARIANTS = discover().variants
D, H, L, B = 16, 8, 3, 20


@pytest.fixture
def data(tiny):
    return load(str(tiny))


def run_of(variant: str, **changes) -> Run:
    run = Run(variant, "tiny", 0, epochs=2, latent_dim=L, hidden_dim=H, batch_size=B)
    return run.with_(**changes)


def model_of(variant: str):
    return build(run_of(variant), VARIANTS[variant], torch.full((D,), 0.5))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_timed_step_is_the_step_of_training(data, variant):
    run = run_of(variant, steps=12)
    step = training_step(run, VARIANTS[variant], data)
    losses = torch.stack([step() for _ in range(12)]).double()
    history = train(run, VARIANTS[variant], data).history
    assert [entry["objective"] for entry in history] == [c.mean().item() for c in losses.split(6)]


@pytest.mark.parametrize("variant", [n for n, kind in VARIANTS.items() if n != "flow"])
def test_the_ordinary_loop_follows_the_same_loss(data, variant):
    """On binary images a loss differs by order and noise alone: the first of both are near."""
    binary = replace(data, train=(data.train > 127).to(torch.uint8) * 255, binarization="binary")
    run = run_of(variant, batch_size=len(data.train))
    ours = training_step(run, VARIANTS[variant], binary)()
    theirs = ordinary_step(run, VARIANTS[variant], binary)()
    assert theirs == pytest.approx(ours.item(), rel=0.1)


def test_the_ordinary_loop_needs_a_reparameterized_sample(data):
    class Sampled(VARIANTS["input_dependent"]):
        def posterior(self, x):
            q = super().posterior(x)
            q.base_dist.has_rsample = False
            return q

    with pytest.raises(NotImplementedError):
        ordinary_step(run_of("input_dependent"), Sampled, data)


@pytest.mark.parametrize(("variant", "heads"), [("autoencoder", 1), ("input_dependent", 2)])
def test_every_matrix_product_of_a_step_is_counted(data, variant, heads):
    """Each weight is used forward, for its own gradient and, but for the first, for its input's."""
    weights = D * H + H * H + heads * H * L + L * H + H * H + H * D
    products = products_of(training_step(run_of(variant), VARIANTS[variant], data))
    assert products.flop == 2 * B * (3 * weights - D * H)


def test_products_of_samples_are_counted(data):
    decoder = L * H + H * H + H * D
    few, many = (
        products_of(training_step(run_of("input_dependent", samples=s), VARIANTS["input_dependent"],
                                  data)).flop
        for s in (1, 5)
    )  # fmt: skip
    assert many - few == 2 * B * 4 * 3 * decoder


def test_the_bound_multiplies_the_operands_the_action_had():
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    products = products_of(lambda: layer(x))
    ((a, b),) = products.operands
    assert torch.equal(a, x)
    assert b.data_ptr() == layer.weight.data_ptr()
    products.action()()
    assert products.flop == 2 * 4 * 3 * 2


def test_an_action_without_products_has_no_bound():
    with pytest.raises(BenchError, match="no matrix product"):
        products_of(lambda: torch.ones(2) + 1)


def test_an_evaluation_and_a_bound_run_the_decoder(data):
    model, x = model_of("input_dependent"), as_float(data.test)
    encoder, decoder = D * H + H * H + 2 * H * L, L * H + H * H + H * D
    evaluated = products_of(evaluation(model, x, generator("cpu", "a")))
    assert evaluated.flop == 2 * len(x) * (encoder + decoder)
    bound = importance_bound(model, x, generator("cpu", "a"), 50)
    assert products_of(bound).flop == 2 * len(x) * (encoder + 50 * decoder)
    assert bound().shape == (len(x),)


@pytest.mark.parametrize(("batch", "images"), [(7, 119), (50, 100), (1000, 1000)])
def test_data_are_filled_to_whole_batches(data, batch, images):
    train = filled(data, batch).train
    assert len(train) == images
    assert torch.equal(train[: min(images, 120)], data.train[:images])


def test_an_estimator_gets_the_fewest_samples_it_admits():
    model, x = model_of("input_dependent"), torch.ones(1, D)
    assert fewest_samples("pathwise", model, x) == 1
    assert fewest_samples("rloo", model, x) == 2
    with pytest.raises(BenchError, match="measure_valued"):
        fewest_samples("measure_valued", model_of("full_covariance"), x)
    with pytest.raises(BenchError, match="has none"):
        fewest_samples("pathwise", model_of("autoencoder"), x)


def test_the_machine_is_measured_by_what_it_claims():
    multiply, flop = matrix_product("cpu")
    assert multiply().sum().item() * 2 == flop  # ones: every element is the side
    copy, moved = memory_copy("cpu")
    assert 2 * copy().numel() == moved


def test_peak_memory_never_falls():
    before = peak_memory("cpu")
    torch.ones(2**22)
    assert 10**7 < before <= peak_memory("cpu")


# --- cases, files and report ---------------------------------------------------------------


@pytest.fixture(scope="module")
def timings(tmp_path_factory):
    """A folder with the real JSON of two variants on tiny images, by the real command."""
    folder = tmp_path_factory.mktemp("tiny") / "cpu"
    folder.mkdir()
    path = folder.parent / "tiny.npz"
    images = np.random.default_rng(0).random((40, 4, 4)).astype(np.float32)
    np.savez(path, train=np.tile(images, (3, 1, 1)), valid=images, test=images)
    wanted = (
        "test_training and 100 and not 1000", "evaluation", "importance", "copy", "matrix",
        "first_step and input_dependent",
        "latent_dim-2", "latent_dim-10",
    )  # fmt: skip
    only = " or ".join(f"({case})" for case in wanted)
    run_cases(folder, str(path), "cpu", ("autoencoder", "input_dependent"), None, False, 0.01, only)
    return folder


def results_in(folder) -> Results:
    columns = ["variant", "seed", "measurement", "metric", "setting", "value"]
    return Results(pd.DataFrame([], columns=columns), pd.DataFrame(), {}, folder)


def test_the_cases_store_times_bounds_and_labels(timings):
    stored = json.loads((timings / throughput.FILE).read_text())
    assert stored["machine_info"].keys().isdisjoint({"node", "user"})
    cases = [b["extra_info"] for b in stored["benchmarks"]]
    kinds = {c["kind"] for c in cases}
    assert kinds >= {"training", "estimator", "evaluation", "importance", "fresh", "growth"}
    for case in cases:
        assert case["seconds"] > 0
        if case["kind"] in ("training", "evaluation", "importance"):
            assert case["bound_seconds"] > 0
    names = {b["fullname"] for b in stored["benchmarks"]}
    assert len(names) == len(cases), "two commits are matched by name"


def test_the_report_shows_every_variant_and_estimator(timings):
    (section,) = throughput.sections(results_in(timings))
    text = f"{section.table}\n{section.notes}"
    for name in ("autoencoder", "input-dependent", "leave-one-out", "GFLOP/s"):
        assert name in text
    assert "at batch 100" in section.takeaway
    for file in [*section.files, section.figures[0][0]]:
        assert (timings / file).stat().st_size > 0
    (section,) = growth.sections(results_in(timings))
    assert "latent dimensions" in section.table
    assert "100,000" in section.notes


def test_a_grids_speed_up_stands_beside_that_of_its_trainings_alone(timings, tmp_path):
    stored = json.loads((timings / throughput.FILE).read_text())
    rounds = [
        {"1": {"seconds": 4.0, "bound_seconds": 3.8}, "2": {"seconds": 2.5, "bound_seconds": 1.9}},
        {"1": {"seconds": 4.0, "bound_seconds": 3.8}, "2": {"seconds": 2.0, "bound_seconds": 2.0}},
    ]
    stored["benchmarks"] += [{"extra_info": {"kind": "grid", "rounds_by_tasks": {"4": rounds}}}]
    (tmp_path / throughput.FILE).write_text(json.dumps(stored))
    (section,) = growth.sections(results_in(tmp_path))
    assert "4 trainings takes 1.80 times" in section.takeaway
    assert "without the grid 1.95 times" in section.takeaway
    assert "| 4 | 4.00 | 2.25 | 1.80 (1.60 – 2.00) | 1.95 (1.90 – 2.00) |" in section.notes


def test_an_estimators_memory_and_start_stand_beside_its_speed(timings, tmp_path):
    stored = json.loads((timings / throughput.FILE).read_text())
    fresh = {"kind": "fresh_estimator", "variant": "input_dependent", "estimator": "pathwise",
             "batch": 100, "seconds": 2.5, "peak_bytes": 333 * 2**20}  # fmt: skip
    stored["benchmarks"] += [{"extra_info": fresh}]
    (tmp_path / throughput.FILE).write_text(json.dumps(stored))
    (section,) = throughput.sections(results_in(tmp_path))
    pathwise, other = (
        next(line for line in section.notes.splitlines() if f"input-dependent: {name} |" in line)
        for name in ("pathwise", "score function")
    )
    assert pathwise.endswith("| 333 | 2.50 |")
    assert other.endswith("| – | – |")


def test_without_timings_there_is_no_section(tmp_path):
    assert throughput.sections(results_in(tmp_path)) == []
    assert growth.sections(results_in(tmp_path)) == []


def test_bf16_is_shown_beside_float32(timings, tmp_path):
    folder, other = tmp_path / "tiny" / "cpu", tmp_path / "tiny-bf16" / "cpu"
    for place, shift in ((folder, 0.0), (other, -0.5)):
        place.mkdir(parents=True)
        rows = [["input_dependent", s, "elbo", "elbo", "", -90.0 + s + shift + 0.01 * shift * s]
                for s in range(4)]  # fmt: skip
        columns = ["variant", "seed", "measurement", "metric", "setting", "value"]
        pd.DataFrame(rows, columns=columns).to_csv(place / "rows.csv", index=False)
    (folder / throughput.FILE).write_text((timings / throughput.FILE).read_text())
    results = replace(results_in(folder), rows=pd.read_csv(folder / "rows.csv"))
    (section,) = throughput.sections(results)
    assert "minus float32's is −0.51 ± 0.01 nats over 4 paired seeds" in section.notes
    assert "the interval excludes zero" in section.notes


def test_two_commits_are_compared(timings, tmp_path, capfd, monkeypatch):
    other = tmp_path / "other.json"
    other.write_text((timings / throughput.FILE).read_text())
    monkeypatch.chdir(tmp_path)
    benchmarks.compare(timings / throughput.FILE, Path("other.json"))
    assert "test_training[autoencoder-100]" in capfd.readouterr().out
    with pytest.raises(BenchError, match="make throughput"):
        benchmarks.compare(tmp_path / "none.json", other)


@pytest.mark.parametrize(
    ("value", "text"),
    [(16_643.2, "16,600"), (0.04567, "0.0457"), (1.0, "1.00"), (float("nan"), "–")],
)
def test_digits(value, text):
    assert throughput.rounded(value) == text


def test_only_vaes_have_importance_bounds(timings):
    cases = throughput.read(results_in(timings)).of("importance")
    assert set(cases.variant) == {n for n in ("input_dependent",) if issubclass(VARIANTS[n], VAE)}
