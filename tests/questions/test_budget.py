"""Budgets: what is asked for, and whether a ranking survives them, against made-up rows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.config import PRESETS
from bench.questions.budget.measure import budgets, measure, requests
from bench.questions.budget.report import at_equal_time, sections, step_ratios
from bench.questions.headline.measure import measure as headline
from bench.report import rows
from bench.report.results import Results
from bench.statistics import interval
from tests.stored import line
from tests.subjects import small_run, subject

NOISE = (-0.02, -0.01, 0.0, 0.01, 0.02)
EPOCHS = (30, 60, 120)


def test_lengths_double_and_each_is_tuned():
    preset = replace(PRESETS["default"], halvings=2)
    asked = list(requests(small_run("flow", epochs=100, learning_rate=0.004), preset))
    assert [request.run.epochs for request in asked] == [100, 25, 50]
    assert [request.run.learning_rate for request in asked] == [0.004, None, None]
    assert budgets(3, 4) == [1, 3]


@pytest.mark.parametrize("variant", ["autoencoder", "input_dependent"])
def test_the_longest_is_the_headlines(variant):
    one = subject(variant)
    name = "distortion" if variant == "autoencoder" else "elbo"
    (mine, *_), whole = measure(one, 20).rows, headline(one, 20, (1, 10)).rows
    assert mine.metric == name
    assert mine.value == pytest.approx(next(r.value for r in whole if r.metric == name), rel=1e-6)
    assert mine.settings["epochs"] == one.run.epochs


def made_up(elbos, seconds=None, tuning=()) -> Results:
    """ELBOs by variant, one a length; five seeds whose differences vary a little."""
    lines = []
    for variant, by_length in elbos.items():
        for epochs, elbo in zip(EPOCHS, by_length, strict=True):
            took = (seconds or {}).get(variant, 1.0) * epochs
            for seed, noise in enumerate(NOISE):
                own = noise if variant != "input_dependent" else 3 * noise
                for metric, value in {
                    "elbo": elbo + own,
                    "training_steps": 10 * epochs,
                    "training_seconds": took,
                }.items():
                    at = {"epochs": epochs, "learning_rate": 0.002, "S": 1}
                    lines.append(line(variant, seed, metric, value, "budget", **at))
    for variant, epochs, rate, elbo in tuning:
        highest = max(e for v, n, _, e in tuning if (v, n) == (variant, epochs))
        at = {"epochs": epochs, "learning_rate": rate, "chosen": elbo == highest}
        lines.append(line(variant, 0, "valid_elbo", elbo, "tuning", **at))
    return Results(Path("results/small/cpu"), rows.frame(lines))


def test_what_stays_what_crosses_and_what_comes_late():
    (section,) = sections(
        made_up(
            {
                "input_dependent": (-100, -96, -95),
                "learned_diagonal": (-103, -98, -97),
                "full_covariance": (-101, -96, -94),
                "flow": (-100, -96, -94.5),
            }
        )
    )
    text = section.takeaway
    assert "after 120 epochs" in text
    assert "below it `learned-diagonal` (−2.00 ± 0.04; below it at every budget)" in text
    assert (
        "`full-covariance` (+1.00 ± 0.04; −1.00 ± 0.04 at 30 epochs: the order reverses; undecided "
        "against it at 60 epochs)" in text
    )
    assert "`flow` (+0.50 ± 0.04; undecided against it at 30 and 60 epochs)" in text
    assert "Not converged: the last doubling still gains, in nats, for" in text
    assert "`full-covariance` (2.00" in text
    (table,) = section.tables
    frame = table.frame().set_index(["variant", "epochs"])
    assert frame.loc[("flow", 60), "verdict"] == "undecided"
    assert frame.loc[("flow", 120), "gained by doubling"] == pytest.approx(1.5)
    assert section.figures[0].png("small")


def test_what_was_told_before_and_is_undecided_at_the_end_is_said_so():
    elbos = {"input_dependent": (-100, -96, -95), "flow": (-99, -95, -95)}
    (section,) = sections(made_up(elbos | {"full_covariance": (-99, -97, -95)}))
    text = section.takeaway
    assert "`flow` (+0.00 ± 0.04; above it at 30 and 60 epochs)" in text
    assert "(+0.00 ± 0.04; above it at 30 epochs; below it at 60 epochs)" in text


def test_what_no_longer_gains_is_called_converged():
    (section,) = sections(made_up({"input_dependent": (-99, -95, -95), "flow": (-99, -94, -94)}))
    assert "Converged: the last doubling is within 0.1 nats for" in section.takeaway


def test_what_is_undecided_or_loses_is_not_called_converged():
    one = {"input_dependent": (-99, -95, -95), "flow": (-99, -94, -94.3)}
    (section,) = sections(made_up(one))
    assert "Not shown to be converged" in section.takeaway
    assert "loses, in nats, for `flow` (0.30" in section.takeaway
    lone = made_up({"input_dependent": (-99, -95, -95)})
    lone.rows = lone.rows[lone.rows.seed == 0]
    assert "Not shown to be converged" in sections(lone)[0].takeaway


def test_the_reference_alone_and_variants_of_one_length_have_a_section_too():
    (section,) = sections(made_up({"input_dependent": (-99, -95, -95)}))
    assert section.tables[0].lines
    both = made_up({"input_dependent": (-99, -95, -95), "flow": (-99, -94, -94)})
    short = both.rows[(both.rows.variant != "flow") | both.rows.epochs.eq(120)]
    (section,) = sections(Results(both.folder, short))
    assert "`flow` (+1.00 ± 0.04" in section.takeaway


def test_equal_time_is_read_between_two_lengths():
    """A flow twice as slow has as long what the reference has half of: its ELBO at 60 epochs."""
    results = made_up(
        {"input_dependent": (-100, -96, -95), "flow": (-99, -95.5, -94)}, {"flow": 2.0}
    )
    found = at_equal_time(results)
    assert found["flow"].mean == pytest.approx(-95.5 - -95)
    (section,) = sections(results)
    assert "ELBO at equal time, as measured here, against input-dependent's, in nats: below it" in (
        section.takeaway
    )


def test_equal_times_are_drawn_where_both_were_trained():
    """A flow twice as slow: at half the time it has had 30 epochs and the reference 60; a quarter
    is less than its shortest training."""
    results = made_up(
        {"input_dependent": (-100, -96, -95), "flow": (-99, -95.5, -94)}, {"flow": 2.0}
    )
    assert at_equal_time(results, 0.5)["flow"].mean == pytest.approx(-99 - -96)
    assert at_equal_time(results, 0.25) == {}
    (section,) = sections(results)
    specification = section.figures[0].specification("digits")
    drawn = [row for rows in specification["datasets"].values() for row in rows]
    points = {row["seconds"]: row["difference"] for row in drawn if "seconds" in row}
    assert points == pytest.approx({60.0: -3.0, 120.0: -0.5})


def test_a_seed_that_ran_on_a_loaded_machine_changes_nothing():
    """What is read is the ratio of two trainings of a seed, all of which took ten times as long."""
    elbos = {"input_dependent": (-100, -96, -95), "flow": (-99, -95.5, -94)}
    results, loaded = made_up(elbos, {"flow": 2.0}), made_up(elbos, {"flow": 2.0})
    took = loaded.rows.metric.eq("training_seconds") & loaded.rows.seed.eq(1)
    loaded.rows.loc[took, "value"] *= 10
    assert at_equal_time(loaded)["flow"] == at_equal_time(results)["flow"]
    for was, now in zip(sections(results), sections(loaded), strict=True):
        assert now.takeaway == was.takeaway
        assert now.tables[0].lines == was.tables[0].lines


def test_of_two_seeds_timed_far_apart_equal_time_is_read_too():
    """The interval of the steps' ratio, ± 12.7 standard errors, reaches below 0."""
    results = made_up({"input_dependent": (-100, -98, -96), "flow": (-100, -97, -95)})
    results.rows = results.rows[results.rows.seed < 2].reset_index(drop=True)
    mine = (results.rows.metric == "training_seconds") & (results.rows.variant == "flow")
    results.rows.loc[mine & (results.rows.seed == 1), "value"] *= 1.5
    assert step_ratios(results)["flow"].low < 0
    found = at_equal_time(results)["flow"]
    assert math.isfinite(found.mean)
    assert found.half_width > 0
    assert sections(results)


