"""Published numbers beside ours: difference, tolerance, verdict; and what theory gives exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain

import pandas as pd

from bench.inference.gradients import ESTIMATORS
from bench.questions.published.published import EXACT, QUANTITIES, Number, Published
from bench.report.section import prose
from bench.report.table import Cell, Column, Table
from bench.statistics import NORMAL, Estimate, interval

COLUMNS = (
    "row",
    "minus",
    "quantity",
    "epochs",
    "seed",
    "value",
    "standard_error",
    "trained_epochs",
)
COLUMNS += ("K", "seconds", "commit", "reason")
"""A line a number measured on a training of ours, `minus` where it is the one that is subtracted;
or a training's failure, with the reason."""
EXACTLY = 0.005
"""Relative difference up to which two variances have three digits in common, rounded."""


def ours(values: pd.DataFrame, row: Published, quantity: str, epochs: int) -> Estimate:
    """The mean over seeds with its interval; of one seed, with that of its Monte Carlo error."""
    here = (values.row == row.name) & (values.quantity == quantity) & (values.epochs == epochs)
    sides = [values[here & (values.minus == minus)].set_index("seed") for minus in (False, True)]
    own, other = sides
    found = (own.value - other.value).dropna() if row.minus else own.value
    if len(found) == 1:
        error = math.hypot(*(side.standard_error.iloc[0] for side in sides if len(side)))
        return Estimate(found.iloc[0], NORMAL * error, 1)
    return interval(found)


def verdict(number: Number, published: float, our: Estimate) -> str:
    """`agrees`, `missed` or `not run`."""
    if not our:
        return "not run"
    if number.at_least is not None:
        same_sign = math.copysign(1, published) == math.copysign(1, our.mean)
        return "agrees" if same_sign and abs(our.mean) >= number.at_least else "missed"
    return "agrees" if abs(our.mean - published) <= number.tolerance else "missed"


def verdict_on_the_way(row: Published, values: pd.DataFrame, number: Number) -> str:
    """Whether every longer training is better, and none beyond what was published of more."""
    way = [ours(values, row, number.quantity, epochs).mean for epochs in row.lengths]
    if any(map(math.isnan, way)):
        return "not run"
    return "agrees" if way == sorted(way) and way[-1] < number.value else "missed"


def _tolerance(row: Published, number: Number) -> str:
    if row.lengths:
        return "rises toward it"
    if number.at_least is not None:
        return f"same sign, at least {number.at_least:g}"
    return f"± {number.tolerance:g}"


def lines(row: Published, values: pd.DataFrame) -> Iterator[list]:
    """The row's lines of the table: one each number, and each length on the way to it."""
    own = values[values.row == row.name]
    failed = own.reason.dropna()
    for number in row.numbers:
        for epochs in row.lengths or (number.epochs or row.epochs[-1],):
            our = ours(values, row, number.quantity, epochs)
            published = number.value
            if math.isnan(published):
                published = ours(values, row, EXACT + number.quantity, epochs).mean
            said = verdict(number, published, our) if not row.lengths else ""
            if row.lengths and epochs == row.lengths[-1]:
                said = verdict_on_the_way(row, values, number)
            trained = own[(own.epochs == epochs) & (own.quantity == number.quantity)]
            yield [
                row.title,
                QUANTITIES[number.quantity],
                trained.trained_epochs.mean(),
                published,
                our if our else Cell(reason=next(iter(failed), "not run")),
                our.mean - published,
                _tolerance(row, number),
                said,
                row.source,
            ]


def table(rows: Mapping[str, Published], values: pd.DataFrame) -> Table:
    """A line a published number, in nats an image."""
    columns = [
        "published by",
        "quantity",
        Column("epochs", 0),
        Column("published"),
        Column("ours"),
        Column("difference", sign=True),
        "tolerance",
        "verdict",
        "source",
    ]
    return Table(
        "published", columns, [*chain.from_iterable(lines(row, values) for row in rows.values())]
    )


def agreement(exact: float, value: float) -> str:
    """Of a variance with that of theory."""
    return "agrees" if abs(value - exact) <= EXACTLY * abs(exact) + 1e-12 else "missed"


def closed_form_table(found: pd.DataFrame) -> Table:
    """A line an estimator, S and parameter: its variance by theory, ours, and their ratio."""
    columns = [
        "estimator",
        "S",
        "gradient of",
        Column("exact variance", None),
        Column("ours", None),
        Column("ours ÷ exact", 4),
        "verdict",
    ]
    lines = [
        [
            ESTIMATORS[line.estimator].label,
            str(line.S),
            line.parameter,
            line.exact,
            Estimate(line.value, NORMAL * line.standard_error),
            line.value / line.exact if line.exact else math.nan,
            agreement(line.exact, line.value),
        ]
        for line in found.itertuples()
    ]
    return Table("closed_forms", columns, lines)


def counted(table: Table) -> tuple[int, int]:
    """How many of its verdicts agree, and how many were missed."""
    place = [column.name for column in table.columns].index("verdict")
    said = [line[place].text for line in table.lines]
    return said.count("agrees"), said.count("missed")


def page(
    rows: Mapping[str, Published], values: pd.DataFrame, closed: pd.DataFrame, command: str
) -> str:
    """`results/validation/README.md`."""
    published, exact = table(rows, values), closed_form_table(closed)
    (agreed, missed), (exact_ones, inexact) = counted(published), counted(exact)
    made = set(values.row)
    return prose(
        __file__,
        said=f"Of {agreed + missed} published numbers made again {agreed} agree within their "
        f"tolerance; of {exact_ones + inexact} variances in closed form {exact_ones} agree to "
        "three digits.",
        command=command,
        published=published.markdown(),
        exact=exact.markdown(),
        remarks="\n".join(
            f"- {row.title}: {row.remark}"
            for row in rows.values()
            if row.remark and row.name in made
        ),
    )
