"""What a curve of entropies is called, and what is said in short of several: from signs alone."""

from __future__ import annotations

import pandas as pd
import pytest

from bench.questions.uncertainty import report

HIGHER = "higher with {} of 2 corruptions"
NO = "no, lower with {} of 2 corruptions, higher with none"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("steps", "end", "kinds"),
    [
        ((0, 1, 0, 1), 1, ("rises", "falls")),
        ((0, 0, 0, 0), 1, ("rises", "falls")),
        ((-1, 0, 1, 1), 1, ("rises after a dip", "falls after a rise")),
        ((-1, 0, 1, 1), 0, ("falls at first", "rises at first")),
        ((-1, -1, -1, 1), -1, ("falls at first", "rises at first")),
        ((-1, 0, 0, -1), 0, ("falls at first", "rises at first")),
        ((0, 0, -1, 0), 1, ("falls at first", "rises at first")),
        ((1, -1, 0, 1), 1, ("turns", "turns")),
        ((1, -1, 0, 1), 0, ("turns", "turns")),
        ((0, 0, 0, 0), 0, ("undecided", "undecided")),
    ],
)
def test_the_shape_of_a_curve_is_that_of_its_told_steps(sign, steps, end, kinds):
    """Of changes that have the sign of the first step told all the way to it."""
    expected = kinds[0 if sign == 1 else 1]
    steps = [sign * step for step in steps]
    first = next((step for step in steps if step), 0)
    assert report.shape(steps, sign * end, [0.1 * first] * 4) == expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("steps", "end", "changes", "kinds"),
    [
        # a dip that no step tells, and a rise out of it that is told
        ((0, 1, 0), 0, (-1.0, 0.1, 0.2), ("no shape", "no shape")),
        ((0, 1, 0), 0, (-1.0, -0.1, 0.2), ("no shape", "no shape")),
        ((0, 1, 0), 0, (0.1, 1.0, 0.2), ("rises at first", "falls at first")),
        ((1, 0, 0), 0, (1.0, -0.1, -0.2), ("rises at first", "falls at first")),
        # a rise that no step tells, a told fall from it and a told rise
        ((0, -1, 1), 1, (2.0, 0.5, 3.0), ("no shape", "no shape")),
        ((0, -1, 1), 1, (-0.1, -2.0, 3.0), ("rises after a dip", "falls after a rise")),
        # what is said of no beginning needs none
        ((0, 1, 0), 1, (-1.0, 0.1, 2.0), ("rises", "falls")),
        ((1, -1, 1), 0, (-1.0, -2.0, 0.1), ("turns", "turns")),
    ],
)
def test_what_is_said_of_the_beginning_begins_at_the_clean_images(sign, steps, end, changes, kinds):
    expected = kinds[0 if sign == 1 else 1]
    steps, changes = ([sign * value for value in its] for its in (steps, changes))
    assert report.shape(steps, sign * end, changes) == expected


@pytest.mark.parametrize(
    ("ends", "verdicts", "expected"),
    [
        (("higher", "higher"), ("rises", "rises"), "yes"),
        (("higher", "higher"), ("rises", "turns"), HIGHER.format(2)),
        (("higher", "undecided"), ("rises", "undecided"), HIGHER.format(1)),
        (
            ("higher", "lower"),
            ("rises", "falls"),
            HIGHER.format(1) + ", lower with salt",
        ),
        (("lower", "lower"), ("falls", "falls"), NO.format(2)),
        (("lower", "undecided"), ("falls", "turns"), NO.format(1)),
        (("lower", "flat"), ("falls", "flat"), NO.format(1)),
        (("undecided", "undecided"), ("falls at first", "undecided"), "undecided"),
        (("undecided", "flat"), ("no shape", "flat"), "undecided"),
        (("flat", "flat"), ("flat", "flat"), "no"),
    ],
)
def test_noise_raises_it_as_often_as_is_told(ends, verdicts, expected):
    table = pd.DataFrame({"end": ends, "verdict": verdicts, "corruption": ("bit flips", "salt")})
    assert report.in_short(table) == expected