def test_the_error_of_timing_is_in_what_is_read_at_equal_time():
    """One end of the ratio's interval to the other, along a slope of 3.5 nats a doubling."""
    elbos = {"input_dependent": (-100, -96, -95), "flow": (-99, -95.5, -92)}
    still = at_equal_time(made_up(elbos, {"flow": 1.5}))["flow"]
    results = made_up(elbos, {"flow": 1.5})
    took = results.rows.metric.eq("training_seconds") & results.rows.variant.eq("flow")
    spread = 1 + 0.1 * (results.rows.seed[took].astype(float) - 2)
    results.rows.loc[took, "value"] *= spread
    moved = at_equal_time(results)["flow"]
    error = interval(1.5 * np.array([0.8, 0.9, 1.0, 1.1, 1.2])).half_width
    ends = 3.5 * (math.log2(1.5 + error) - math.log2(1.5 - error)) / 2
    assert moved.mean == pytest.approx(still.mean)
    assert moved.half_width == pytest.approx(math.hypot(still.half_width, ends), rel=0.01)


def test_where_theory_is_known_what_is_within_its_tolerance_is_equal_at_every_budget():
    elbos = {"input_dependent": (-8.62, -8.57, -8.56), "flow": (-8.61, -8.565, -8.553)}
    results = made_up(elbos)
    close = results.rows.metric.eq("elbo")
    mean = results.rows[close].groupby(["variant", "epochs"]).value.transform("mean")
    results.rows.loc[close, "value"] = mean + 0.05 * (results.rows.value[close] - mean)
    assert "undecided against it `flow`" not in sections(results)[0].takeaway
    results.environment = {"config": {"dataset": "ppca"}}
    (section,) = sections(results)
    assert "within 0.05 nats of it `flow`" in section.takeaway
    assert "Converged: the last doubling is within 0.05 nats for" in section.takeaway
    assert "in nats: within 0.05 nats of it `flow` (+0.0070 ± 0.0020)" in section.takeaway


