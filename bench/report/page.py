"""The pages people read: `results/index.html`, `results/README.md`, and one `README.md` a folder.

A folder that is redrawn gets its tables, figures and `README.md`; the two pages over all folders
are made again from every folder's rows. What is broken is left out and told of.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.errors import BenchError, readable
from bench.grid.store import Store
from bench.machine.places import without_links
from bench.machine.processes import ProcessPoolExecutor, end_with_parent
from bench.machine.storage import held, remove, rewritten, set_aside, write_atomically
from bench.report import drawing, embedding, page_cache, results, rows, workers
from bench.report.answers import Page, Question, answered
from bench.report.figure import CONFIG
from bench.report.lecture_notes import STATEMENTS
from bench.report.section import Section
from bench.report.style import colour, meaning, ordered, title
from bench.report.table import escaped

TEMPLATES = Path(__file__).parent / "templates"
FIRST = ("mnist5k", "mnist", "fashion_mnist")
"""Data sets that come before the others: the default one, then the best known."""
OWN = {"README.md": b"# Results", "index.html": b"<title>What a VAE's posterior variance buys"}
"""Pages over all folders, and what one of them has in its first lines."""
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


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
    found = {path.parent for file in results.STORED for path in root.glob(f"*/*/{file}")}
    return sorted(f for f in found if not f.name.startswith("."))  # nor one being written


def write(
    root: Path,
    folders: Iterable[Path] | None,
    questions: Sequence[Question],
    store: Store | None = None,
) -> Written:
    """Redraw folders of results (None: all of them) and make the pages over all folders again.

    With a store, a folder is answered only where something has changed since it last was.
    """
    present = _in_order(stored(root))
    wanted = {folder.resolve() for folder in (present if folders is None else folders)}
    redrawn = [folder for folder in present if folder.resolve() in wanted]
    gone = sorted(wanted - {folder.resolve() for folder in redrawn})
    count = min(4, os.cpu_count() or 1)
    with ProcessPoolExecutor(count, workers.context(), end_with_parent) as executor:
        found = {f: page_cache.load(store, f, questions, f in redrawn) for f in present}
        # those that are redrawn first, since their figures follow
        order = sorted(present, key=lambda folder: folder not in redrawn)
        answers = {
            folder: executor.submit(
                page_cache.answered_and_kept, store, folder, questions, folder in redrawn
            )
            for folder in order
            if found[folder] is None
        }
        script = _javascript(root / "index.html", executor)
        drawn = {}
        for folder in order:
            try:
                found[folder] = found[folder] or answers[folder].result()
            except BrokenExecutor:  # the process died
                found[folder] = answered(folder, questions, folder in redrawn)
            if folder in redrawn:
                drawn[folder] = _drawn(found[folder], executor)
        pages = _named([found[folder] for folder in present])
        for folder in redrawn:
            _redraw(found[folder], drawn[folder])
        for path in (root / "README.md", root / "index.html"):
            if path.is_dir():
                set_aside(path)
        variants = ordered({v for page in pages for v in page.results.variants()})
        compared = [(title(v), meaning(v)) for v in variants if meaning(v)]
        shared = {"pages": pages, "questions": questions, "statements": STATEMENTS}
        shared |= {"compared": compared, "validated": (root / "validation/README.md").is_file()}
        shared["alike"] = lambda asked: _alike(pages, asked)
        shared["unanswered"] = lambda asked: [p.name for p in pages if not p.answering(asked)]
        text = _template("index.md").render(shared)
        write_atomically(root / "README.md", text.encode())
        html = _html(pages, shared, script.result())
        write_atomically(root / "index.html", html.encode())
    return Written(
        root / "index.html",
        {folder: found[folder].sections for folder in redrawn},
        [problem for page in pages for problem in page.problems]
        + [f"{folder} has no results any more: {rows.REMEDY}" for folder in gone],
    )


def refuse_foreign(root: Path) -> None:
    """BenchError where a page would replace a file that is no page of results."""
    for name, mark in OWN.items():
        path = root / name
        if path.is_file() and mark not in path.read_bytes()[:1000]:
            raise BenchError(
                f"{path} is no page of results and would be replaced: name another folder, e.g. "
                "--results results"
            )


def _in_order(folders: Iterable[Path]) -> list[Path]:
    def place(folder: Path) -> tuple[int, str]:
        name = folder.parent.name
        return FIRST.index(name) if name in FIRST else len(FIRST), str(folder)

    return sorted(folders, key=place)


def _named(pages: list[Page]) -> list[Page]:
    """The pages with what tells them apart: names and anchors."""
    one_device = len({page.results.device for page in pages}) == 1
    keys: set[str] = set()
    for page in pages:
        found = page.results
        page.name = found.dataset if one_device else f"{found.dataset} on {found.device}"
        page.key = re.sub(r"[^A-Za-z0-9]+", "-", f"{found.dataset}-{found.device}").strip("-")
        if not page.key or page.key in keys:
            page.key = f"{page.key or 'results'}-{len(keys)}"
        keys.add(page.key)
    return pages


def _alike(pages: Sequence[Page], asked: str) -> list[list[Page]]:
    """The pages that answer a question, those with the very same answer together."""
    found: dict[str, list[Page]] = {}
    for page in pages:
        if section := page.answering(asked):
            found.setdefault(section.answer or page.key, []).append(page)
    return list(found.values())


# --- one folder ------------------------------------------------------------------------------


def _drawn(page: Page, executor: Executor) -> dict[str, Future]:
    """The images of its charts, to come; what was drawn from the same chart is kept."""
    images = {}
    for name, chart in page.charts.items():
        if image := page.stored(name, drawing.fingerprint(chart)):
            page.images[name] = image
        else:
            images[name] = page.attempt(name, lambda c=chart: executor.submit(drawing.png, c))
    return {name: future for name, future in images.items() if future}


def _redraw(page: Page, drawn: Mapping[str, Future]) -> None:
    """Write a folder's tables, figures and `README.md` anew, and exchange them in one step."""
    for name, future in drawn.items():
        if (image := page.attempt(name, future.result)) is not None:
            page.images[name] = image
    for section in page.sections:
        section.figures = [figure for figure in section.figures if figure.name in page.images]
    made = {f"figures/{name}.png": image for name, image in page.images.items()}
    for table in (table for section in page.sections for table in section.tables):
        made[f"tables/{table.name}.csv"] = rows.csv(table.frame(), digits=6)
        if table.fits_a_page:
            made[f"tables/{table.name}.tex"] = table.latex().encode()
    made["README.md"] = _template("folder.md").render(page=page).encode()
    folder = page.results.folder
    without_links(folder)
    kept = {rows.path_in(folder).name, results.HISTORY}
    with rewritten(folder) as new:
        # page.json is of former versions
        for pattern in ("*.csv", "*.md", "page.json", "tables", "figures"):
            for path in [path for path in new.glob(pattern) if path.name not in kept]:
                remove(path)
        for name, content in made.items():
            (new / name).parent.mkdir(exist_ok=True)
            if held(folder / name) == content:
                shutil.copy2(folder / name, new / name)
            else:
                write_atomically(new / name, content)


