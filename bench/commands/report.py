"""`python -m bench report`: the pages, written anew from what is stored."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.commands import validation
from bench.errors import BenchError, nearest
from bench.grid.store import Store
from bench.machine.console import say
from bench.questions import QUESTIONS
from bench.report import page, results
from bench.report.screen import screen
from bench.report.section import Section

SCREEN_COLUMNS = 4
"""As many columns of the headline table as fit 80 characters; the page has them all."""


def report(root: Path, dataset: str | None, console: Console) -> int:
    """`python -m bench report`: the pages again, of one data set or of all there is."""
    if dataset is None:
        validation.redraw(root, console)
    folders = page.stored(root)
    if not folders:
        raise BenchError(f"no stored results under {root}: make them with 'make bench'")
    if dataset is not None:
        known = {folder.parent.name for folder in folders}
        if dataset not in known:
            raise nearest("folder of results", dataset, known)
        folders = [folder for folder in folders if folder.parent.name == dataset]
    return redraw(root, folders, console)


def redraw(
    root: Path, folders: Iterable[Path], console: Console, store: Store | None = None
) -> int:
    """Redraw folders' pages and the index over all; print headlines; 1 where something is amiss."""
    with results.writing(root, partial(say, console)):
        drawn = page.write(root, list(folders), QUESTIONS, store)
    for folder, sections in drawn.sections.items():
        headline, *_ = sections or [Section("", "nothing was measured")]
        console.print(f"\n{folder}: {headline.takeaway}\n", markup=False)
        if headline.tables:
            console.print(screen(headline.tables[0], SCREEN_COLUMNS))
    for problem in drawn.problems:
        say(console, f"error: {problem}", "red")
    say(console, f"Results page: {drawn.index}")
    return int(bool(drawn.problems))
