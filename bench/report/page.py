"""The pages people read: `results/index.html`, `results/README.md`, and one `README.md` a folder.

A folder that is redrawn gets its tables, figures and `README.md`; the two pages over all folders
are made again from every folder's rows. What is broken is left out and told of.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.errors import BenchError, one_line
from bench.report import drawing, embedding, results, rows
from bench.report.figure import CONFIG, Figure
from bench.report.from_the_notes import STATEMENTS, Statement
from bench.report.results import Results
from bench.report.section import Section
from bench.report.style import colour, ordered, title
from bench.report.table import escaped
from bench.storage import write_atomically

T = TypeVar("T")
TEMPLATES = Path(__file__).parent / "templates"
STORED = (rows.FILE, results.HISTORY, results.PICTURES, results.ENVIRONMENT)
FIRST = ("mnist5k", "mnist", "fashion_mnist")
"""Data sets that come before the others: the default one, then the best known."""
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


class Question(Protocol):
    """What the pages need of a question."""

    name: str
    asked: str

    def sections(self, results: Results) -> list[Section]: ...


@dataclass(eq=False)
class Page:
    """What is said of one folder of results.

    Attributes:
        results: what the folder holds.
        name: the data set, and the device where folders differ in it.
        key: of its anchors, unique.
        sections: in the order of the questions.
        made: where and how the numbers were made.
        problems: what is left out, a line each.
        specifications: of figures, made once.
        drawn: their images to come, of a folder that is redrawn; None where one cannot be.
    """

    results: Results
    name: str
    key: str
    sections: list[Section] = field(default_factory=list)
    made: Mapping[str, object] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    specifications: dict[str, dict] = field(default_factory=dict, repr=False)
    drawn: dict[str, Future | None] = field(default_factory=dict, repr=False)

    def specification(self, figure: Figure) -> dict:
        """The figure's chart as Vega-Lite."""
        if figure.name not in self.specifications:
            self.specifications[figure.name] = figure.specification(self.results.dataset)
        return self.specifications[figure.name]

    @property
    def where(self) -> str:
        """Its folder as a link from the results folder."""
        return quote(f"{self.results.dataset}/{self.results.device}")

    def anchor(self, section: Section) -> str:
        """Where `index.html` shows the section."""
        place = [s for s in self.sections if s.question == section.question].index(section)
        return f"{self.key}--{section.question}" + (f"-{place + 1}" if place else "")

    def answering(self, question: str) -> Section | None:
        """The section that answers a question, or else its first one."""
        found = [section for section in self.sections if section.question == question]
        return next((s for s in found if s.answer), found[0] if found else None)

    def measured(self, statement: Statement) -> str:
        """What was measured of a statement of the notes, in Markdown; "" where nothing was."""
        if statement.measured is not None:
            return statement.measured(self.results)
        section = self.answering(statement.question)
        return section.answer if section else ""


@dataclass(frozen=True)
class Written:
    """What was made.

    Attributes:
        index: the page over all folders.
        sections: of each folder that was redrawn.
        problems: what was left out, a line each, naming the file and the remedy.
    """

    index: Path
    sections: Mapping[Path, list[Section]]
    problems: list[str]


def stored(root: Path) -> list[Path]:
    """The folders of results under the root."""
    return sorted({path.parent for file in STORED for path in root.glob(f"*/*/{file}")})


def write(root: Path, folders: Iterable[Path] | None, questions: Sequence[Question]) -> Written:
    """Redraw folders of results (None: all of them) and make the pages over all folders again."""
    present = stored(root)
    wanted = {folder.resolve() for folder in (present if folders is None else folders)}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as drawer:
        script = drawer.submit(drawing.javascript)
        pages = _pages(present)
        redrawn = [page for page in pages if page.results.folder.resolve() in wanted]
        others = [page for page in pages if page not in redrawn]
        for page in redrawn:
            _add_sections(page, questions, drawer)
        for page in others:  # while the figures are drawn
            _add_sections(page, questions)
        for page in redrawn:
            _redraw(page)
        shared = {"pages": pages, "questions": questions, "statements": STATEMENTS}
        text = _template("index.md").render(shared)
        write_atomically(root / "README.md", text.encode())
        html = _html(pages, shared, script)
        write_atomically(root / "index.html", html.encode())
    return Written(
        root / "index.html",
        {page.results.folder: page.sections for page in redrawn},
        [problem for page in pages for problem in page.problems],
    )


