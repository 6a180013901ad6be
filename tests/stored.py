"""Results as a report reads them, made of rows that a measurement found or a test made up."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from bench.grid.contract import Row
from bench.report import rows
from bench.report.results import Results
from bench.report.section import Section
from bench.report.table import Table


def stored(question: str, found: Iterable[tuple[str, int, Iterable[Row]]]) -> Results:
    """Results of one question from (variant, seed, rows)."""
    lines = [
        {
            "dataset": "digits",
            "device": "cpu",
            "variant": variant,
            "seed": seed,
            "question": question,
            "metric": row.metric,
            **row.settings,
            "value": row.value,
            "standard_error": row.standard_error,
            "n": row.n,
            "unit": row.unit,
            "reason": row.reason or None,
        }
        for variant, seed, its in found
        for row in its
    ]
    return Results(Path("results/digits/cpu"), rows.frame(lines))


def line(
    variant: str,
    seed: int,
    metric: str,
    value: float,
    question: str = "headline",
    **settings: object,
) -> dict[str, object]:
    """One made-up line of rows."""
    where = {"dataset": "small", "device": "cpu", "variant": variant, "seed": seed}
    return where | {"question": question, "metric": metric, "value": value, **settings}


def printed(section: Section) -> dict[str, Table]:
    """The section's tables by name, after all of it was printed in every form."""
    assert section.takeaway.endswith(".")
    assert not {"nan", "NaN", "None"} & set(section.takeaway.split())
    for table in section.tables:
        assert table.lines
        assert table.html()
        assert table.latex()
        assert len(table.frame()) == len(table.lines)
    for figure in section.figures:
        assert figure.how
        assert figure.alt
        specification = json.dumps(figure.specification("digits"))
        assert figure.png("digits").startswith(b"\x89PNG")
        for column in figure.filters:
            assert f'"{column}": "' in specification
    return {table.name: table for table in section.tables}


def lines_of(table: Table, *start: str) -> list[list[str]]:
    """The lines of a table that begin with these texts, as printed."""
    lines = [line.strip("| ").split(" | ") for line in table.markdown().splitlines()[2:]]
    return [line for line in lines if [t.strip("*") for t in line[: len(start)]] == list(start)]
