"""The trade-off from simple to flexible, through the real measurement and report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.config import PRESETS
from bench.data.dataset import load
from bench.grid import outcome as outcomes
from bench.grid.runner import execute
from bench.grid.tasks import Grid
from bench.questions import named
from bench.questions.flexibility.report import estimates, sections, takeaway_of
from bench.report import rows
from bench.report.claims import claims
from bench.report.results import Results
from bench.statistics import Estimate
from tests.conftest import Inline

VARIANTS = ("autoencoder", "input_dependent", "full_covariance", "flow")
GAPS = ("inference_gap", "approximation_gap", "amortization_gap")
COSTS = {"step_time_ratio", "parameters"}


@pytest.fixture
def results(tiny, tmp_path):
    preset = replace(PRESETS["quick"], epochs={"": 1}, flexibility_images=6, fit_steps=5)
    grid = Grid(
        str(tiny),
        VARIANTS,
        2,
        preset,
        cache=tmp_path / "cache",
        overrides=(("latent_dim", 2), ("hidden_dim", 8)),
        questions=named(["headline", "flexibility"]),
    )
    found = execute(grid, load(str(tiny)), Inline())
    assert not found.failures
    return Results(Path("results/tiny/cpu"), rows.frame(outcomes.rows(grid, found)))


def test_every_variant_has_a_line_and_the_gap_is_the_sum_of_its_parts(results):
    found = estimates(results)
    for variant in VARIANTS[1:]:
        gap, approximation, amortization = (found[variant, name].mean for name in GAPS)
        assert approximation + amortization == pytest.approx(gap, abs=1e-6)
    assert {name for variant, name in found if variant == "autoencoder"} == COSTS
    for variant in VARIANTS:
        assert all(found[variant, name].mean > 0 for name in COSTS)
    timed = results.of("flexibility", "step_time").set_index("variant").estimator
    assert timed["flow"] == "pathwise_sampled_kl"
    assert timed["full_covariance"] == "pathwise"


def test_the_section_is_drawn_and_marks_the_plain_autoencoder_with_dashes(results):
    (section,) = sections(results)
    (table,) = section.tables
    line = next(row for row in table.markdown().splitlines() if row.startswith("| autoencoder"))
    assert line.count("–") == 6
    assert [figure.name for figure in section.figures] == ["flexibility", "inference_gap"]
    for figure in section.figures:
        assert figure.png("tiny")
    assert "over 6 test images" in section.notes
    assert "(5 gradient steps" in section.notes


def test_the_gradient_s_variance_is_of_the_estimator_of_training(results):
    """At the best weights and one sample; others are left out."""
    common = {
        "dataset": "tiny",
        "device": "cpu",
        "variant": "full_covariance",
        "seed": 0,
        "question": "gradient_noise",
        "metric": "total_variance",
    }
    known = {"stage": "best", "estimator": "pathwise", "S": 1, "value": 7.0, "standard_error": 1.0}
    lines = [{"stage": "epoch_1"}, {"S": 4}, {"estimator": "score_function"}]
    measured = [common | known | {"n": 1000}]
    measured += [common | known | other | {"value": 9.0} for other in lines]
    more = replace(results, rows=rows.joined(results.rows, rows.frame(measured)))
    found = {key: e for key, e in estimates(more).items() if key[1] == "total_variance"}
    (variance,) = found.values()
    assert [*found] == [("full_covariance", "total_variance")]
    assert (variance.mean, variance.half_width) == (7.0, pytest.approx(1.962, abs=1e-3))


def test_little_data_is_no_error(results):
    """Each variant alone; no headline."""
    for variant in VARIANTS:
        (section,) = sections(replace(results, rows=rows.select(results.rows, variant=variant)))
        assert section.takeaway.endswith(".")
        assert section.answer == ""
    (section,) = sections(replace(results, rows=results.of("flexibility")))
    assert section.answer == ""
    assert [figure.name for figure in section.figures] == ["inference_gap"]


def test_no_rows_no_section(results):
    assert sections(replace(results, rows=results.of("headline"))) == []


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.5, "gained by `flow` (0.50 ± 0.20 at 1.50 ×)"),
        (-0.5, "lost by `flow` (0.50 ± 0.20 at 1.50 ×)"),
        (0.1, "undecided for `flow` (+0.10 ± 0.20 at 1.50 ×)"),
    ],
)
def test_the_takeaway_follows_the_numbers(difference, words):
    found = {("input_dependent", name): Estimate(2.0) for name in GAPS}
    (claim,) = claims({"flow": Estimate(difference, 0.2, 5)})
    text = takeaway_of(found, [replace(claim, note=" at 1.50 ×")])
    assert words in text
    assert "100 % is the encoder's" in text
