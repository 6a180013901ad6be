"""Trainings by estimator: paired differences at equal S and time, verdicts, learning curves."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from bench.grid.contract import Row
from bench.questions.estimator_training.report import sections
from tests.stored import lines_of, printed, stored

NATS = "nats/image"

ASIDE = "Not read at 8.0 s, since their trainings"


def training(name, elbo, steps=80, samples=1, seconds=8.0, rate=0.002):
    """Rows of one training that ends at this ELBO."""
    where = {"estimator": name, "S": samples, "steps": steps, "learning_rate": rate}
    timed = {"estimator": name, "S": samples}
    rows = [Row("elbo", elbo, NATS, where), Row("step_seconds", seconds / steps, "s", timed)]
    for share, valid in ((0.5, elbo - 20), (1, elbo)):
        at = where | {"step": int(share * steps)}
        rows.append(Row("valid_elbo", valid, NATS, at))
    return rows


def made_up(others, seeds=5, more=(), slower=lambda seed: 1):
    """Pathwise reaches 10 seed − 100 in 8 s, half of its steps 5 nats less in 4 s; `others` are
    functions of (seed, pathwise's ELBO) that give rows."""
    found = []
    for seed in range(seeds):
        elbo = 10.0 * seed - 100
        mine = training("pathwise", elbo) + training("pathwise", elbo - 5, 40, seconds=4.0)
        mine += [row for other in others for row in other(seed, elbo)]
        mine = [
            replace(row, value=row.value * slower(seed)) if row.metric == "step_seconds" else row
            for row in [*mine, *more]
        ]
        found.append(("input_dependent", seed, mine))
    (section,) = sections(stored("estimator_training", found))
    return section, printed(section)["estimator_training"]


def landing(seed, elbo):
    """2 nats above pathwise, though seeds differ by 10, at the same cost."""
    return training("sticking_the_landing", elbo + 2)


def antithetic(seed, elbo):
    """With two samples, and pathwise with as many: twice as dear, 1 nat apart."""
    more = [training("pathwise", elbo + 3, samples=2, seconds=16.0)]
    more += [training("pathwise", elbo - 1, 40, samples=2, seconds=8.0)]
    mine = [training("pathwise_antithetic", elbo + 4, samples=2, seconds=16.0)]
    mine += [training("pathwise_antithetic", elbo - 2, 40, samples=2, seconds=8.0)]
    return [row for rows in more + mine for row in rows]


def test_no_rows_no_section():
    assert sections(stored("estimator_training", [])) == []


def test_differences_are_paired_by_seed():
    section, table = made_up([landing])
    assert section.answer == (
        "input-dependent's test ELBO after the last of 80 steps, in nats: at equal steps, against "
        "pathwise's with the same S, "
        "higher for `sticking the landing (S = 1)` (+2.00 ± 0.00); at equal time, against "
        "pathwise's (S = 1), higher for `sticking the landing (S = 1)` (+2.00 ± 0.00)"
    )
    assert (
        "the test ELBO, compared with pathwise's with the same S, in nats, is higher"
        in section.takeaway
    )
    (line,) = lines_of(table, "equal steps", "sticking the landing")
    assert line[6:8] == ["+2.00 ± 0.00", "beats"]


def test_the_answer_says_how_often_an_image_was_seen_where_that_is_known():
    found = [
        ("input_dependent", seed, training("pathwise", seed) + landing(seed, 0)) for seed in (0, 1)
    ]
    results = stored("estimator_training", found)
    results.environment = {"images": {"train": 4000}, "config": {"batch_size": 25}}
    (section,) = sections(results)
    assert section.answer.startswith(
        "input-dependent's test ELBO after the last of 80 steps (0.5 epochs), in nats: "
    )


def test_of_many_the_answer_names_the_nearest_and_the_farthest():
    names = {"score_function": -9, "pathwise_sobol": -2, "sticking_the_landing": -4}
    worse = [
        lambda seed, elbo, name=name, by=by: training(name, elbo + by, seconds=20.0)
        for name, by in names.items()
    ]
    section, _ = made_up(worse)
    assert section.answer == (
        "input-dependent's test ELBO after the last of 80 steps, in nats: at equal steps, against "
        "pathwise's with the same S, "
        "lower for 3 of the 3 compared, from `pathwise, Sobol (S = 1)` (−2.00 ± 0.00) to `score "
        "function (S = 1)` (−9.00 ± 0.00)"
    )
    assert "`sticking the landing (S = 1)` (−4.00 ± 0.00)" in section.takeaway


def test_at_equal_steps_pathwise_has_as_many_samples_and_at_equal_time_one():
    section, table = made_up([antithetic])
    (line,) = lines_of(table, "equal steps", "pathwise, antithetic")
    assert line[2:4] == ["2", "80"]
    assert line[6] == "+1.00 ± 0.00"
    (line,) = lines_of(table, "equal time", "pathwise, antithetic")
    assert line[3] == "40"
    assert line[6:9] == ["−2.00 ± 0.00", "trails", "8.0"]
    assert "(the 8.0 s of 80 steps of pathwise, 5 seeds)" in section.takeaway
    assert "compared with pathwise's (S = 1), in nats, is lower for" in section.takeaway
    assert "`pathwise, antithetic (S = 2)` (−2.00 ± 0.00)" in section.answer
    assert "`pathwise (S = 2)` (−1.00 ± 0.00)" in section.takeaway


def test_equal_time_lies_between_two_lengths_in_the_logarithm_of_the_seconds():
    """√2 × 8 s and half of that: pathwise's 8 s lie in the middle of their logarithms."""

    def dearer(seed, elbo):
        long = training("rloo", elbo + 6, 80, 2, 8 * 2**0.5)
        return long + training("rloo", elbo, 40, 2, 4 * 2**0.5)

    _, table = made_up([antithetic, dearer])
    (line,) = lines_of(table, "equal time", "leave-one-out")
    assert line[6] == "+3.00 ± 0.00"


def test_what_takes_longer_at_its_shortest_has_no_equal_time():
    section, table = made_up(
        [lambda seed, elbo: training("sticking_the_landing", elbo, seconds=9.0), antithetic]
    )
    assert lines_of(table, "equal steps", "sticking the landing")
    assert not lines_of(table, "equal time", "sticking the landing")
    assert (
        f"{ASIDE} are all longer: `sticking the landing (S = 1)` (9.0 s, 80 steps)"
        in section.takeaway
    )


@pytest.mark.parametrize(("seconds", "read"), [(6.7, False), (6.9, True)])
def test_what_takes_less_at_its_longest_has_no_equal_time(seconds, read):
    """85 % of 8 s are 6.8 s."""

    def cheaper(seed, elbo):
        longest = training("sticking_the_landing", elbo + 2, seconds=seconds)
        return training("sticking_the_landing", elbo, 40, seconds=seconds / 2) + longest

    section, table = made_up([cheaper, antithetic])
    assert bool(lines_of(table, "equal time", "sticking the landing")) == read
    said = f"{ASIDE} end before: `sticking the landing (S = 1)` (3.4 to 6.7 s, 40 to 80 steps)."
    assert section.takeaway.endswith(said) != read


def test_a_seed_that_ran_on_a_loaded_machine_changes_nothing():
    """Steps are timed in turns: where all take longer, the ratios that are read stay."""

    def dearer(seed, elbo):
        return [
            row
            for steps, gain in ((80, 6), (40, 0))
            for row in training("rloo", elbo + gain, steps, 2, 0.14 * steps)
        ]

    def loaded(times):
        found = made_up([antithetic, dearer], slower=lambda seed: times if seed == 1 else 1)
        return found[0], found[1]

    (one, table), (other, slow) = loaded(1), loaded(3)
    for cells in zip(slow.lines, table.lines, strict=True):
        for mine, its in zip(*(line[:-1] for line in cells), strict=True):
            numbers = [(cell.value, cell.half_width) for cell in (mine, its)]
            assert mine.text == its.text
            assert numbers[0] == pytest.approx(numbers[1], rel=1e-12, abs=1e-12, nan_ok=True)
    assert other.takeaway == one.takeaway


def test_the_error_of_timing_is_in_what_is_read_at_equal_time():
    """Of seeds alike but for their timing, the interval is that of where each is read."""

    def timed(spread):
        def rows(seed, elbo):
            times = 1 + spread * (seed - 2)
            return [
                row
                for steps, gain in ((80, 6), (40, 0))
                for row in training("rloo", elbo + gain, steps, 2, times * 0.14 * steps)
            ]

        return rows

    widths = []
    for spread in (0.0, 0.1):
        _, table = made_up([antithetic, timed(spread)])
        lines = [line for line in table.lines if line[0].text == "equal time"]
        (own,) = (line for line in lines if line[1].text == "leave-one-out")
        widths.append(own[6].half_width)
    assert widths[0] == pytest.approx(0, abs=1e-9)
    assert widths[1] > 0.3


def test_an_undecided_difference_is_said_to_be_so():
    section, table = made_up(
        [lambda seed, elbo: training("sticking_the_landing", elbo + (-3, 1, 5, -2, 0)[seed])]
    )
    assert "is undecided for `sticking" in section.takeaway
    (line,) = lines_of(table, "equal steps", "sticking the landing")
    assert line[7] == "undecided"


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_estimator_whose_seeds_lie_far_apart_is_said_to_scatter(sign):
    spread = (500, 900, 3000, 700, 600)
    section, table = made_up(
        [lambda seed, elbo: training("score_function", elbo + sign * spread[seed])]
    )
    assert "`score function (S = 1)` scatters: its seeds' ELBOs range from" in section.takeaway
    assert section.answer.count("scatters: its seeds' ELBOs range from") == 1
    assert section.answer.endswith("no verdict of `score function (S = 1)` here either")
    assert "undecided" not in section.takeaway
    (line,) = lines_of(table, "equal steps", "score function")
    low, high = sorted(10 * s - 100 + sign * spread[s] for s in (0, 2))
    side = "below" if sign < 0 else "above"
    frame = table.frame().set_index("estimator")
    assert frame["difference to pathwise, nats"]["score function"].isna().all()
    said = f"scatters: its seeds' ELBOs range from {low:,} to {high:,}, all {side} pathwise's"
    assert line[7] == said.replace("-", "−")


def test_seeds_that_overlap_do_not_scatter():
    section, _ = made_up(
        [lambda seed, elbo: training("score_function", elbo + (3, -30, -500, 0, 1)[seed])]
    )
    assert "scatters" not in section.takeaway
    assert "undecided" in section.takeaway


def test_seeds_that_broke_are_counted():
    section, table = made_up(
        [
            lambda seed, elbo: training("score_function", math.nan if seed == 2 else elbo),
            lambda seed, elbo: [] if seed < 2 else training("sticking_the_landing", elbo),
        ]
    )
    assert "`score function (S = 1)` diverges in 1 of 5 seeds" in section.takeaway
    assert "`sticking the landing (S = 1)` diverges in 2 of 5 seeds" in section.takeaway
    (line,) = lines_of(table, "equal steps", "score function")
    assert line[7] == "diverges in 1 of 5 seeds"


def test_an_estimator_left_out_stands_with_its_reason():
    where = {"estimator": "measure_valued"}
    section, table = made_up([], more=[Row("elbo", math.nan, NATS, where, reason="too dear")])
    (line,) = lines_of(table, "equal steps", "measure-valued")
    assert line[5] == "n/a"
    assert "too dear (measure-valued)" in section.notes


def test_a_diverging_training_stays_in_the_frame():
    section, _ = made_up([lambda seed, elbo: training("score_function", elbo - 5000)])
    (figure,) = section.figures
    specification = figure.specification("digits")
    panels = specification["hconcat"]
    assert len(panels) == 2
    assert '"symlog"' in json.dumps(panels[0])
    values = [row for data in specification["datasets"].values() for row in data]
    drawn = [row for row in values if "estimator" in row]
    assert max(row["below"] for row in drawn if row["estimator"] == "score function") > 1000


@pytest.mark.parametrize("options", [{"seeds": 1}, {"others": []}])
def test_few_rows_make_a_section_too(options):
    section, _ = made_up(**{"others": [landing]} | options)
    assert "above" not in section.answer


def test_estimators_whose_seeds_spread_are_named():
    """Both sides of pathwise's, which differ by 40 nats."""
    wild = lambda seed, elbo: training("rloo", -80 + 60 * (seed - 2), samples=2)  # noqa: E731
    section, _ = made_up([antithetic, wild])
    said = (
        "The seeds of `leave-one-out (S = 2)` (−200.0 to 40.0) spread more than 3 times as widely"
    )
    assert f"{said} as pathwise's." in section.takeaway
    section, _ = made_up([antithetic])
    assert "spread more than" not in section.takeaway
