"""What a question's report gives to the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.table import Table

if TYPE_CHECKING:
    import altair as alt
    import matplotlib.figure


@dataclass
class Section:
    """One part of a data set's page.

    Attributes:
        title: heading.
        takeaway: what a reader should take away, in Markdown, made of claims; see `points`.
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


LONGEST = 500
"""Characters of an alternative text."""
SHORT = 400
"""Characters of a takeaway that is read as one paragraph."""


def prose(beside: str, name: str = "notes", **values: object) -> str:
    """The Markdown file `<name>.md` beside a report (its `__file__`), `{…}` filled in.

    What it says of figures, below headings, is left out.
    """
    text = Path(beside).with_name(f"{name}.md").read_text(encoding="utf-8")
    text = text.partition("\n# ")[0].strip()
    return text.format(**values) if values else text


def captioned(
    beside: str,
    name: str,
    chart: alt.TopLevelMixin | None = None,
    filters: tuple[str, ...] = (),
    draw: Callable[[], matplotlib.figure.Figure] | None = None,
    **values: object,
) -> Figure:
    """A figure whose words stand below `# <name>` in the `notes.md` beside a report.

    Three paragraphs, `{…}` filled in: its title, how it is read, what is seen.
    """
    text = Path(beside).with_name("notes.md").read_text(encoding="utf-8")
    words = text.partition(f"\n# {name}\n")[2].partition("\n# ")[0].strip().split("\n\n")
    title, how, seen = (part.replace("\n", " ").format(**values) for part in words)
    return Figure(name, title, how, shortened(seen), chart, draw, filters)


def shortened(seen: str) -> str:
    """A list read aloud, cut where it grows too long: the figure's table has the rest."""
    if len(seen) <= LONGEST:
        return seen
    return seen[:LONGEST].rpartition("; ")[0] + "; and others"


def item(results: Results) -> str:
    """What one line of the data is called."""
    binarization = results.environment.get("config", {}).get("binarization")
    return "point" if binarization == "real" else "image"


def has_images(results: Results) -> bool:
    """Whether the data are images, more than one line of values each."""
    height, _ = results.environment.get("image_shape", (2, 2))
    return height > 1


def points(*sentences: str) -> str:
    """A takeaway in Markdown: its first sentence, and the others as points below it; short ones
    stay one paragraph, and empty ones are left out.

    >>> print(points("All are equal.", "", "None scatters."))
    All are equal. None scatters.
    """
    said = [*filter(None, sentences)]
    if len(whole := " ".join(said)) <= SHORT:
        return whole
    return paragraphs(said[0], "\n".join(f"- {sentence}" for sentence in said[1:]))


def paragraphs(*texts: str) -> str:
    """Pieces of Markdown one below the other, without the empty ones."""
    return "\n\n".join(filter(None, texts))
