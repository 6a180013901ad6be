"""How the gradient's noise grows with the number of latents, as a table and a sentence."""

from __future__ import annotations

import pytest

from bench.grid.contract import Row
from bench.questions.gradient_scaling import LATENT_DIMS
from bench.questions.gradient_scaling.report import sections
from tests.stored import lines_of, printed, stored


def rows(dims=LATENT_DIMS, estimators=(("pathwise", 2, 2), ("score_function", 3, 3))):
    """Variances of 2 L² and 3 L³."""
    return [
        Row(
            "total_variance",
            factor * L**power,
            "nats²",
            {"L": L, "stage": stage, "S": 2, "estimator": name},
            0.01,
            10,
        )
        for stage in ("initialisation", "trained")
        for name, factor, power in estimators
        for L in dims
    ]


def made_up(**options):
    (section,) = sections(stored("gradient_scaling", [("input_dependent", 0, rows(**options))]))
    return section, printed(section)["gradient_scaling"]


def test_no_rows_no_section():
    assert sections(stored("gradient_scaling", [])) == []


def test_the_table_and_sentence_of_gradient_scaling():
    section, table = made_up()
    takeaway = section.takeaway
    assert "to the power 2.00 ± 0.00 (`pathwise`) to 3.00 ± 0.00 (`score function`)" in takeaway
    assert "3.00 times noisier than pathwise at L = 2 and 75.0 times at L = 50" in takeaway
    (line,) = lines_of(table, "after a short training", "score function")
    assert line[-1] == "3.00 ± 0.00"
    assert len(section.figures) == 1


def test_two_points_have_no_interval():
    section, table = made_up(dims=(2, 5))
    assert "3.00 (`score function`, two points and no interval)" in section.takeaway
    assert lines_of(table, "initialisation", "pathwise")[0][-1] == "2.00‡"


@pytest.mark.parametrize("options", [{"dims": (2,)}, {"estimators": (("rloo", 1, 1),)}])
def test_few_rows_make_a_section_too(options):
    section, _ = made_up(**options)
    assert "noisier than pathwise" not in section.takeaway
