"""The trade-off from simple to flexible, through the real measurement and report."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bench import tidy
from bench.config import PRESETS
from bench.data import load
from bench.measure import flexibility as measurement
from bench.report import flexibility
from bench.runner import execute
from bench.tasks import Grid

VARIANTS = ("autoencoder", "input_dependent", "full_covariance", "flow")


@pytest.fixture
def results(tiny, inline, tmp_path):
    preset = replace(PRESETS["quick"], epochs={"": 1}, flexibility_images=6, fit_steps=5)
    grid = Grid(str(tiny), VARIANTS, 2, preset, cache=tmp_path / "cache",
                overrides=(("latent_dim", 2), ("hidden_dim", 8)),
                measurements=("elbo", "flexibility"))  # fmt: skip
    outcome = execute(grid, load(str(tiny)), inline)
    assert not outcome.failures
    folder = tmp_path / "results"
    tidy.store(folder, tidy.rows_of(grid, outcome), tidy.history_of(grid, outcome), {},
               {"config": {}})  # fmt: skip
    return tidy.read(folder)


def test_every_variant_has_a_line_and_the_gap_is_the_sum_of_its_parts(results):
    table = flexibility.flexibility_table(results).set_index("variant")
    assert list(table.index) == list(VARIANTS)
    parts = table.approximation_gap + table.amortization_gap
    assert (parts - table.inference_gap).abs().max() < 1e-6
    assert table.loc["autoencoder", ["elbo", "iw_bound", "inference_gap"]].isna().all()
    assert (table[["step_time", "step_time_ratio"]] > 0).all(axis=None)
    assert (table.parameters > 0).all()
    assert table.estimator["flow"] == "pathwise_sampled_kl"
    assert table.estimator["full_covariance"] == "pathwise"


def test_the_section_has_its_files_and_marks_the_plain_autoencoder_with_dashes(results):
    (section,) = flexibility.sections(results)
    line = next(row for row in section.table.splitlines() if row.startswith("| autoencoder"))
    assert line.count("–") == 6
    for file in [*section.files, *(path for path, _ in section.figures)]:
        assert (results.folder / file).stat().st_size > 0


def test_no_rows_no_section(results):
    empty = replace(results, rows=results.rows[results.rows.measurement == "elbo"])
    assert flexibility.sections(empty) == []


def test_only_the_first_seed_is_asked_for(results):
    assert set(results.measured("flexibility").seed) == {0}
    run = Grid("digits", VARIANTS, 1, PRESETS["quick"]).run("flow", 1)
    assert list(measurement.requests(run, PRESETS["quick"])) == []


@pytest.mark.parametrize(
    ("difference", "words"),
    [(0.5, "gains 0.50 ± 0.20 nats"), (-0.5, "loses 0.50 ± 0.20 nats"), (0.1, "cannot be told")],
)
def test_the_takeaway_follows_the_numbers(difference, words):
    line = dict.fromkeys(("inference_gap", "amortization_gap", "approximation_gap"), 2.0)
    line |= {"step_time_ratio": 1.0, "elbo_difference": float("nan"),
             "elbo_difference_half_width": float("nan")}  # fmt: skip
    flow = line | {"variant": "flow", "step_time_ratio": 1.5, "elbo_difference": difference,
                   "elbo_difference_half_width": 0.2}  # fmt: skip
    table = pd.DataFrame([line | {"variant": "input_dependent"}, flow])
    text = flexibility.takeaway_of(table)
    assert words in text
    assert "1.50 ×" in text
    assert "100 % is the encoder's" in text
