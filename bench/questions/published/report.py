"""Published numbers beside ours: difference, tolerance, verdict; and what theory gives exactly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import pandas as pd

from bench.inference.gradients import ESTIMATORS
from bench.questions.published.published import EXACT, QUANTITIES, Number, Published
from bench.report.claims import listing
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
ROUNDING = 1e-12
SAID = {
    "agrees": ("agrees", "agree"),
    "same direction": ("has the same direction", "have the same direction"),
    "rises": ("rises", "rise"),
    "within its error": ("is within its error", "are within their error"),
    "missed": ("is missed", "are missed"),
    "not run": ("is not run", "are not run"),
}
"""A verdict of one and of several, in a sentence."""
GREY = "minus the loss of test images"
"""Of grey pixels, which have no likelihood."""
EXACTLY = 0.005
"""Relative difference up to which two variances agree."""


def ours(values: pd.DataFrame, row: Published, quantity: str, epochs: int) -> Estimate:
    """The mean over seeds with its interval; of one seed, with that of its Monte Carlo error."""
    here = (values.row == row.name) & (values.quantity == quantity) & (values.epochs == epochs)
    sides = [values[here & (values.minus == minus)].set_index("seed") for minus in (False, True)]
    own, other = sides
    found = (own.value - other.value).dropna() if row.minus else own.value
    if len(found) == 1:
        errors = (side.standard_error.loc[found.index[0]] for side in sides if len(side))
        error = math.hypot(*errors)
        return Estimate(found.iloc[0], NORMAL * error, 1)
    return interval(found)


def verdict(number: Number, published: float, our: Estimate) -> str:
    """`agrees`, `same direction`, `missed` or `not run`."""
    if not our:
        return "not run"
    if number.at_least is not None:
        # the interval's end that is nearer to 0
        nearest = our.low if published > 0 else -our.high
        large = nearest > 0 and abs(our.mean) >= number.at_least
        return "same direction" if large else "missed"
    return "agrees" if abs(our.mean - published) <= number.tolerance else "missed"


def verdict_on_the_way(row: Published, values: pd.DataFrame, number: Number) -> str:
    """`rises` where every longer training is better, and none beyond what was published of more."""
    way = [ours(values, row, number.quantity, epochs).mean for epochs in row.lengths]
    if any(map(math.isnan, way)):
        return "not run"
    return "rises" if way == sorted(way) and way[-1] < number.value else "missed"


def _tolerance(row: Published, number: Number) -> str:
    if row.lengths:
        return "of a longer training"
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
            said = "" if row.lengths else verdict(number, published, our)
            if row.lengths and epochs == row.lengths[-1]:
                said = verdict_on_the_way(row, values, number)
            here = own[(own.epochs == epochs) & (own.quantity == number.quantity)]
            yield [
                row.title,
                GREY if row.is_grey else _quantity(number.quantity, here.K),
                here.trained_epochs.mean(),
                here.seconds.sum() / 60,
                str(here.seed.nunique()),
                published,
                our if our else Cell(reason=next(iter(failed), "not run")),
                our.mean - published,
                _tolerance(row, number),
                said,
            ]


def _quantity(name: str, samples: pd.Series) -> str:
    """As one says it; of a log p(x) also the bound that stands for it."""
    most = samples.max()
    return QUANTITIES[name] + (f", by L_{most:.0f}" if most > 1 else "")


def table(rows: Mapping[str, Published], values: pd.DataFrame) -> Table:
    """A line a published number, in nats an image."""
    columns = [
        "published by",
        "quantity",
        Column("epochs", 0),
        Column("minutes", 1),
        "seeds",
        Column("published"),
        Column("ours"),
        Column("difference", sign=True),
        "tolerance",
        "verdict",
    ]
    found = chain.from_iterable(lines(row, values) for row in _made(rows, values))
    return Table("published", columns, [*found])


def _made(rows: Mapping[str, Published], values: pd.DataFrame) -> list[Published]:
    """The rows that were made again, or tried."""
    present = set(values.row)
    return [row for name, row in rows.items() if name in present]


def agreement(exact: float, value: float, standard_error: float) -> str:
    """Of a variance with that of theory: within half a per cent, or as far as heavy tails allow."""
    difference = abs(value - exact)
    if difference <= EXACTLY * abs(exact) + ROUNDING:
        return "agrees"
    return "within its error" if difference <= 3 * standard_error else "missed"


def closed_form_table(found: pd.DataFrame) -> Table:
    """A line an estimator, S and parameter: its variance by theory, ours, and their ratio."""
    columns = [
        "estimator",
        "S",
        "gradient of",
        Column("exact variance", 4),
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
            Cell(text="0 but for rounding")
            if abs(line.value) < ROUNDING
            else Estimate(line.value, NORMAL * line.standard_error),
            line.value / line.exact if line.exact else math.nan,
            agreement(line.exact, line.value, line.standard_error),
        ]
        for line in found.itertuples()
    ]
    return Table("closed_forms", columns, lines)


def counted(verdicts: Iterable[str]) -> str:
    """`5 agree and 1 is missed`: how many there are of each verdict."""
    found = Counter(verdict for verdict in verdicts if verdict)
    return listing(f"{n} {SAID[verdict][n > 1]}" for verdict, n in found.items())


def verdicts(table: Table) -> list[str]:
    """Those of a table's lines, "" for a line without one."""
    place = [column.name for column in table.columns].index("verdict")
    return [line[place].text for line in table.lines]


def page(rows: Mapping[str, Published], values: pd.DataFrame, closed: pd.DataFrame) -> str:
    """`results/validation/README.md`."""
    exact, made = closed_form_table(closed), _made(rows, values)
    likelihoods, grey = (
        table({row.name: row for row in made if row.is_grey == is_grey}, values)
        for is_grey in (False, True)
    )
    printed = [row for row in made if not row.is_theory and not row.is_grey]
    kinds = {
        "Published numbers": printed,
        "Losses of grey pixels": [row for row in made if row.is_grey],
        "What theory says of our own models": [row for row in made if row.is_theory],
    }
    told = [
        f"{what} (of {len(some)} row{'s' * (len(some) > 1)}): "
        f"{counted(verdicts(table({row.name: row for row in some}, values)))}."
        for what, some in kinds.items()
        if some
    ]
    if missing := len(rows) - len(made):
        told += [f"{missing} of {len(rows)} rows {'was' if missing == 1 else 'were'} not run."]
    told += [f"Variances in closed form: {counted(verdicts(exact))}."]
    said = " ".join(told)
    left = [row.title for row in rows.values() if row not in made]
    sources = [f"- {row.title}: {row.source}.{f' {row.remark}' * bool(row.remark)}" for row in made]
    return prose(
        __file__,
        said=said,
        published=likelihoods.markdown() if likelihoods.lines else "",
        grey=f"Of grey pixels, which have no likelihood:\n\n{grey.markdown()}"
        if grey.lines
        else "",
        left=f"Not run: {'; '.join(left)}." if left else "",
        sources="\n".join(map(escaped_line, sources)),
        exact=exact.markdown(),
    )


def escaped_line(text: str) -> str:
    """A list's line with underscores that are no emphasis."""
    return text.replace("_", "\\_")
