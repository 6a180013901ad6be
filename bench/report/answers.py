"""One folder of results with every question answered: what the pages are made from.

Answering a folder reads nothing but its stored files, and those of the same runs in bf16, so
folders are answered side by side, each in a process of its own. What comes back holds no chart
object and no function: charts are Vega-Lite, pictures of images are PNG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

from bench.errors import BenchError, one_line
from bench.grid import TUNING
from bench.report import drawing, results, rows
from bench.report.figure import Figure
from bench.report.lecture_notes import Statement
from bench.report.provenance import made
from bench.report.results import Results
from bench.report.section import Section, paragraphs

T = TypeVar("T")


class Question(Protocol):
    """What the pages need of a question."""

    name: str
    asked: str
    of_headline: bool

    def sections(self, results: Results) -> list[Section]: ...


@dataclass(eq=False)
class Page:
    """What is said of one folder of results.

    Attributes:
        results: what the folder holds.
        sections: in the order of the questions.
        made: where and how the numbers were made.
        problems: what is left out, a line each.
        charts: figure → its chart as Vega-Lite.
        images: figure → its PNG, of those that are pictures or were drawn.
        name: the data set, and the device where folders differ in it.
        key: of its anchors, unique.
    """

    results: Results
    sections: list[Section] = field(default_factory=list)
    made: Mapping[str, object] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    charts: dict[str, dict] = field(default_factory=dict, repr=False)
    images: dict[str, bytes] = field(default_factory=dict, repr=False)
    name: str = ""
    key: str = ""

    @property
    def where(self) -> str:
        """Its folder as a link from the results folder."""
        return quote(f"{self.results.dataset}/{self.results.device}")

    def stored(self, figure: str, fingerprint: str) -> bytes:
        """The figure's PNG; b"" where none is stored whole, or it shows something else."""
        try:
            image = (self.results.folder / "figures" / f"{figure}.png").read_bytes()
        except OSError:
            return b""
        return image if drawing.carries(image, fingerprint) else b""

    def anchor(self, section: Section) -> str:
        """Where `index.html` shows the section."""
        place = [s for s in self.sections if s.question == section.question].index(section)
        return f"{self.key}--{section.question}" + (f"-{place + 1}" if place else "")

    def answering(self, question: str) -> Section | None:
        """The section that answers a question, or else its first one."""
        found = [section for section in self.sections if section.question == question]
        return next((s for s in found if s.answer), found[0] if found else None)

    def length(self, question: Question) -> str:
        """`after 240 epochs`, of the trainings that the question's answer is of; "" where the
        answer says it or there are none."""
        epochs = self.made.get("epochs")
        return f"after {epochs}" if question.of_headline and epochs else ""

    def measured(self, statement: Statement) -> str:
        """What was measured of a statement of the notes, in Markdown; "" where nothing was."""
        if statement.measured is not None:
            return statement.measured(self.results)
        section = self.answering(statement.question)
        return section.answer if section else ""

    def attempt(self, figure: str, make: Callable[[], T]) -> T | None:
        """What `make` gives of the figure; None, and told of once, where it fails."""
        try:
            return make()
        except Exception as error:  # of the stored numbers, the JavaScript engine, matplotlib
            what = f"{self.results.folder}: the figure '{figure}' cannot be drawn"
            problem = _problem(what, error)
            if problem not in self.problems:
                self.problems.append(problem)
            return None


def answered(folder: Path, questions: Sequence[Question], redrawn: bool) -> Page:
    """The folder's page; of one that is not redrawn, pictures are those stored."""
    found = results.read(folder)
    page = Page(found, problems=list(found.problems))
    try:
        page.made = made(found)
    except Exception as error:  # another program may have written anything
        page.problems.append(_problem(f"{folder / results.ENVIRONMENT} cannot be shown", error))
    for question in questions:
        sections = _sections(page, question)
        seeds = found.of(question.name).seed.nunique()
        for section in sections:
            section.question = question.name
            if seeds and question.name != TUNING:  # whose tables count their own
                counted = f"{seeds} seed{'s' * (seeds > 1)} here."
                section.notes = paragraphs(counted, section.notes)
            for figure in section.figures:
                page.attempt(figure.name, lambda figure=figure: _keep(page, figure, redrawn))
            kept = page.charts.keys() | page.images.keys()
            section.figures = [
                replace(f, chart=None, draw=None) for f in section.figures if f.name in kept
            ]
        page.sections += sections
    return page


def _sections(page: Page, question: Question) -> list[Section]:
    try:
        sections = question.sections(page.results)
        for table in (table for section in sections for table in section.tables):
            table.markdown()  # fails here rather than in the middle of a page
        return sections
    except BenchError as error:
        page.problems.append(str(error))
    except Exception as error:  # stored numbers may be damaged in any way
        what = f"{page.results.folder}: the question '{question.name}' cannot be shown"
        page.problems.append(_problem(what, error))
    return []


def _problem(what: str, error: Exception) -> str:
    """A failure nobody foresaw: of damaged rows, or of the suite's own code."""
    return (
        f"{what} ({type(error).__name__}: {one_line(error)}): {rows.REMEDY}; where it stays, the "
        "fault is this suite's or a question's code"
    )


def _keep(page: Page, figure: Figure, redrawn: bool) -> None:
    dataset = page.results.dataset
    if figure.chart is not None:
        page.charts[figure.name] = figure.specification(dataset)
        return
    fingerprint = drawing.picture_fingerprint(
        figure.draw, figure.titled(dataset), page.results.pictures
    )
    page.images[figure.name] = page.stored(
        figure.name, fingerprint if redrawn else ""
    ) or drawing.smaller(figure.picture(dataset), fingerprint)
