"""Signal-to-noise ratios by K, as a table and a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.grid.contract import Row
from bench.questions.multi_sample.report import sections
from tests.stored import lines_of, printed, stored

KS = (1, 4, 16, 64)


def rows(exponents, error=0.05, stages=("best",), change=0.5):
    """Estimator → exponent of the ratio K^exponent, with these standard errors."""
    found = []
    for stage in stages:
        for name, power in exponents.items():
            here = {"stage": stage, "estimator": name}
            for K in KS:
                at = {**here, "K": K}
                found.append(Row("signal_to_noise", K**power, "1", at, error, 100))
                compared = {**at, "reference_K": 1}
                found.append(Row("signal_to_noise_change", change, "1", compared, 0.1, 100))
                if name == "iwae_sticking_the_landing":
                    against = {**at, "reference": "dreg"}
                    found.append(Row("relative_bias", 2.0, "1", against, 0.1, 100))
            for least in (1, 16):
                found.append(Row("exponent", power, "1", {**here, "K": least}, error, 100))
        for K in KS:
            size = {"stage": stage, "K": K}
            found.append(Row("effective_sample_size", K / 2, "samples", size, 0.1, 100))
    return found


def made_up(*args, **options):
    found = rows(*args, **options)
    (section,) = sections(stored("multi_sample", [("input_dependent", 0, found)]))
    return section, printed(section)


def test_no_rows_no_section():
    assert sections(stored("multi_sample", [])) == []


def test_exponents_stand_beside_theory_s():
    section, tables = made_up({"iwae": -0.45, "dreg": 0.1, "iwae_sticking_the_landing": 0.3})
    takeaway = section.takeaway
    assert "the exponent of K in the signal-to-noise ratio, from K = 16 to 64, is" in takeaway
    assert "−0.45 ± 0.10 for `IWAE` (theory's limit −½)" in takeaway
    assert "0.10 ± 0.10 for `DReG` (theory's limit ½)" in takeaway
    assert "the effective sample size of K = 64 is 32.0 ± 0.2" in takeaway
    assert "the bias of `IWAE, sticking the landing` has 2.00 ± 0.20 times the" in takeaway
    (line,) = lines_of(tables["multi_sample"], "best weights", "DReG")
    assert line[-2:] == ["½", "–"]
    (line,) = lines_of(tables["multi_sample"], "best weights", "IWAE, sticking the landing")
    assert line[-2:] == ["–", "2.00 ± 0.20"]
    assert len(section.figures) == 1


def test_an_answer_far_from_theory_s_limit_says_so():
    found = rows({"iwae": -0.45}, change=0.5)
    (near,) = sections(stored("multi_sample", [("input_dependent", 0, found)]))
    assert "effective" not in near.answer
    few = [
        replace(row, value=row.value / 10) if row.metric == "effective_sample_size" else row
        for row in found
    ]
    (far,) = sections(stored("multi_sample", [("input_dependent", 0, few)]))
    assert far.answer.endswith(
        "; the effective sample size is 3.2 ± 0.2 there, far from theory's limit"
    )


@pytest.mark.parametrize(("change", "word"), [(0.5, "yes"), (1.5, "no"), (1.05, "undecided")])
def test_the_answer_is_what_many_samples_do_to_the_plain_estimator(change, word):
    section, _ = made_up({"iwae": -0.45, "iwae_sticking_the_landing": 0.3}, change=change)
    start = "at best weights, from K = 1 to 64, the signal-to-noise ratio (numbers: last ÷ first) "
    assert section.answer.startswith(f"{word} for `IWAE`, in one training: {start}")
    assert section.takeaway.startswith(f"In one training, {start}")
    assert f"`IWAE` ({change:.2f} ± 0.20)" in section.answer
    assert (
        f"`IWAE, sticking the landing` ({change:.2f} ± 0.20, of its own, biased" in section.answer
    )


def test_both_stages_are_told():
    section, tables = made_up(
        {"iwae": -0.5, "dreg": 0.5}, stages=("initialisation", "best"), error=0.01
    )
    assert "At initialisation, the exponent of K in the signal-to-noise ratio" in section.takeaway
    assert len(tables["multi_sample"].lines) == 4


def test_an_estimator_alone_makes_a_section_too():
    section, _ = made_up({"iwae_sticking_the_landing": 0.2})
    assert section.answer == ""


def test_nothing_but_what_is_not_told_from_zero():
    reason = "the squared signal is not significantly above zero"
    here = {"stage": "best", "estimator": "iwae", "K": 4}
    found = [Row("signal_to_noise", float("nan"), "1", here, n=10, reason=reason)]
    (section,) = sections(stored("multi_sample", [("input_dependent", 0, found)]))
    assert section.takeaway == "No exponent could be fitted."
    assert reason in section.notes
