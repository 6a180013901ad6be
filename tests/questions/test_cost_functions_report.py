"""Where pathwise loses, as a table and a sentence."""

from __future__ import annotations

import pytest

from bench.grid.contract import Row
from bench.questions.cost_functions.report import formula, sections
from tests.stored import lines_of, printed, stored


def rows(pathwise, k=(1.0, 2.0, 5.0), cost="cosine", off=0.0, other="score_function"):
    """The other 1 everywhere, pathwise as given, sampled `off` standard errors away."""
    found = []
    for parameter in ("location", "scale"):
        for at, value in zip(k, pathwise):
            for name, exact in (("pathwise", value), (other, 1.0)):
                here = {"cost_function": cost, "k": at, "estimator": name, "parameter": parameter}
                found.append(Row("exact_variance", exact, "1", here))
                found.append(Row("sampled_variance", exact + off * 0.01, "1", here, 0.01, 100))
    return found


def made_up(*args, **options):
    found = rows(*args, **options)
    (section,) = sections(stored("cost_functions", [("input_dependent", 0, found)]))
    return section, printed(section)


def test_no_rows_no_section():
    assert sections(stored("cost_functions", [])) == []


@pytest.mark.parametrize(
    ("pathwise", "place"),
    [
        ((0.1, 2, 9), "for cos kx from k = 2 to 5 (∂/∂μ and ∂/∂σ)"),
        ((2, 2, 9), "for cos kx at every k measured (∂/∂μ and ∂/∂σ)"),
        ((2, 0.2, 9), "for cos kx at k = 1 and 5 (∂/∂μ and ∂/∂σ)"),
        ((0.1, 0.2, 3), "for cos kx at k = 5 (∂/∂μ and ∂/∂σ)"),
        ((0.1, 0.2, 0.3), "nowhere that was measured"),
    ],
)
def test_where_pathwise_is_noisier(pathwise, place):
    section, _ = made_up(pathwise)
    assert section.answer == (
        "without a model, for the gradient of E f(x), x ~ N(1, 1), from one sample, pathwise is "
        f"noisier than `score function` {place}"
    )
    assert f"pathwise is noisier than `score function` {place}." in section.takeaway


def test_what_takes_more_values_of_f_is_a_comparison_of_its_own():
    own = rows((0.1, 2, 9)) + rows(
        (0.1, 2, 3, 0.5), (-1.0, 0.0, 1.0, 2.0), "quadratic", other="measure_valued"
    )
    (section,) = sections(stored("cost_functions", [("input_dependent", 0, own)]))
    assert section.takeaway.startswith(
        "With one sample of x ~ N(1, 1), pathwise is noisier than `score function` for cos kx from "
        "k = 2 to 5 (∂/∂μ and ∂/∂σ). Pathwise is noisier than `measure-valued`, which takes four "
        "values of f, for (x − k)² from k = 0 to 1 (∂/∂μ and ∂/∂σ)."
    )
    assert "; than `measure-valued`, which takes" in section.answer


def test_a_cost_function_where_it_never_is_says_at_which_k():
    found = rows((0.1, 2, 9)) + rows((0.1, 0.2, 0.3), cost="quadratic")
    (section,) = sections(stored("cost_functions", [("input_dependent", 0, found)]))
    assert "; for (x − k)² it is so at no k measured." in section.takeaway


def test_the_table_has_both_variances_and_the_sentence_how_far_they_are_apart():
    section, tables = made_up((0.1, 2, 9), off=1.5)
    assert "The 12 sampled variances are within 1.5 standard errors" in section.takeaway
    (line,) = lines_of(tables["cost_functions"], "cos 5x", "∂/∂μ")
    assert line[2:] == ["9.00", "9.015 ± 0.020", "1.00", "1.015 ± 0.020"]
    assert len(section.figures) == 1
    section, _ = made_up((0.1, 2, 9), off=1.51)
    assert "variances are within 1.6 standard errors" in section.takeaway


def test_a_line_breaks_where_a_variance_is_zero_and_no_data_are_named():
    section, _ = made_up((0.1, 0.0, 9))
    drawn = section.figures[0].specification("small")
    assert drawn["title"] == "Where the pathwise gradient loses"
    points = [point for some in drawn["datasets"].values() for point in some]
    at = {p["k"]: p["value"] for p in points if p["estimator"] == "pathwise"}
    assert at == {1: 0.1, 2: None, 5: 9}
    assert section.figures[0].png("small")
    assert "pathwise 4.5" in section.figures[0].alt


def test_one_estimator_makes_a_section_too():
    found = [row for row in rows((1, 2, 3)) if row.settings["estimator"] == "pathwise"]
    (section,) = sections(stored("cost_functions", [("input_dependent", 0, found)]))
    printed(section)
    assert section.answer == ""
    assert section.takeaway.startswith("Pathwise was measured beside no other estimator.")


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (("quadratic", -3.0), "(x + 3)²"),
        (("quadratic", 0.0), "x²"),
        (("quadratic", 1.0), "(x − 1)²"),
        (("exponential", 10.0), "exp(−10x²)"),
        (("cosine", 5.0), "cos 5x"),
    ],
)
def test_formulas(case, text):
    assert formula(*case) == text
