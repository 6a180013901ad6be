"""Tables and sentences of the gradient's noise."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from scipy import stats

from bench.grid.contract import Row
from bench.questions.gradient_noise import STAGES, step_times
from bench.questions.gradient_noise import measure as gradient_noise
from bench.questions.gradient_noise.report import sections
from bench.report import rows as tidy
from tests.posteriors import Mixture, Overflowing, perturbed
from tests.stored import lines_of, printed, stored
from tests.subjects import of_digits
from vaes import discover

REFERENCE = "input_dependent"
SOME = ("pathwise", "pathwise_antithetic", "score_function", "rloo")
FIGURES = ["gradient_parts", "gradient_variance_by_stage", "gradient_efficiency"]


def test_no_rows_no_section():
    assert sections(stored("gradient_noise", [])) == []


@pytest.fixture(scope="module")
def measured():
    """(variant, seed, rows) of real measurements, with few repetitions."""
    variants = {REFERENCE: discover().variants[REFERENCE]}
    variants |= {"mixture": Mixture, "overflowing": Overflowing}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_times, "ROUNDS", 3)
        return [
            (name, 0, gradient_noise.measure(of_digits(perturbed(kind, 64)), 6, 200, SOME).rows)
            for name, kind in variants.items()
        ]


def test_the_tables_of_gradient_noise(measured):
    (section,) = sections(stored("gradient_noise", measured))
    tables = printed(section)
    assert set(tables) == {"gradient_split", "gradient_cost", "gradient_variance"}
    start = ("mixture", "best weights", "pathwise", "1")
    assert [line[4] for line in lines_of(tables["gradient_split"], *start)] == ["n/a"]
    (line,) = lines_of(tables["gradient_split"], "input-dependent", "best weights", "pathwise", "2")
    assert line[-1].strip("*") == "1.00"
    assert "–" not in line
    assert lines_of(tables["gradient_cost"], "mixture", "leave-one-out", "4")
    assert "not finite" in section.notes
    assert "Kingma" in section.notes
    assert [figure.name for figure in section.figures] == FIGURES


@pytest.mark.parametrize(
    "keep",
    [
        lambda row: row.settings["stage"] != "best",
        lambda row: row.settings.get("S", 1) == 1,
        lambda row: row.settings.get("estimator") != "pathwise",
        lambda row: row.settings.get("estimator") == "rloo",
        lambda row: row.metric in ("total_variance", "variance_ratio"),
        lambda row: bool(row.reason),
    ],
)
def test_part_of_the_rows_makes_a_section_too(measured, keep):
    some = [(name, seed, list(filter(keep, rows))) for name, seed, rows in measured]
    (section,) = sections(stored("gradient_noise", some))
    printed(section)


def test_results_without_the_whole_gradient_say_so(measured):
    old = ("total_variance", "variance_ratio", "location_variance", "scale_variance")
    some = [(name, seed, [r for r in rows if r.metric in old]) for name, seed, rows in measured]
    (section,) = sections(stored("gradient_noise", some))
    assert section.takeaway.startswith("The whole gradient's variance was not measured")
    assert section.answer == ""
    assert "gradient_variance" in printed(section)


def made_up(ratios, gains=None, shares=None, error=0.01):
    """A variant's rows, (estimator, S) → whole variance over pathwise's at that S."""
    rows = []
    for stage in STAGES:
        for (name, s), ratio in ({("pathwise", 1): 1.0} | ratios).items():
            here = {"stage": stage, "S": s, "estimator": name}
            own = 0.0 if name == "pathwise" else error
            one = here | {"reference": "pathwise", "reference_S": 1}
            gain = (gains or {}).get((name, s), 1 / ratio)
            share = (shares or {}).get((name, s), 0.8)
            rows += [
                Row("whole_variance", 8 * ratio, "nats²", here, 8 * own, 100),
                Row("monte_carlo_share", share, "1", here, 0.02, 100),
                Row("whole_variance_ratio", ratio, "1", here | {"reference": "pathwise"}, own, 100),
                Row("precision_per_pass", 1 / ratio / s, "1", one, own, 100),
                Row("precision_per_second", gain, "1", one, own, 100),
            ]
    return rows


RATIOS = {
    ("score_function", 1): 90.0,
    ("sticking_the_landing", 1): 0.5,
    ("pathwise_sampled_kl", 1): 1.005,
    ("pathwise_antithetic", 4): 0.7,
}


def section_of(rows, *others):
    results = stored("gradient_noise", [(REFERENCE, 0, rows)])
    more = [stored(question, [(REFERENCE, 0, its)]).rows for question, its in others]
    (section,) = sections(replace(results, rows=tidy.joined(results.rows, *more)))
    return section


def test_the_sentences_are_of_the_whole_gradient():
    rows = made_up(RATIOS, {("pathwise_antithetic", 4): 1.5}, {("pathwise_antithetic", 4): 0.12})
    section = section_of(rows)
    printed(section)
    takeaway = section.takeaway
    assert (
        "the noise of q makes up 80.0 ± 4.0 % with `pathwise (S = 1)` and, at the lowest measured, "
        "12.0 ± 4.0 % with `pathwise, antithetic (S = 4)`"
    ) in takeaway
    assert "quieter than pathwise: `sticking the landing (S = 1)` (0.500 ± 0.020)" in takeaway
    assert "noisier than pathwise: `score function (S = 1)` (90.000 ± 0.020)" in takeaway
    assert "undecided against pathwise: `pathwise, sampled KL (S = 1)` (1.005 ± 0.020)" in takeaway
    landing = "`sticking the landing (S = 1)`, 2.000 ± 0.020 times"
    highest = "The highest measured precision, 1 / variance, relative to `pathwise (S = 1)`, is"
    assert (
        f"{highest} per decoder pass that of {landing}; per second that of {landing}." in takeaway
    )
    assert section.answer.startswith(
        "of a minibatch gradient's variance, the noise of q makes up 80.0"
    )
    assert section.answer.endswith(
        "`sticking the landing (S = 1)`, 2.000 ± 0.020 times (of gradients; for trainings see "
        "*Does the gradient's noise matter?*)"
    )


def test_what_one_sample_does_not_admit_is_compared_at_its_least():
    rows = made_up({("pathwise_antithetic", 2): 0.5})
    at_one = {"stage": "best", "S": 1, "estimator": "pathwise_antithetic", "reference": "pathwise"}
    lacking = Row("whole_variance_ratio", math.nan, "1", at_one, reason="needs an even S")
    said = "quieter than pathwise: `pathwise, antithetic (S = 2)` (0.500 ± 0.020)"
    assert said in section_of([*rows, lacking]).takeaway


def test_no_more_precision_than_the_reference_s_is_said_so():
    section = section_of(made_up({("score_function", 1): 90.0}))
    assert "per second that of `pathwise (S = 1)` itself" in section.takeaway
    less = section_of(made_up({("rloo", 2): 0.99}, {("rloo", 2): 1.001}))
    assert (
        "per second that of `leave-one-out (S = 2)`, 1.001 ± 0.020 times (undecided)"
        in less.takeaway
    )


def test_the_base_is_no_comparison_of_its_own_family():
    """p = 0.03 for one other estimator: told, and not beside the base's comparison to itself."""
    gain = 1 + stats.t.isf(0.015, 99) * 0.01
    one = section_of(made_up({("sticking_the_landing", 1): 1 / gain}))
    assert one.takeaway.count("times (undecided)") == 0
    # the other's gain is exactly that of the base, as if the base were compared
    two = section_of(made_up({("sticking_the_landing", 1): 1 / gain, ("score_function", 1): 1.0}))
    assert two.takeaway.count("times (undecided among 2 comparisons)") == 2


