"""The trade-off from simple to flexible, through the real measurement and report."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.config import PRESETS
from bench.data.dataset import load
from bench.grid import outcome as outcomes
from bench.grid.runner import execute
from bench.grid.tasks import Grid
from bench.questions import named
from bench.questions.flexibility.compared import differences
from bench.questions.flexibility.report import (
    estimates,
    sections,
    share,
    takeaway_of,
)
from bench.report import rows
from bench.report.claims import claims
from bench.report.results import Results
from bench.statistics import Estimate
from tests.conftest import Inline, tiny_images
from tests.stored import line

VARIANTS = ("autoencoder", "input_dependent", "full_covariance", "flow")
GAPS = ("inference_gap", "approximation_gap", "amortization_gap")
COSTS = {"step_time_ratio", "parameters"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flexibility")
    tiny = tiny_images(folder)
    few = {"flexibility_images": 6, "annealed_images": 8, "fit_steps": 5}
    preset = replace(PRESETS["quick"], epochs={"": 1}, **few)
    grid = Grid(
        str(tiny),
        VARIANTS,
        2,
        preset,
        cache=folder / "cache",
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
    timed = results.of("flexibility", "step_time", seed=0).set_index("variant").estimator
    assert timed["flow"] == "pathwise_sampled_kl"
    assert timed["full_covariance"] == "pathwise"


def test_where_trainings_were_timed_the_answer_says_what_they_take(results):
    seconds = {"input_dependent": 10.0, "full_covariance": 12.0, "flow": 15.0}
    took = [
        line(variant, seed, "training_seconds", (1 + seed) * s, "budget", epochs=240)
        for variant, s in seconds.items()
        for seed in (0, 1)
    ]
    timed = replace(results, rows=rows.joined(results.rows, rows.frame(took)))
    (section,) = sections(timed)
    said = (
        "a training, as measured here, takes 1.20 ± 0.00 (full-covariance) and 1.50 ± 0.00 (flow) "
        "times as long"
    )
    assert section.answer.endswith(said)
    assert section.tables[0].frame().set_index("variant")["training time, relative"]["flow"] == 1.5
    assert "training time, relative" in json.dumps(section.figures[0].specification("tiny"))
    (section,) = sections(results)
    assert "; a step that is not compiled takes " in section.answer


def test_the_section_is_drawn_and_marks_the_plain_autoencoder_with_dashes(results):
    (section,) = sections(results)
    table, changes, checks = section.tables
    assert [line[0].text for line in checks.lines] == ["input-dependent", "full-covariance", "flow"]
    assert [line[0].text for line in changes.lines] == ["full-covariance"] * 4 + ["flow"] * 4
    line = next(row for row in table.markdown().splitlines() if row.startswith("| autoencoder"))
    assert line.count("–") == 5
    assert [figure.name for figure in section.figures] == ["flexibility", "inference_gap"]
    for figure in section.figures:
        assert figure.png("tiny")
    notes = " ".join(section.notes.split())
    assert "2 seeds, with 6 random test images each" in notes
    assert "found by 5 gradient steps" in notes
    assert "for 6 or 8 test images, among them those of the gaps" in notes
    assert "with 5,000 samples of a mixture" in notes


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


def made_up(gaps, slack: float = 0.006, more=()):
    """Rows of seeds whose gaps, by variant, are (approximation, amortization) and some noise."""
    noise = (-0.2, -0.1, 0.0, 0.1, 0.2)
    common = {"dataset": "toy", "device": "cpu", "question": "flexibility", "n": 50}
    lines = list(more)
    for variant, (family, encoder) in gaps.items():
        one = common | {"variant": variant, "standard_error": 0.01}
        for seed, off in enumerate(noise):
            values = {
                "log_likelihood": -100.0,
                "inference_gap": family + encoder + off,
                "approximation_gap": family + off / 2,
                "amortization_gap": encoder + off / 2,
            }
            lines += [one | {"seed": seed, "metric": m, "value": v} for m, v in values.items()]
            if variant != "input_dependent":
                base = dict(zip(GAPS[1:], gaps["input_dependent"]))
                for metric, its in zip(GAPS[1:], (family, encoder + off)):
                    pair = {"metric": f"{metric}_difference", "reference": "input_dependent"}
                    lines.append(one | {"seed": seed, "value": its - base[metric] + off / 4} | pair)
        lines.append(one | {"seed": 0, "metric": "simulated_slack", "value": slack})
    return Results(Path("results/toy/cpu"), rows.frame(lines))


def test_the_sentences_say_whose_gaps_are_others():
    gaps = {"input_dependent": (1.5, 3.5), "full_covariance": (0.3, 4.6), "flow": (1.46, 3.55)}
    (section,) = sections(made_up(gaps))
    assert section.takeaway == (
        "Of `input-dependent`'s inference gap of 5.00 ± 0.20 nats, at least 70 ± 1 % is the "
        "encoder's (amortization). "
        "Against `input-dependent`'s, the approximation gap is smaller for `full-covariance` "
        "(−1.20 ± 0.05); undecided for `flow` (−0.04 ± 0.05). "
        "Against `input-dependent`'s, the amortization gap is larger for `full-covariance` "
        "(+1.10 ± 0.25); undecided for `flow` (+0.05 ± 0.25)."
    )
    verdicts = section.tables[1].frame().verdict
    assert verdicts.tolist() == ["smaller", "larger", "undecided", "undecided"]


def test_log_likelihoods_differ_by_elbo_over_all_images_and_the_gap():
    """Of few images the gap alone: flow's is 0.1 smaller, its ELBO 0.5 higher."""
    at = {"dataset": "toy", "device": "cpu", "question": "headline", "metric": "elbo_difference"}
    at |= {"variant": "flow", "reference": "input_dependent"}
    whole = [at | {"seed": seed, "value": 0.5 + off} for seed, off in enumerate((-0.02, 0, 0.02))]
    gaps = {"input_dependent": (1.5, 3.5), "flow": (1.4, 3.5)}
    few = [
        at
        | {"question": "flexibility", "metric": f"{name}_difference", "seed": seed, "value": value}
        for name, value in {"log_likelihood": -7.0, "inference_gap": -0.1}.items()
        for seed in range(3)
    ]
    found = differences(made_up(gaps, more=[*whole, *few]))
    assert found["flow", "log_likelihood"].mean == pytest.approx(0.4)
    assert found["flow", "log_likelihood"].half_width == pytest.approx(
        4.303 * 0.02 / 3**0.5, rel=1e-3
    )
    alone = differences(made_up(gaps, more=few))
    assert alone["flow", "log_likelihood"].mean == -7