def test_a_rate_that_turns_a_told_order_is_told():
    tried = [
        ("input_dependent", 120, 0.001, -96.0),
        ("input_dependent", 120, 0.002, -94.0),
        ("input_dependent", 120, 0.004, -99.0),
        ("flow", 120, 0.001, -94.5),
        ("flow", 120, 0.002, -95.0),
        ("flow", 120, 0.004, -96.0),
    ]
    elbos = {"input_dependent": (-100, -96, -95), "flow": (-100, -96, -95.5)}
    (section,) = sections(made_up(elbos, tuning=tried))
    # not 0.004, which none chose
    assert section.takeaway.endswith(
        "One learning rate for all would reverse the order of `input-dependent` and `flow` at "
        "0.001 (+1.50, tuned −0.50), in nats of validation ELBO (1 seed)."
    )
    assert section.figures[1].png("small")
    # told in no order, none is reversed
    (section,) = sections(made_up(elbos | {"flow": (-100, -96, -95)}, tuning=tried))
    assert "learning rate" not in section.takeaway


def test_a_rate_that_all_chose_is_told():
    tried = [
        ("input_dependent", 120, 0.001, -96.0),
        ("input_dependent", 120, 0.002, -94.0),
        ("flow", 120, 0.001, -95.0),
        ("flow", 120, 0.002, -94.5),
    ]
    elbos = {"input_dependent": (-100, -96, -95), "flow": (-100, -96, -95.5)}
    (section,) = sections(made_up(elbos, tuning=tried))
    said = "Every variant with an ELBO chose the rate 0.002 for 120 epochs."
    assert section.takeaway.endswith(said)
    # nor is a length drawn that is no budget
    (section,) = sections(made_up(elbos, tuning=[*tried, ("flow", 45, 0.002, -96.0)]))
    drawn = section.figures[1].specification("digits")["datasets"].values()
    assert {row["epochs"] for rows in drawn for row in rows} == {120}
    # one that was given a rate chose none
    (section,) = sections(made_up(elbos, tuning=tried[:2]))
    assert "learning rate" not in section.takeaway


def test_without_the_reference_there_is_no_section():
    assert sections(made_up({"flow": (-100, -96, -95)})) == []
