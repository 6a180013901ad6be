"""Tables and sentences of the gradient's noise."""

from __future__ import annotations

import math

import pytest

from bench.grid.contract import Row
from bench.questions.gradient_noise import STAGES
from bench.questions.gradient_noise import measure as gradient_noise
from bench.questions.gradient_noise.report import sections
from tests.posteriors import Mixture, Overflowing, perturbed
from tests.stored import lines_of, printed, stored
from tests.subjects import of_digits
from vaes import discover


def test_no_rows_no_section():
    assert sections(stored("gradient_noise", [])) == []


@pytest.fixture(scope="module")
def measured():
    """(variant, seed, rows) of real measurements, with few repetitions."""
    variants = {"input_dependent": discover().variants["input_dependent"]}
    variants |= {"mixture": Mixture, "overflowing": Overflowing}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_noise, "ROUNDS", 1)
        patch.setattr(gradient_noise, "DECODER_DRAWS", 4)
        return [
            (name, 0, gradient_noise.measure(of_digits(perturbed(variant, 64)), 2, 300).rows)
            for name, variant in variants.items()
        ]


def test_the_tables_of_gradient_noise(measured):
    (section,) = sections(stored("gradient_noise", measured))
    tables = printed(section)
    assert set(tables) == {"gradient_ratio", "gradient_variance", "decoder_variance"}
    (first,) = lines_of(tables["gradient_ratio"], "initialisation", "pathwise")
    assert [text.strip("*") for text in first[2:]] == ["1.00", "n/a", "n/a"]
    (mixture,) = lines_of(tables["gradient_variance"], "mixture", "best weights", "pathwise")
    assert mixture[4] == "n/a"
    assert lines_of(tables["gradient_ratio"], "best weights", "leave-one-out (S = 4)")
    assert "not finite" in section.notes
    assert "Kingma" in section.notes
    assert "input-dependent" in section.takeaway
    assert "× the variance of pathwise" in section.answer
    names = [figure.name for figure in section.figures]
    assert names == ["gradient_variance_by_stage", "gradient_efficiency"]


@pytest.mark.parametrize(
    "keep",
    [
        lambda row: row.settings["stage"] != "best",
        lambda row: row.settings["S"] == 1,
        lambda row: row.settings.get("estimator") != "pathwise",
        lambda row: row.settings.get("estimator") == "rloo",
        lambda row: row.metric == "decoder_variance",
        lambda row: bool(row.reason),
    ],
)
def test_part_of_the_rows_makes_a_section_too(measured, keep):
    some = [(name, seed, list(filter(keep, rows))) for name, seed, rows in measured]
    (section,) = sections(stored("gradient_noise", some))
    printed(section)


def made_up(ratios, errors=0.01):
    """A variant's rows at S = 1, with these variance ratios to pathwise."""
    rows = []
    for stage in STAGES:
        for name, ratio in ({"pathwise": 1.0} | ratios).items():
            where = {"stage": stage, "S": 1, "estimator": name}
            own = 0.0 if name == "pathwise" else errors
            rows += [
                Row("total_variance", 8 * ratio, "nats²", where, 8 * own, 1000),
                Row("variance_ratio", ratio, "1", where | {"reference": "pathwise"}, own, 1000),
                Row("efficiency", 1 / ratio, "1", where | {"reference": "pathwise"}, own, 1000),
            ]
    return rows


def test_the_sentence_orders_estimators_by_verdict():
    ratios = {"score_function": 90.0, "sticking_the_landing": 0.5, "pathwise_sampled_kl": 1.005}
    rows = [("input_dependent", 0, made_up(ratios))]
    (section,) = sections(stored("gradient_noise", rows))
    printed(section)
    takeaway = section.takeaway
    assert "quieter than pathwise: `sticking the landing` (0.500 ± 0.020)" in takeaway
    assert "noisier than pathwise: `score function` (90.000 ± 0.020)" in takeaway
    assert "undecided against pathwise: `pathwise, sampled KL` (1.005 ± 0.020)" in takeaway
    assert "`sticking the landing` gives most, 2.000 ± 0.020 times" in takeaway
    assert "`sticking the landing` 0.500 ± 0.020 × and" in section.answer
    assert section.answer.endswith("90.000 ± 0.020 × the variance of pathwise")
    assert "sampled KL" not in section.answer


def test_the_slope_in_s_has_an_interval_from_three_points_on():
    def total(samples, value, name):
        settings = {"stage": "best", "S": samples, "estimator": name}
        return Row("total_variance", value, "nats²", settings, 0.01, 100)

    three = [total(s, v, "pathwise") for s, v in ((1, 8.0), (4, 2.1), (16, 0.5))]
    two = [total(s, 8 / s, "rloo") for s in (4, 16)]
    (section,) = sections(stored("gradient_noise", [("flow", 0, three + two)]))
    table = printed(section)["gradient_variance"]
    (with_interval,) = lines_of(table, "flow", "best weights", "pathwise")
    (without,) = lines_of(table, "flow", "best weights", "leave-one-out (S = 4)")
    assert with_interval[-1].startswith("−1.00 ± ")
    assert without[-1] == "−1.00‡"
    assert "from two points" in section.notes


def test_a_capped_variance_is_marked():
    settings = {"stage": "best", "S": 1, "estimator": "pathwise", "capped": True}
    rows = [Row("total_variance", 8.0, "nats²", settings, 1.0, 100)]
    (section,) = sections(stored("gradient_noise", [("flow", 0, rows)]))
    (line,) = lines_of(printed(section)["gradient_variance"], "flow", "best weights", "pathwise")
    assert any(text.strip("*").endswith("†") for text in line)
    assert math.isnan(section.tables[0].lines[0][3].value)
