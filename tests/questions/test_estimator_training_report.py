"""Trainings by estimator: paired differences, verdicts, learning curves."""

from __future__ import annotations

import json
import math

import pytest

from bench.grid.contract import Row
from bench.questions.estimator_training.report import sections
from tests.stored import lines_of, printed, stored

NATS = "nats/image"


def training(budget, name, elbo, steps=9):
    """Rows of one training that ends at this ELBO."""
    where = {"budget": budget, "estimator": name, "S": 1}
    rows = [
        Row("elbo", elbo, NATS, where | {"steps": steps}),
        Row("training_seconds", 3.0, "s", where | {"steps": steps}),
    ]
    for step, seconds, valid in ((5, 1.0, elbo - 20), (steps, 3.0, elbo)):
        rows.append(Row("valid_elbo", valid, NATS, where | {"step": step}))
        rows.append(Row("elapsed", seconds, "s", where | {"step": step}))
    return rows


def made_up(gains, seeds=3, more=(), budgets=("equal_steps", "equal_time")):
    """Trainings whose ELBO differs from pathwise's by `gains[name](seed)`; seeds by 10 nats."""
    found = [
        (
            "input_dependent",
            seed,
            [
                row
                for budget in budgets
                for name, gain in ({"pathwise": lambda seed: 0} | gains).items()
                for row in training(budget, name, 10 * seed - 100 + gain(seed))
            ]
            + list(more),
        )
        for seed in range(seeds)
    ]
    (section,) = sections(stored("estimator_training", found))
    return section, printed(section)["estimator_training"]


def test_no_rows_no_section():
    assert sections(stored("estimator_training", [])) == []


def test_differences_are_paired_by_seed():
    """2 ± 0 here, although seeds differ by 10 nats."""
    where = {"budget": "equal_steps", "estimator": "measure_valued"}
    left_out = [Row("elbo", math.nan, NATS, where, reason="too dear")]
    section, table = made_up({"sticking_the_landing": lambda seed: 2}, more=left_out)
    assert "above pathwise, in nats: `sticking the landing` (2.00 ± 0.00)" in section.takeaway
    assert "(9 steps of pathwise, 3 seeds)" in section.takeaway
    assert section.answer.startswith("yes; at equal steps above pathwise, in nats: ")
    (line,) = lines_of(table, "equal steps", "measure-valued")
    assert line[4] == "n/a"
    assert not lines_of(table, "equal predicted time", "measure-valued")
    (line,) = lines_of(table, "equal steps", "sticking the landing")
    assert line[5:7] == ["+2.00 ± 0.00", "beats"]
    assert "too dear (measure-valued)" in section.notes


def test_an_undecided_difference_is_said_to_be_so():
    section, table = made_up({"rloo": lambda seed: (-3, 1, 5)[seed]})
    assert "undecided against pathwise: `leave-one-out`" in section.takeaway
    assert section.answer.startswith("undecided at equal steps for all 1; the highest is `leave-")
    assert section.answer.endswith("by +1.00 ± 9.94 nats")
    line = lines_of(table, "equal steps", "leave-one-out")[0]
    assert line[5:7] == ["+1.00 ± 9.94", "undecided"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_undecided_estimator_whose_every_seed_is_apart_is_said_to_be_so(sign):
    side = "below" if sign < 0 else "above"
    spread = {"rloo": lambda seed: sign * (50, 500, 3000)[seed]}
    section, table = made_up(spread)
    assert f"undecided, with every seed {side} pathwise's: `leave-one-out`" in section.takeaway
    assert "1 of them with every seed on one side of pathwise's" in section.answer
    verdict = lines_of(table, "equal steps", "leave-one-out")[0][6]
    assert verdict.startswith(f"undecided; every seed {side} pathwise's (")
    low, high = sorted(10 * seed - 100 + spread["rloo"](seed) for seed in (0, 2))
    assert verdict.endswith(
        f"({low:,.{2 * (low > -1000)}f} to {high:,.{2 * (low > -1000)}f})".replace("-", "−")
    )


def test_seeds_that_broke_or_overlap_are_not_apart():
    broken, _ = made_up({"rloo": lambda seed: math.nan if seed == 2 else 500})
    overlapping, _ = made_up({"rloo": lambda seed: (3, -30, -500)[seed]})
    single, _ = made_up({"rloo": lambda seed: -500}, seeds=1)
    for section in (broken, overlapping, single):
        assert "every seed" not in section.takeaway + section.answer


def test_an_estimator_left_out_of_any_budget_stands_in_both():
    where = {"budget": "any", "estimator": "rloo"}
    _, table = made_up({}, more=[Row("elbo", math.nan, NATS, where, reason="needs S of 8")])
    for budget in ("equal steps", "equal predicted time"):
        assert lines_of(table, budget, "leave-one-out")[0][4] == "n/a"


def test_a_diverging_training_stays_in_the_frame_and_one_that_broke_is_told_of():
    gains = {
        "score_function": lambda seed: -5000 if seed == 1 else -3,
        "rloo": lambda seed: math.nan if seed == 2 else 1,
    }
    section, table = made_up(gains)
    (figure,) = section.figures
    specification = figure.specification("digits")
    panels = specification["hconcat"]
    assert len(panels) == 2
    scale = json.dumps(panels[0])
    assert '"symlog"' in scale
    assert "domain" not in [
        key for layer in panels[0]["layer"] for key in layer["encoding"]["y"]["scale"]
    ]
    values = [row for data in specification["datasets"].values() for row in data]
    assert max(row["below"] for row in values if row["estimator"] == "score function") > 1000
    assert len([r for r in values if r["estimator"] == "score function"]) == 2 * 2
    (line,) = lines_of(table, "equal steps", "leave-one-out")
    assert line[4].strip("*").endswith("(seed 2 diverged)")


@pytest.mark.parametrize("options", [{"seeds": 1}, {"budgets": ("equal_time",)}, {"gains": {}}])
def test_few_rows_make_a_section_too(options):
    section, _ = made_up(**{"gains": {"rloo": lambda seed: -1.0}} | options)
    assert "beats" not in section.answer
