"""How the gradient's noise grows with the number of latents, as a table and a sentence."""

from __future__ import annotations

import math

import pytest

from bench.grid.contract import Row
from bench.questions.gradient_scaling import LATENT_DIMS
from bench.questions.gradient_scaling.report import sections
from tests.stored import lines_of, printed, stored

SCATTER = (0.9, 1.0, 1.1)
"""What a seed's variances are multiplied by."""


def rows(dims=LATENT_DIMS, estimators=(("pathwise", 2, 2), ("score_function", 3, 3)), factor=1.0):
    """Variances of 2 L² and 3 L³, times a factor."""
    return [
        Row(
            "total_variance",
            factor * scale * L**power,
            "nats²",
            {"L": L, "stage": stage, "S": 2, "estimator": name},
            0.01,
            10,
        )
        for stage in ("initialisation", "trained")
        for name, scale, power in estimators
        for L in dims
    ]


def made_up(seeds=1, **options):
    found = [
        ("input_dependent", s, rows(factor=SCATTER[s - 2] if seeds == 1 else SCATTER[s], **options))
        for s in range(seeds)
    ]
    (section,) = sections(stored("gradient_scaling", found))
    return section, printed(section)["gradient_scaling"]


def test_no_rows_no_section():
    assert sections(stored("gradient_scaling", [])) == []


def test_the_table_and_sentence_of_gradient_scaling():
    section, table = made_up()
    takeaway = section.takeaway
    assert "to the power 2.00 ± 0.00 (`pathwise`) to 3.00 ± 0.00 (`score function`)" in takeaway
    assert "3.00 times noisier than pathwise at L = 2 and 75.0 times at L = 50" in takeaway
    (line,) = lines_of(table, "after a short training", "score function")
    assert line[-2:] == ["3.00 ± 0.00", "1.00"]
    assert len(section.figures) == 1


def test_the_exponent_s_interval_is_from_all_trainings():
    """15 points, so 13 degrees of freedom."""
    section, table = made_up(seeds=3)
    scatter = [math.log(factor) for factor in SCATTER]
    center = [math.log(L) for L in LATENT_DIMS]
    spread = sum((c - sum(center) / 5) ** 2 for c in center) * 3
    residual = sum((v - sum(scatter) / 3) ** 2 for v in scatter) * 5
    expected = 2.160369 * math.sqrt(residual / 13 / spread)
    (line,) = lines_of(table, "initialisation", "pathwise")
    assert line[-2] == f"2.00 ± {expected:.2f}"
    assert "3 seed" in section.notes


def test_what_is_no_power_law_has_no_exponent():
    """A wave: R² < 0.9."""
    flat = [Row(r.metric, 2 + math.sin(r.settings["L"]), r.unit, r.settings) for r in rows()]
    (section,) = sections(stored("gradient_scaling", [("input_dependent", 0, flat)]))
    (line,) = lines_of(printed(section)["gradient_scaling"], "initialisation", "pathwise")
    assert line[-2] == "no power law"
    assert "to the power" not in section.takeaway
    assert "follows no power law for `pathwise` and `score function`" in section.takeaway


@pytest.mark.parametrize("options", [{"dims": (2, 5)}, {"estimators": (("rloo", 1, 1),)}])
def test_few_rows_make_a_section_too(options):
    section, table = made_up(**options)
    if "dims" in options:
        assert lines_of(table, "initialisation", "pathwise")[0][-2] == "–"
        assert "power" not in section.takeaway