def _pages(folders: Sequence[Path]) -> list[Page]:
    """A page a folder, in their order, sections still to come."""

    def place(folder: Path) -> tuple[int, str]:
        name = folder.parent.name
        return FIRST.index(name) if name in FIRST else len(FIRST), str(folder)

    one_device = len({folder.name for folder in folders}) == 1
    pages: list[Page] = []
    for folder in sorted(folders, key=place):
        found = results.read(folder)
        name = found.dataset if one_device else f"{found.dataset} on {found.device}"
        key = _slug(f"{found.dataset}-{found.device}")
        if key in {page.key for page in pages}:
            key = f"{key}-{len(pages)}"
        pages.append(Page(found, name, key, made=_made(found), problems=list(found.problems)))
    return pages


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "results"


def _add_sections(
    page: Page, questions: Sequence[Question], drawer: Executor | None = None
) -> None:
    """Answer the questions; what is answered is drawn while the next is."""
    for question in questions:
        try:
            sections = question.sections(page.results)
            for table in (table for section in sections for table in section.tables):
                table.markdown()  # fails here rather than in the middle of a page
        except BenchError as error:
            page.problems.append(str(error))
            continue
        except Exception as error:  # stored numbers may be damaged in any way
            page.problems.append(
                f"{page.results.folder}: the question '{question.name}' cannot be shown "
                f"({type(error).__name__}: {one_line(error)}): {rows.REMEDY}"
            )
            continue
        for section in sections:
            section.question = question.name
        page.sections += sections
        for figure in (figure for section in sections for figure in section.figures if drawer):
            page.drawn[figure.name] = _attempt(
                page, figure, lambda figure=figure: _submit(page, figure, drawer)
            )


def _made(found: Results) -> dict[str, object]:
    """Where and how the numbers were made, and the commands that make them again."""
    environment = found.environment
    if not environment:
        return {}
    config, runs = environment["config"], environment["runs"]
    machine = environment.get("gpu") or environment.get("cpu") or "unknown machine"
    torch = environment.get("packages", {}).get("torch", "unknown")
    commits = dict.fromkeys(str(run.get("commit") or "unknown") for run in runs)
    return {
        "machine": f"{machine}, {environment.get('cores', '?')} cores, torch {torch}",
        "commit": ", ".join(commits),
        "seeds": config.get("seeds", "?"),
        "preset": config.get("preset", "?"),
        "binarization": config.get("binarization", "?"),
        "grey": config.get("binarization") == "none",
        "again": " && ".join(run["command"] for run in runs),
    }


# --- one folder ------------------------------------------------------------------------------


def _submit(page: Page, figure: Figure, drawer: Executor) -> Future:
    if figure.chart is None:
        return drawer.submit(drawing.smaller, figure.picture(page.results.dataset))
    specification, stored = page.specification(figure), _image(page, figure)
    if stored.exists() and drawing.is_of(image := stored.read_bytes(), specification):
        kept: Future = Future()
        kept.set_result(image)
        return kept
    return drawer.submit(drawing.png, specification)


def _image(page: Page, figure: Figure) -> Path:
    return page.results.folder / "figures" / f"{figure.name}.png"