def test_seeds_that_agree_by_chance_do_not_narrow_what_their_images_tell():
    """Three equal seeds, each of 50 images with an error of 0.3: 1.96 · 0.3 / √3, not 0."""
    gaps = {"input_dependent": (1.5, 3.5), "flow": (1.4, 3.5)}
    at = {"dataset": "toy", "device": "cpu", "question": "flexibility", "variant": "flow"}
    at |= {"reference": "input_dependent", "metric": "inference_gap_difference", "value": -0.1}
    few = [at | {"seed": seed, "standard_error": 0.3, "n": 50} for seed in range(3)]
    found = differences(made_up(gaps, more=few))["flow", "inference_gap"]
    assert found.mean == pytest.approx(-0.1)
    assert found.half_width == pytest.approx(1.976 * 0.3 / 3**0.5, rel=1e-3)
    alone = differences(made_up(gaps, more=few[:1]))["flow", "inference_gap"]
    assert alone.n == 1


def test_what_the_likelihood_lacks_stands_beside_the_intervals():
    gaps = {"input_dependent": (1.5, 3.5), "flow": (1.4, 3.5)}
    annealed = {
        "dataset": "toy",
        "device": "cpu",
        "variant": "input_dependent",
        "seed": 0,
        "question": "flexibility",
        "metric": "annealed_difference",
        "value": -0.007,
        "standard_error": 0.013,
        "n": 100,
    }
    (section,) = sections(made_up(gaps, more=[annealed]))
    assert section.notes.startswith(
        "On average log p(x) is too low by less than U_K − L_K, on images simulated from the "
        "models: 0.006 ± 0.020 nats for flow, whose interval reaches highest; its upper end is "
        "below the narrowest ± of an inference or approximation gap (0.0982); annealed importance "
        "sampling finds −0.007 ± 0.026 nats more for input-dependent."
    )
    more = annealed | {"variant": "flow", "value": 0.02}
    (section,) = sections(made_up(gaps, more=[annealed, more]))
    said = "0.020 ± 0.026 nats more for flow, whose interval reaches highest of 2."
    assert said in section.notes
    assert len(section.tables) == 3
    (section,) = sections(made_up(gaps, slack=0.3))
    assert "its upper end is not below the narrowest ±" in section.notes
    rough = annealed | {"variant": "flow", "metric": "simulated_slack", "value": 0.002}
    (section,) = sections(made_up({"input_dependent": (1.5, 3.5)}, more=[rough]))
    assert "0.002 ± 0.026 nats for flow, whose interval reaches highest; its upper" in section.notes