def test_what_is_pathwise_by_another_name_shows_the_error_of_steps_times():
    rows = made_up(RATIOS | {("pathwise_sobol", 1): 1.0}, {("pathwise_sobol", 1): 1.14})
    said = "differs from pathwise only in how its noise is drawn, so that its precision"
    assert f"`pathwise, Sobol (S = 1)` {said}" in section_of(rows).takeaway
    assert said not in section_of(made_up(RATIOS)).takeaway
    without = [row for row in rows if row.settings["estimator"] != "pathwise"]
    assert said not in section_of(without).takeaway


def test_the_figure_of_precision_has_each_estimator_once_with_its_best_s():
    gains = {("rloo", 2): 0.2, ("rloo", 4): 0.4, ("pathwise", 4): 0.9}
    figure = section_of(made_up({key: 1.0 for key in gains}, gains)).figures[-1]
    datasets = figure.specification("digits")["datasets"].values()
    drawn = [row for data in datasets for row in data if "estimator" in row]
    points = {row["estimator"]: (row["S"], row["value"]) for row in drawn}
    assert points == {"pathwise": (1, 1.0), "leave-one-out": (4, 0.4)}
    assert len(drawn) == len(points)


def trained(elbos, **others):
    """Trainings of an equal time and the test ELBOs they reach, by (estimator, S)."""
    rows = []
    for (name, s), value in elbos.items():
        where = {"estimator": name, "S": s, "steps": 80} | others
        timed = Row("step_seconds", 0.1, "s", {"estimator": name, "S": s})
        rows += [Row("elbo", value, "nats", where), timed]
    return rows