def _redraw(page: Page) -> None:
    """Write a folder's tables, figures and `README.md`, and remove what is no longer made."""
    folder = page.results.folder
    made = {folder / name: None for name in (*STORED, "throughput.json")}
    for table in (table for section in page.sections for table in section.tables):
        made[folder / "tables" / f"{table.name}.csv"] = rows.csv(table.frame(), digits=6)
        if table.fits_a_page:
            made[folder / "tables" / f"{table.name}.tex"] = table.latex().encode()
    for section in page.sections:
        kept = []
        for figure in section.figures:
            future = page.drawn[figure.name]
            if image := future and _attempt(page, figure, future.result):
                made[_image(page, figure)] = image
                kept.append(figure)
        section.figures = kept
    made[folder / "README.md"] = _template("folder.md").render(page=page).encode()
    for path, content in made.items():
        path.parent.mkdir(exist_ok=True)
        if content is not None and not (path.exists() and path.read_bytes() == content):
            write_atomically(path, content)
    for pattern in ("*.csv", "*.md", "page.json", "tables/*", "figures/*"):
        for stale in set(folder.glob(pattern)) - made.keys():
            stale.unlink()


def _figures(page: Page) -> list[Figure]:
    return [figure for section in page.sections for figure in section.figures]


def _attempt(page: Page, figure: Figure, make: Callable[[], T]) -> T | None:
    """What `make` gives of the figure; None, and told of once, where it fails."""
    try:
        return make()
    except Exception as error:  # of the stored numbers, the JavaScript engine, matplotlib
        problem = (
            f"{page.results.folder}: the figure '{figure.name}' cannot be drawn "
            f"({type(error).__name__}: {one_line(error)}): {rows.REMEDY}"
        )
        if problem not in page.problems:
            page.problems.append(problem)
        return None


# --- index.html ------------------------------------------------------------------------------


def _html(pages: Sequence[Page], shared: Mapping[str, object], script: Future) -> str:
    datasets: dict[str, dict] = {}
    embedded = {page.key: _embedded(page, datasets) for page in pages}
    variants = ordered(variant for page in pages for variant in page.results.variants())
    colours = {variant: colour(variant) for variant in variants}
    charts = [figure for figures in embedded.values() for figure in figures.values()]
    hexadecimal = " ".join([*colours.values(), *(str(chart) for chart in charts)])
    data = {
        "datasets": datasets,
        "variants": [title(variant) for variant in variants],
        "onDark": embedding.on_dark(hexadecimal),
        "config": CONFIG,
        "themes": {scheme: embedding.theme(scheme) for scheme in ("light", "dark")},
    }
    return _template("index.html").render(
        shared,
        embedded=embedded,
        variants=[
            {"name": title(v), "light": c, "dark": embedding.lightened(c)}
            for v, c in colours.items()
        ],
        css=Markup(_read("page.css")),
        data=Markup(embedding.script(data)),
        libraries=Markup(script.result()),
        script=Markup(_read("page.js")),
    )


def _embedded(page: Page, datasets: dict[str, dict]) -> dict[str, Markup | str]:
    """Figure → its specification in JSON, or where it is a picture, the PNG as a data URI."""

    def content(figure: Figure) -> Markup | str:
        if figure.chart is None:
            return _data_uri(page, figure)
        return Markup(embedding.script(embedding.compact(page.specification(figure), datasets)))

    found = {f.name: _attempt(page, f, lambda f=f: content(f)) for f in _figures(page)}
    return {name: text for name, text in found.items() if text is not None}


def _data_uri(page: Page, figure: Figure) -> str:
    stored = _image(page, figure)
    image = stored.read_bytes() if stored.exists() else figure.png(page.results.dataset)
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


# --- templates -------------------------------------------------------------------------------


def _template(name: str):
    return _environment().get_template(name)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=lambda name: name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "markdown": lambda text: Markup(MARKDOWN.render(text)),
        "inline": lambda text: Markup(MARKDOWN.renderInline(text)),
        "escaped": escaped,
        "anchor": heading_anchor,
        "link": quote,
        "cell": lambda text: " ".join(text.replace("|", "\\|").split()),
        "safe_html": Markup,
    }
    return environment


def heading_anchor(heading: str) -> str:
    """The name under which GitHub links to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
