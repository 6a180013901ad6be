"""What a question's report gives to the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.table import Table


@dataclass
class Section:
    """One part of a data set's page.

    Attributes:
        title: heading.
        takeaway: what a reader should take away, in Markdown, made of claims.
        answer: the verdict with its interval in a few words, for the first table of the page;
            "" where this section answers none of its questions.
        tables: the main one first; those without lines are left out.
        figures: the main one first; None, where there was nothing to draw, is left out.
        notes: Markdown below the tables: how the numbers are defined.
    """

    title: str
    takeaway: str
    answer: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure | None] = ()
    notes: str = ""
    question: str = field(default="", kw_only=True)
    """The question it belongs to; set by the page."""

    def __post_init__(self) -> None:
        self.tables = [table for table in self.tables if table.lines]
        self.figures = [figure for figure in self.figures if figure]


def prose(beside: str, name: str = "notes", **values: object) -> str:
    """The Markdown file `<name>.md` beside a report (its `__file__`), `{…}` filled in."""
    text = Path(beside).with_name(f"{name}.md").read_text(encoding="utf-8").strip()
    return text.format(**values) if values else text


def item(results: Results) -> str:
    """What one line of the data is called."""
    binarization = results.environment.get("config", {}).get("binarization")
    return "point" if binarization == "real" else "image"


def paragraphs(*texts: str) -> str:
    """Pieces of Markdown one below the other, without the empty ones."""
    return "\n\n".join(filter(None, texts))
