"""Rows of several seeds as one number each."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from torch import zeros
from torch.distributions import Cauchy, Normal, kl_divergence

from bench.grid.contract import Row
from bench.report.claims import claims
from bench.report.estimators import absences, estimates, lines, over_seeds
from bench.statistics import Estimate, p_value
from tests.stored import stored

CELL = {"estimator": "pathwise", "S": 1}


def one_line(*values, error=0.0, reasons=("", "", ""), **settings):
    rows = [
        ("flow", seed, [Row("m", value, "1", CELL | settings, error, 50, reasons[seed])])
        for seed, value in enumerate(values)
    ]
    found = over_seeds(stored("q", rows).rows)
    assert len(found) == 1
    return found


def number(found):
    (estimate,) = estimates(found, "estimator").values()
    return estimate


def test_the_interval_is_that_over_seeds_where_seeds_differ_more():
    found = number(one_line(1.0, 2.0, 3.0, error=0.01))
    assert found.mean == 2
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert found.n == 3


def test_the_interval_is_that_within_seeds_where_they_agree_by_chance():
    found = number(one_line(2.0, 2.0, 2.0, error=0.3))
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 149) * 0.3 / math.sqrt(3))
    assert found.n == 150


def test_a_verdict_asks_the_narrower_interval_too():
    over = stats.ttest_1samp([1.9, 2.0, 2.1], 0).pvalue
    for error, wider in ((0.01, 3), (0.3, 150)):
        found = number(one_line(1.9, 2.0, 2.1, error=error))
        assert (found.n, found.beside[1]) == (wider, 153 - wider)
        assert p_value(found) == pytest.approx(over)


def test_false_verdicts_stay_below_five_percent_where_the_interval_within_seeds_is_the_wider():
    """500 tables of 30 null comparisons of three seeds, whose own variance is twice that within:
    the rate's own 3σ error is 0.029, passed by chance < 0.2 %."""
    random = np.random.default_rng(0)
    values = random.normal(scale=math.sqrt(3), size=(500, 30, 3))
    means, errors = values.mean(-1), stats.sem(values, axis=-1)
    each = stats.norm.ppf(0.975) / math.sqrt(3)
    over = stats.t.ppf(0.975, 2) * errors
    wrong = 0
    for table in range(500):
        found = {}
        for k in range(30):
            intervals = sorted([(over[table, k], 3), (each, 10_000)])
            narrower, (half_width, n) = intervals
            found[k] = Estimate(means[table, k], half_width, n, beside=narrower)
        wrong += any(claim.decided for claim in claims(found))
    assert (each > over).mean() > 0.05
    assert wrong / 500 < 0.05 + 0.029


def test_one_seed_keeps_its_own_error():
    found = number(one_line(2.0, error=0.3))
    assert (found.mean, found.n) == (2.0, 50)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 49) * 0.3)


def test_a_seed_without_a_number_is_left_out_and_its_reason_kept():
    found = one_line(2.0, math.nan, 4.0, reasons=("", "overflow", ""), capped=True)
    assert found.value.item() == 3
    assert found.reason.item() == "overflow"
    assert found.capped.item()


def test_settings_stay_apart():
    rows = [Row("m", s, "1", {"estimator": "rloo", "S": s}) for s in (2, 4)]
    assert over_seeds(stored("q", [("flow", 0, rows)]).rows).value.tolist() == [2, 4]
    assert over_seeds(stored("q", []).rows).empty


def test_the_legend_lists_estimators_that_have_a_line():
    frame = pd.DataFrame({"estimator": ["pathwise"] * 2, "step": [1, 2], "value": [3.0, 4.0]})
    printed = {"pathwise": "pathwise", "measure_valued": "measure-valued"}
    chart = lines(frame, ("step", "steps"), ("value", "ELBO"), printed).to_dict()
    assert "measure-valued" not in json.dumps(chart["layer"][0]["encoding"])


def test_pytorchs_reason_is_of_the_kl_that_is_meant():
    with pytest.raises(NotImplementedError) as unknown:
        kl_divergence(Normal(zeros(1), 1.0), Cauchy(zeros(1), 1.0))
    row = {"reason": str(unknown.value), "estimator": "pathwise", "variant": "flow"}
    text = absences(pd.DataFrame([row]), "estimator", "variant")
    assert text.endswith("\n- KL(q ‖ p) has no closed form (pathwise; flow)")
