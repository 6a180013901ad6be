"""Answered folders kept beside finished runs: answered again only where something has changed."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from bench.errors import BenchError
from bench.grid.fingerprint import source_files
from bench.grid.store import Store
from bench.machine.storage import held
from bench.report import results, rows
from bench.report.answers import Page, Question, answered
from bench.report.figure import Figure
from bench.report.section import Section
from bench.report.table import Cell, Column, Table

LIBRARIES = ("altair", "matplotlib", "numpy", "pandas", "scipy")


def load(
    store: Store | None, folder: Path, questions: Sequence[Question], redrawn: bool
) -> Page | None:
    """The folder's page as it was kept; None where it has to be answered."""
    kept = store and store.load(_key(folder, questions, redrawn), tensors=False)
    return _page(folder, kept) if kept else None


def answered_and_kept(
    store: Store | None, folder: Path, questions: Sequence[Question], redrawn: bool
) -> Page:
    """The folder's page, kept for the next time where nothing was amiss."""
    if store is None:
        return answered(folder, questions, redrawn)
    key = _key(folder, questions, redrawn)
    page = answered(folder, questions, redrawn)
    if not page.problems:
        with suppress(BenchError):  # a cache that is full or read-only: it is answered again
            store.save(key, _packed(page))
    return page


def _key(folder: Path, questions: Sequence[Question], redrawn: bool) -> str:
    """Of all that the folder's page is made from: its files, the code, the libraries."""
    names = (*results.STORED, results.TIMINGS, rows.FORMER_FILE)
    files = [place / name for place in (folder, results.in_bf16(folder)) for name in names]
    if not redrawn:  # its pictures are those stored
        files += sorted(folder.glob("figures/*.png"))
    asked = [question.name for question in questions]
    return "page-" + _hash([str(folder), asked, redrawn, _digests(files), _code()])[:24]


@functools.cache
def _code() -> str:
    return _hash([_digests(source_files()), [version(library) for library in LIBRARIES]])


def _digests(files: Iterable[Path]) -> dict[str, str]:
    return {str(path): hashlib.sha256(held(path)).hexdigest() for path in files}


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


# --- a page as plain values -----------------------------------------------------------------


def _packed(page: Page) -> dict:
    images = {name: base64.b64encode(image).decode() for name, image in page.images.items()}
    sections = [_section_packed(section) for section in page.sections]
    whole = {"made": page.made, "sections": sections, "charts": page.charts, "images": images}
    return json.loads(json.dumps(whole, default=lambda number: number.item()))  # NumPy's


def _section_packed(section: Section) -> dict:
    tables = []
    for table in section.tables:
        labels = list(dict.fromkeys(label for label in table.groups if label is not None))
        groups = [label if label is None else labels.index(label) for label in table.groups]
        packed = {k: v for k, v in asdict(table).items() if not k.startswith("_")}
        tables.append(packed | {"groups": groups})
    return vars(section) | {"tables": tables, "figures": [vars(f) for f in section.figures]}


def _page(folder: Path, kept: Mapping) -> Page:
    found = results.read(folder)
    images = {name: base64.b64decode(image) for name, image in kept["images"].items()}
    sections = [*map(_section, kept["sections"])]
    return Page(
        found, sections, kept["made"], [*found.problems], charts=kept["charts"], images=images
    )


def _section(kept: Mapping) -> Section:
    figures = [Figure(**f | {"filters": tuple(f["filters"])}) for f in kept["figures"]]
    tables = [_table(**table) for table in kept["tables"]]
    return Section(**kept | {"tables": tables, "figures": figures})


def _table(columns: Iterable[Mapping], lines: Iterable[Iterable[Mapping]], **rest) -> Table:
    return Table(
        columns=[Column(**column) for column in columns],
        lines=[[Cell(**cell) for cell in line] for line in lines],
        **rest,
    )
