"""A table for the screen."""

from __future__ import annotations

from rich import box
from rich.table import Table as Screen
from rich.text import Text

from bench.report.table import Table


def screen(table: Table, columns: int | None = None) -> Screen:
    """The table's first columns (by default all), text to the left and numbers to the right."""
    shown = Screen(box=box.SIMPLE_HEAD, collapse_padding=True)
    for place, column in enumerate(table.columns[:columns]):
        shown.add_column(column.name, justify="left" if table.is_left(place) else "right")
    for line in range(len(table.lines)):
        shown.add_row(*(Text(text) for text in table.texts(line)[:columns]))
    return shown
