"""Statistics against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from bench.statistics import (
    Estimate,
    between,
    from_error,
    holm,
    interval,
    mean_over_images,
    p_value,
    paired_difference,
    power_law,
    ratio_of_means,
    summary,
    welch_difference,
)


def test_interval_of_five_values_is_students():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = interval(values)
    # t of 4 degrees of freedom, 97.5 %: 2.776445; standard deviation √2.5
    assert found.mean == 3
    assert found.half_width == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert (found.low, found.high) == (found.mean - found.half_width, found.mean + found.half_width)
    assert found.n == 5


def test_interval_of_few_values():
    assert interval([2.0]).mean == 2
    assert math.isnan(interval([2.0]).half_width)
    assert not interval([])
    assert not interval([math.nan])
    assert interval([2.0, 2.0]) == Estimate(2.0, 0.0, 2)
    assert interval([1.0, math.nan, None, 3.0]).n == 2


def test_interval_covers_as_often_as_it_says():
    # 4000 samples of 5: the rate's 4σ error is 0.014, passed by chance 6e-5
    random = np.random.default_rng(1)
    found = [interval(values) for values in random.normal(size=(4000, 5))]
    covered = np.mean([e.low <= 0 <= e.high for e in found])
    assert covered == pytest.approx(0.95, abs=0.014)


def crossed(random: np.random.Generator, shared: bool) -> Estimate:
    """Five seeds' means over 40 images each, whose effects are crossed: seed + image + both.

    Of all 200 images either each seed has its own 40, or all seeds `shared` the same ones.
    """
    of_seed, of_image = random.normal(0, 0.2, (5, 1)), random.normal(0, 1, 200)
    values = of_seed + of_image + random.normal(0, 0.5, (5, 200))
    dealt = np.arange(200).reshape(5, 40)
    return interval(np.take_along_axis(values, dealt[:1] if shared else dealt, 1).mean(1))


def test_seeds_with_images_of_their_own_have_an_interval_over_both():
    """Of 4,000 samples, 4σ error 0.014, passed by chance 6e-5; with shared images it is blind to
    their choice, and covers far less often."""
    random = np.random.default_rng(2)
    found = {shared: [crossed(random, shared) for _ in range(4000)] for shared in (False, True)}
    covered = {
        shared: np.mean([e.low <= 0 <= e.high for e in some]) for shared, some in found.items()
    }
    assert covered[False] == pytest.approx(0.95, abs=0.014)
    assert covered[True] < 0.85


def test_a_ratio_of_means_covers_as_often_as_it_says():
    """Pairs whose means are 2 and 4 with correlated noise: first-order, hence a wider margin."""
    random = np.random.default_rng(3)
    common, own = random.normal(size=(2, 4000, 5)) * 0.5
    above, below = 2 + common + own, 4 + common
    found = [ratio_of_means(*pair) for pair in zip(above, below, strict=True)]
    assert np.mean([e.low <= 0.5 <= e.high for e in found]) == pytest.approx(0.95, abs=0.02)
    exact = ratio_of_means([2, 4, 6], [1, 2, 3])
    assert (exact.mean, exact.half_width, exact.n) == (2, 0, 3)
    assert ratio_of_means([1.0, 3.0], [-4.0, -4.0]).half_width == interval([0.25, 0.75]).half_width


def test_a_summary_is_the_interval_of_every_group():
    """Groups as they come; a group without a number has an estimate without one."""
    lines = [
        ("b", 1.0),
        ("b", 4.0),
        ("b", math.nan),
        ("a", 0.1),
        ("a", 0.1),
        ("c", 5.0),
        ("d", None),
    ]
    rows = pd.DataFrame(lines, columns=["variant", "value"]).assign(metric="elbo")
    found = summary(rows, "variant")
    assert [*found] == ["b", "a", "c", "d"]
    assert found["b"] == interval([1.0, 4.0])
    assert found["a"] == Estimate(pytest.approx(0.1), 0.0, 2)
    assert (found["c"].mean, found["c"].n) == (5, 1)
    assert math.isnan(found["c"].half_width)
    assert not found["d"]
    assert summary(rows, ["variant", "metric"])["b", "elbo"] == found["b"]
    assert summary(rows[:0], "variant") == {}


def test_a_standard_error_becomes_an_interval():
    assert from_error(3.0, 0.5, 10**6).half_width == pytest.approx(0.5 * 1.959964, rel=1e-4)
    assert from_error(3.0, 0.5, 5).half_width == pytest.approx(0.5 * 2.776445, rel=1e-6)
    assert math.isnan(from_error(3.0, math.nan, 5).half_width)


def test_mean_over_images_has_the_standard_error_of_a_mean():
    values = torch.arange(8, dtype=torch.float32)
    mean, error = mean_over_images(values)
    assert mean == 3.5
    assert error == pytest.approx(math.sqrt(6 / 8))  # the variance of 0…7 is 6


def test_paired_differences_leave_out_what_pairs_have_in_common():
    common = [10.0, 20.0, 30.0]
    rows = pd.DataFrame(
        [("a", seed, v + 1 + 0.1 * seed) for seed, v in enumerate(common)]
        + [("b", seed, v) for seed, v in enumerate(common)]
        + [("b", 3, 0.0)],
        columns=["variant", "seed", "value"],
    )
    found = paired_difference(rows, "a", "b")
    assert found.mean == pytest.approx(1.1)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert found.n == 3
    assert not paired_difference(rows, "a", "absent")


def test_slope_of_a_power_law_is_its_exponent():
    x = np.array([1, 4, 16, 64])
    assert power_law(x, 7 * x**-1.5).exponent.mean == pytest.approx(-1.5)
    assert power_law(x, 7 * x**-1.5).exponent.half_width == pytest.approx(0, abs=1e-9)
    two = power_law([1, 2], [1, 4]).exponent
    assert two.mean == pytest.approx(2)
    assert math.isnan(two.half_width)
    assert not power_law([1, 2], [1, math.nan]).exponent
    assert power_law([1, 2, 4, 8], [1, 2, 0, 8]).exponent.mean == pytest.approx(1)


def test_slope_has_the_interval_of_least_squares():
    y = np.exp([0.0, 1.1, 1.9, 3.0])
    found = power_law(np.exp([0, 1, 2, 3]), y).exponent
    # by hand: slope 0.98, residual sum of squares 0.018, sum of squares of x 5, t(2) = 4.302653
    assert found.mean == pytest.approx(0.98)
    assert found.half_width == pytest.approx(4.302653 * math.sqrt(0.018 / 2 / 5), rel=1e-5)


@pytest.mark.parametrize("points", [3, 5, 15])
def test_the_exponents_test_has_the_degrees_of_freedom_of_least_squares(points):
    x = np.arange(1.0, points + 1)
    y = x**0.4 * np.exp(0.3 * np.sin(7 * x))
    expected = stats.linregress(np.log(x), np.log(y)).pvalue
    assert p_value(power_law(x, y).exponent) == pytest.approx(expected)


def test_a_power_law_holds_where_its_line_explains_nine_tenths():
    """R² by hand: squares of x 5, of y 4.825, of the residual 0.023."""
    found = power_law(np.exp([0, 1, 2, 3]), np.exp([0.0, 1.1, 1.9, 3.0]))
    assert found.r_squared == pytest.approx(1 - 0.018 / 4.82)
    assert found.holds
    assert not power_law([1, 2, 4, 8], [1, 2, 1, 2]).holds
    assert not power_law([1, 2, 2], [1, 2, 2]).holds
    assert math.isnan(power_law([1, 2, 2], [1, 2, 2]).r_squared)


def test_welch_is_that_of_scipy():
    one, other = [1.0, 2.0, 4.0], [0.5, 0.4, 0.7, 0.2]
    found, test = welch_difference(one, other), stats.ttest_ind(one, other, equal_var=False)
    expected = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert p_value(found) == pytest.approx(test.pvalue)
    certain = welch_difference([0.1] * 3, [0.3] * 3)
    assert (certain.mean, certain.half_width) == (pytest.approx(-0.2), 0)


def test_holm_on_its_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.04]) == [True]
    assert holm([0.03, 0.03]) == [False, False]
    assert holm([0.024, 0.049]) == [True, True]
    assert holm([math.nan, 0.01]) == [False, True]
    assert holm([]) == []


def test_an_estimate_is_true_where_there_is_a_number():
    assert Estimate(0.0)
    assert not Estimate()
    assert stats.t.ppf(0.975, 4) == pytest.approx(2.776445, rel=1e-6)


def test_between_points_a_curve_is_read_nearer_than_on_its_chord():
    lengths = np.array([15, 30, 60, 120, 240])
    # what a loss that falls as a power of the length gives
    elbos = -100 - 40 / lengths**0.5
    for at in (40.0, 90.0, 200.0):
        true = -100 - 40 / at**0.5
        chord = np.interp(math.log(at), np.log(lengths), elbos)
        read = between(lengths, elbos, at)
        assert chord < read
        assert abs(read - true) < 0.35 * abs(chord - true)


def test_between_points_of_a_straight_line_it_is_the_line_and_beyond_them_the_nearest():
    lengths = [10, 20, 40]
    assert between(lengths, [1.0, 2.0, 3.0], 10 * 2**1.5) == pytest.approx(2.5)
    assert between(lengths, [1.0, 2.0, 3.0], 30.0) == pytest.approx(1 + math.log2(3))
    ends = [between(lengths, [1.0, 2.0, 3.0], at) for at in (1.0, 99.0)]
    assert ends == pytest.approx([1, 3])
    assert between([10], [7.0], 20.0) == 7


def test_beside_a_training_that_diverged_nothing_is_read():
    values = [1.0, 2.0, 3.0, math.nan]
    assert between([1, 2, 4, 8], values, 3.0) == pytest.approx(between([1, 2, 4], values[:3], 3.0))
    assert math.isnan(between([1, 2, 4, 8], values, 5.0))