@pytest.mark.parametrize(
    ("elbos", "words"),
    [
        (
            (-100, -150, -90, -105),
            "Kendall's τ is 1.00 among the 3 pathwise ones and 1.00 among all 4 after epoch 1 and "
            "at the best weights (of all, 6 of 6 pairs in the same order)",
        ),
        (
            (-100, -90, -110, -95),
            "Kendall's τ is −1.00 among the 3 pathwise ones and −1.00 among all 4 after epoch 1 "
            "and at the best weights (of all, 0 of 6 pairs in the same order)",
        ),
        ((-100, -90, -150, math.nan), "(of all, 2 of 6 pairs in the same order)"),
    ],
)
def test_precision_is_held_against_the_elbo_after_an_equal_time(elbos, words):
    """By precision: score function < sampled KL < pathwise < sticking the landing."""
    names = [("pathwise", 1), *list(RATIOS)[:3]]
    section = section_of(
        made_up(RATIOS),
        ("estimator_training", trained(dict(zip(names, elbos)), learning_rate=0.001)),
    )
    assert words in section.takeaway
    said = "of the estimators trained, `sticking the landing (S = 1)` has the highest measured"
    assert said in section.takeaway


def test_without_such_trainings_nothing_is_said_of_them():
    """Before rates were tuned there were none."""
    untuned = ("estimator_training", trained(RATIOS))
    assert "Kendall" not in section_of(made_up(RATIOS), untuned).takeaway


def test_a_capped_variance_is_marked():
    settings = {"stage": "best", "S": 1, "estimator": "pathwise", "capped": True}
    rows = [Row("total_variance", 8.0, "nats²", settings, 1.0, 100)]
    (section,) = sections(stored("gradient_noise", [("flow", 0, rows)]))
    start = ("flow", "best weights", "pathwise")
    (line,) = lines_of(printed(section)["gradient_variance"], *start)
    assert any(text.strip("*").endswith("†") for text in line)


def test_what_takes_more_decoder_passes_than_samples_says_so():
    rows = made_up({("score_function_baseline", 1): 5.0, ("sticking_the_landing", 1): 0.5})
    for stage, (name, passes) in itertools.product(
        STAGES, {"score_function_baseline": 17, "sticking_the_landing": 1}.items()
    ):
        here = {"stage": stage, "S": 1, "estimator": name}
        rows.append(Row("decoder_passes", passes, "passes/image", here))
    (section,) = sections(stored("gradient_noise", [(REFERENCE, seed, rows) for seed in range(3)]))
    assert (
        "noisier than pathwise: `score function, baseline (S = 1, 17 passes)`" in section.takeaway
    )
    assert "quieter than pathwise: `sticking the landing (S = 1)`" in section.takeaway
