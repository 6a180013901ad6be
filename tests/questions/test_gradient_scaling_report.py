"""How the gradient's noise grows with the number of latents, as a table and a sentence."""

from __future__ import annotations

import math
import re
from dataclasses import replace

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
    ends = "2.00 ± 0.00 (`pathwise`) to 3.00 ± 0.00 (`score function`)"
    assert f"a power of L for 2 of 2 estimators, with measured exponents of {ends}" in takeaway
    assert takeaway.endswith(
        "After a short training the raw score function's variance as a multiple of pathwise's is "
        "3.00 at L = 2 (one seed) and 75.0 at L = 50 (one seed)."
    )
    (line,) = lines_of(table, "after a short training", "score function")
    assert line[-4:] == ["3.00 ± 0.00", "above", "1.0000", "yes"]
    assert len(section.figures) == 1


def test_the_exponent_s_interval_is_from_all_trainings():
    """15 points, so 13 degrees of freedom."""
    _, table = made_up(seeds=3)
    scatter = [math.log(factor) for factor in SCATTER]
    center = [math.log(L) for L in LATENT_DIMS]
    spread = sum((c - sum(center) / 5) ** 2 for c in center) * 3
    residual = sum((v - sum(scatter) / 3) ** 2 for v in scatter) * 5
    expected = 2.160369 * math.sqrt(residual / 13 / spread)
    (line,) = lines_of(table, "initialisation", "pathwise")
    assert line[-4] == f"2.00 ± {expected:.2f}"


def test_what_is_no_power_law_has_a_mean_slope_alone():
    """A wave: R² < 0.9."""
    flat = [Row(r.metric, 2 + math.sin(r.settings["L"]), r.unit, r.settings) for r in rows()]
    (section,) = sections(stored("gradient_scaling", [("input_dependent", 0, flat)]))
    (line,) = lines_of(printed(section)["gradient_scaling"], "initialisation", "pathwise")
    assert line[-1] == "not claimed"
    assert "measured exponents" not in section.takeaway
    said = (
        "fits no power of L well enough to be called one (R² < 0.9) for `pathwise` and `score "
        "function`, with slopes of "
    )
    assert said in section.takeaway


def test_what_hardly_depends_on_the_number_of_latents_is_said_so():
    """A power of 0.03, whose line fits well or not."""
    for scatter in (0.0, 0.01):
        found = [
            Row(r.metric, r.settings["L"] ** 0.03 * (1 + scatter * (-1) ** i), r.unit, r.settings)
            for i, r in enumerate(rows(estimators=(("pathwise", 2, 2),)))
        ]
        (section,) = sections(stored("gradient_scaling", [("input_dependent", 0, found)]))
        said = "at S = 2 hardly depends on L (power within ±0.1) for `pathwise`"
        assert section.takeaway.count(said) == 2
        (line,) = lines_of(printed(section)["gradient_scaling"], "initialisation", "pathwise")
        assert line[-1] == "hardly depends on L"


def with_score_function(of):
    """Three seeds whose score function's variance is multiplied by `of(seed, L)`."""
    found = []
    for seed in range(3):
        lines = rows(factor=SCATTER[seed])
        its = [
            replace(row, value=row.value * of(seed, row.settings["L"]))
            if row.settings["estimator"] == "score_function"
            else row
            for row in lines
        ]
        found.append(("input_dependent", seed, its))
    (section,) = sections(stored("gradient_scaling", found))
    return section.takeaway


def test_the_multiple_of_pathwise_s_variance_is_paired_by_seed_and_judged():
    """The seeds' own scatter of 10 % cancels, the multiple's of 1 % and 50 % stays."""
    takeaway = with_score_function(lambda seed, L: (0.99, 1.01, 0.99)[seed])
    assert re.search(r"is 2\.990 ± 0\.086 at L = 2 and 74\.8 ± 2\.2 at L = 50\.$", takeaway)
    takeaway = with_score_function(lambda seed, L: (0.2, 0.4, 0.7)[seed] if L == 2 else 1)
    assert re.search(r"is 1\.\d+ ± [\d.]+ at L = 2 \(undecided\) and 75\.0", takeaway)


def test_exponents_are_told_from_zero_together():
    """Of one seed and three L: a line that fits well, and whose interval holds zero."""
    at = {"stage": "trained", "S": 2, "estimator": "pathwise"}
    lines = [
        Row("total_variance", value, "nats²", {"L": L} | at)
        for L, value in {2: 1.0, 5: 1.2, 10: 1.6}.items()
    ]
    (section,) = sections(stored("gradient_scaling", [("input_dependent", 0, lines)]))
    assert "(`pathwise`, undecided against 0)" in section.takeaway
    (line,) = printed(section)["gradient_scaling"].lines
    assert line[-3].text == "undecided"


@pytest.mark.parametrize("options", [{"dims": (2, 5)}, {"estimators": (("rloo", 1, 1),)}])
def test_few_rows_make_a_section_too(options):
    section, table = made_up(**options)
    if "dims" in options:
        assert lines_of(table, "initialisation", "pathwise")[0][-2] == "–"
        assert "power" not in section.takeaway