def test_rows_of_one_seed_without_checks_are_drawn():
    """What was stored before there were any."""
    whole = made_up({"input_dependent": (1.5, 3.5), "flow": (1.4, 3.5)})
    of_old = ["log_likelihood", *GAPS]
    (section,) = sections(replace(whole, rows=rows.select(whole.rows, metric=of_old, seed=0)))
    assert section.takeaway == (
        "Of `input-dependent`'s inference gap of 4.80 nats, at least 71 % is the encoder's "
        "(amortization)."
    )
    assert [table.name for table in section.tables] == ["flexibility"]
    assert section.notes.startswith("One line a variant")


@pytest.mark.parametrize(
    ("whole", "encoder", "expected"),
    [
        ([1.0, 3.0], [1.0, 1.5], math.nan),
        ([2.0, 3.0, 4.0], [2.0, 1.5, 1.0], 50),
        ([1.0, 3.0, 4.0, 4.0], [1.0, 1.5, 2.0, 2.0], 650 / 12),
        ([-0.1, 3.0, 3.0, 3.0, 3.0], [0.1, 1.5, 1.5, 1.5, 1.5], 610 / 11.9),
        ([-1.0, 1.0], [1.0, 1.0], math.nan),
        ([2.0], [1.0], 50),
    ],
)
def test_the_share_is_of_the_mean_gap_where_that_is_told_from_zero(whole, encoder, expected):
    """One seed without a gap spoils no ratio of means; two seeds do not tell 2 ± 12 from zero."""
    lines = [
        line("input_dependent", seed, f"{name}_gap", value, "flexibility")
        for name, values in (("inference", whole), ("amortization", encoder))
        for seed, value in enumerate(values)
    ]
    assert share(rows.frame(lines)).mean == pytest.approx(expected, nan_ok=True)


def test_a_gap_of_nothing_has_no_shares():
    (section,) = sections(made_up({"input_dependent": (0.0, 0.0), "flow": (1.0, 1.0)}))
    assert "is the encoder's" not in section.takeaway


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.5, "higher for `flow` (+0.50 ± 0.20)."),
        (-0.5, "lower for `flow` (−0.50 ± 0.20)."),
        (0.1, "undecided for `flow` (+0.10 ± 0.20)."),
    ],
)
def test_the_takeaway_follows_the_numbers(difference, words):
    richer = claims({"flow": Estimate(difference, 0.2, 5)})
    assert takeaway_of({}, richer, Estimate(), {}).endswith(words)


def test_what_counts_as_equal_says_within_what():
    richer = claims({"flow": Estimate(-0.01, 0.02, 5)}, tolerance=0.05)
    said = takeaway_of({}, richer, Estimate(), {})
    assert said.endswith(": within 0.05 nats for `flow` (−0.01 ± 0.02).")