# --- index.html ------------------------------------------------------------------------------


def _javascript(index: Path, executor: Executor) -> Future:
    """Vega's JavaScript; that of the page before where it is whole and the same version's."""
    tag = rb'<script data-libraries="([^"]*)" data-sha256="([^"]*)">(.*?)</script>'
    found = re.search(tag, held(index), re.S)
    ours = found and [_libraries().encode(), _sha256(found[3]).encode()]
    if found is None or [found[1], found[2]] != ours:
        return executor.submit(drawing.javascript)
    kept: Future = Future()
    kept.set_result(found[3].decode())
    return kept


def _libraries() -> str:
    return f"vl-convert-python {version('vl-convert-python')}"


def _sha256(script: bytes) -> str:
    return hashlib.sha256(script).hexdigest()


def _html(pages: Sequence[Page], shared: Mapping[str, object], libraries: str) -> str:
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
        columns=max(
            (len(t.columns) for p in pages for s in p.sections for t in s.tables), default=0
        ),
        data=Markup(embedding.script(data)),
        libraries=Markup(libraries),
        version=_libraries(),
        digest=_sha256(libraries.encode()),
        script=Markup(_read("page.js")),
    )


def _embedded(page: Page, datasets: dict[str, dict]) -> dict[str, Markup | str]:
    """Figure → its specification in JSON, or where it is a picture, the PNG as a data URI."""

    def content(name: str) -> Markup | str:
        if name in page.charts:
            return Markup(embedding.script(embedding.compact(page.charts[name], datasets)))
        return f"data:image/png;base64,{base64.b64encode(page.images[name]).decode()}"

    names = [figure.name for section in page.sections for figure in section.figures]
    return {name: content(name) for name in names}


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
        "markdown": lambda text: _html_of(MARKDOWN.render(text)),
        "inline": lambda text: _html_of(MARKDOWN.renderInline(text)),
        "escaped": escaped,
        "code": lambda text: f"`{readable(str(text)).replace('`', ' ')}`",
        "anchor": heading_anchor,
        "link": quote,
        "cell": lambda text: " ".join(text.replace("|", "\\|").split()),
        "safe_html": Markup,
    }
    return environment


def _html_of(rendered: str) -> Markup:
    """Rendered Markdown in which no line ends between a number and its interval."""
    return Markup(rendered.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"))


def heading_anchor(heading: str) -> str:
    """The name under which GitHub links to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
