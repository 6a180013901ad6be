"""Verdicts that hold together, and the sentences made of them."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bench.report.claims import (
    BEATS,
    EQUAL,
    TRAILS,
    UNDECIDED,
    claims,
    listing,
    sentence,
    sentence_case,
)
from bench.statistics import Estimate


def difference(p_value: float, n: int = 10) -> Estimate:
    """One whose two-sided t-test gives this p-value."""
    mean = 2.0
    error = mean / stats.t.isf(p_value / 2, n - 1)
    return Estimate(mean, stats.t.ppf(0.975, n - 1) * error, n)


def test_verdicts_are_those_of_holms_procedure():
    # Holm (1979): ordered 0.005, 0.01, 0.03, 0.04 against 0.0125, 0.0167, 0.025, 0.05
    found = claims({str(p): difference(p) for p in (0.01, 0.04, 0.03, 0.005)})
    assert {c.subject: c.verdict for c in found} == {
        "0.01": BEATS,
        "0.04": UNDECIDED,
        "0.03": UNDECIDED,
        "0.005": BEATS,
    }


def test_a_single_comparison_is_a_t_test():
    assert claims({"a": difference(0.049)})[0].verdict == BEATS
    assert claims({"a": difference(0.051)})[0].verdict == UNDECIDED


def test_the_sign_decides_who_beats():
    values = [1.0, 1.1, 0.9]
    assert claims({"a": values})[0].verdict == BEATS
    assert claims({"a": values}, higher_is_better=False)[0].verdict == TRAILS
    assert claims({"a": [-v for v in values]})[0].verdict == TRAILS


def test_what_lies_within_a_tolerance_is_equal_interval_and_all():
    """Told from zero or not; a mean within it whose interval is not is no such thing."""
    found = {
        "told": Estimate(0.03, 0.01, 5),
        "not told": Estimate(-0.01, 0.03, 5),
        "wide": Estimate(0.0, 0.06, 5),
        "beyond": Estimate(0.06, 0.001, 5),
        "one seed": Estimate(0.0, math.nan, 1),
    }
    verdicts = {c.subject: c.verdict for c in claims(found, tolerance=0.05)}
    assert [*verdicts.values()] == [EQUAL, EQUAL, UNDECIDED, BEATS, UNDECIDED]
    assert claims({"same": Estimate(0.0, 0.0, 5)})[0].verdict == UNDECIDED
    said = sentence(claims(found, tolerance=0.05), "beaten by", "above", "open", alike="like")
    assert (
        "beaten by `beyond` (0.0600 ± 0.0010); like `told` (+0.030 ± 0.010) and `not told`" in said
    )


def test_one_seed_and_no_seed_decide_nothing():
    assert claims({"a": [3.0]})[0].verdict == UNDECIDED
    assert claims({"a": [], "b": [math.nan]}) == []


def test_a_difference_equal_in_every_seed_is_certain():
    assert claims({"a": [0.5, 0.5]})[0].verdict == BEATS
    assert claims({"a": [0.0, 0.0]})[0].verdict == UNDECIDED


def test_false_verdicts_of_a_table_stay_below_five_percent():
    # 2000 tables of 6 null differences; the rate's own 3σ error is 0.015, passed by chance < 0.2 %
    random = np.random.default_rng(0)
    tables = random.normal(size=(2000, 6, 5))
    wrong = [any(c.decided for c in claims(dict(enumerate(table)))) for table in tables]
    assert np.mean(wrong) < 0.05 + 0.015


def test_of_ratios_one_is_equal():
    ratios = {"half": Estimate(0.5, 0.1, 9), "even": Estimate(1.05, 0.1, 9)}
    found = claims(ratios, higher_is_better=False, equal=1)
    assert sentence(found, "below", "above", "undecided against") == (
        "below `half` (0.50 ± 0.10); undecided against `even` (1.05 ± 0.10)"
    )


def test_a_sentence_groups_claims_by_verdict():
    found = claims(
        {
            "flow": [0.8, 0.9, 0.88],
            "fixed": [-3.7, -3.8, -3.75],
            "full": [0.1, -0.1, 0.2],
            "other": [2.0, 2.1, 2.05],
        }
    )
    assert sentence(found, "beaten by", "above", "undecided against") == (
        "beaten by `flow` (0.86 ± 0.13) and `other` (2.05 ± 0.12); above `fixed` (3.75 ± 0.12); "
        "undecided against `full` (+0.07 ± 0.38)"
    )


def test_one_verdict_for_all_is_a_range():
    found = claims({"a": Estimate(2.0, 0.1, 9), "b": Estimate(1.0, 0.1, 9)})
    said = sentence(found, "above", "below", "undecided for", every="every variant")
    assert said == "above every variant (1.00 ± 0.10 to 2.00 ± 0.10)"


def test_a_sentence_of_one_seed_says_so():
    found = claims({"flow": [1.0]})
    assert "(one seed)" in sentence(found, "beaten by", "above", "undecided against")


def test_words():
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(["a"]) == "a"
    assert listing([]) == ""
    assert sentence_case("it is so") == "It is so."
    assert sentence_case("") == ""
