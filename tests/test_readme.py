"""The README is true: its commands run, its variant works, its table names what exists."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from bench.report.page import heading_anchor

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project without its results, with the README's variant dropped in."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("bench", "vaes"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Makefile", "README.md", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    (variant,) = (block for block in blocks("python") if "class " in block)
    path, name = re.search(r"`(vaes/(\w+)\.py)` becomes", TEXT).groups()
    written = make(folder, "variant", f"NAME={name}")
    assert written.returncode == 0, written.stdout + written.stderr
    assert (folder / path).exists()
    (folder / path).write_text(variant)
    return folder


def make(copy: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`make …` with this interpreter's environment instead of a new one."""
    ready = f"{sys.prefix}/.ready"
    command = ["make", f"VENV={sys.prefix}", "-o", ready, *arguments]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True)


def test_the_rows_are_read_filtered_and_plotted_in_five_lines(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MPLBACKEND", "agg")
    (snippet,) = (block for block in blocks("python") if "rows.read" in block)
    assert len([line for line in snippet.splitlines() if line]) <= 5
    names: dict = {}
    exec(snippet, names)
    assert len(names["plain"]) > 10


def test_every_figure_of_the_opening_stands_on_the_page_it_is_quoted_from():
    opening = TEXT.partition("| variant | q(z")[0]
    lines = [line.strip("|").split(" | ") for line in opening.splitlines() if line[:1] == "|"]
    heading, _, *compared = lines
    assert len(compared) == 4
    of_column = [name for name in re.findall(r"`(\w+)`", "".join(heading)) for _ in range(2)]
    known = {name: stored_figures(ROOT / "results" / name / "cpu") for name in of_column}
    wrong = [
        (line[0], name, cell)
        for line in compared
        for name, cell in zip(of_column, line[1:], strict=True)
        if cell.strip(" ()") not in known[name]
    ]
    assert not wrong
    prose = " ".join(opening[opening.rindex("| flow") :].partition("\n")[2].split())
    told = re.findall(r"−?\d+\.\d+ ± \d+\.\d+", prose)
    assert len(told) > 5
    anywhere = {f.lstrip("+−") for figures in known.values() for f in figures}
    assert not [figure for figure in told if figure.lstrip("−") not in anywhere]


def stored_figures(folder: Path) -> set[str]:
    """Every difference with its interval that a folder's page prints, or its tables hold."""
    found = set()
    for page in versions(folder / "README.md"):
        found |= {*re.findall(r"[+−]\d+\.\d+ ± \d+\.\d+", page)}
    for table in versions(folder / "tables" / "gap_differences.csv"):
        numbers = pd.read_csv(io.StringIO(table)).select_dtypes("number").to_numpy()
        found |= {f"{mean:+.2f} ± {half:.2f}".replace("-", "−") for mean, half in numbers}
    return found


def versions(path: Path) -> list[str]:
    """A file as it is and, where there is git, as it was committed: `make bench` makes results
    anew, whose times are another machine's."""
    name = f"HEAD:{path.relative_to(ROOT).as_posix()}"
    before = subprocess.run(["git", "show", name], cwd=ROOT, capture_output=True)
    found = [path.read_text(encoding="utf-8")]
    return found if before.returncode else [*found, before.stdout.decode("utf-8")]


def test_every_command_is_one_make_understands(copy):
    for command in commands():
        program, *arguments = command.split()
        assert program == "make"
        done = make(copy, "--dry-run", *arguments)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_a_misspelt_variable_is_no_bench_of_something_else(copy):
    done = make(copy, "--dry-run", "bench", "DATSET=mnist")
    assert done.returncode == 2
    assert "there is no DATSET=" in done.stderr
    done = make(copy, "--dry-run", "bench", "NAME=low_rank")
    assert done.returncode != 0
    assert "'make bench' takes no NAME=" in done.stderr
    assert "bench run" not in done.stdout


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("quick", "PRESET"),
        ("check-results", "DATASET"),
        ("check", "VARIANTS"),
        ("tune", "PRECISION"),
        ("test", "DATASET"),
    ],
)
def test_what_a_command_does_not_take_is_refused(copy, command, variable):
    done = make(copy, "--dry-run", command, f"{variable}=x")
    assert done.returncode == 2
    assert f"'make {command}' takes no {variable}=" in done.stderr


def test_what_help_lists_of_a_command_it_takes():
    listed = re.findall(r"^  make (\S+) .*\((.*)\)$", make(ROOT, "help").stdout, re.MULTILINE)
    assert len(listed) > 8
    for command, variables in listed:
        given = [f"{name}=x" for name in re.findall(r"[A-Z]+(?==)", variables)]
        done = make(ROOT, "--dry-run", command, *given)
        assert done.returncode == 0, done.stderr


def test_the_new_variant_fulfils_its_contract(copy):
    checked = make(copy, "check", "NAME=low_rank")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WRONG" not in checked.stdout


@pytest.mark.slow
def test_a_new_variant_runs_beside_the_others_by_its_file_alone(copy, tiny):
    """`make bench` and `make report` for real, on tiny data, with a broken file in the way."""
    (copy / "vaes" / "unfinished.py").write_text("def posterior(:")
    done = make(
        copy,
        "bench",
        f"DATASET={tiny}",
        "PRESET=quick",
        "SEEDS=1",
        "JOBS=1",
        "VARIANTS=input_dependent,low_rank",
    )
    (copy / "vaes" / "unfinished.py").unlink()
    text = done.stdout + done.stderr
    assert "low-rank" in text, text
    assert "Results page: results/index.html" in text
    assert "unfinished.py: SyntaxError" in text
    assert "failed:" not in text
    assert done.returncode != 0, "a file that is no variant must be told by the exit code"
    page = (copy / "results" / "README.md").read_text()
    assert "low-rank" in page
    detail = next((copy / "results").glob("*/*/README.md"))
    for path in (copy / "results" / "README.md", detail):
        links_hold(path)
    again = make(copy, "report")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (copy / "results" / "README.md").read_text() == page


def links_hold(page: Path) -> None:
    """Every link of a page leads to a file, and to a heading of it where it names one."""
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8"))
    assert links
    for file, heading in links:
        path = page.parent / unquote(file) if file else page
        assert path.exists(), f"{page}: {file}"
        if heading and path.suffix == ".md":
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in map(heading_anchor, titles), f"{page}: {file}#{heading}"


def test_the_committed_results_are_linked():
    for page in [ROOT / "results" / "README.md", *ROOT.glob("results/*/*/README.md")]:
        links_hold(page)


def test_what_the_readme_names_exists():
    links = re.findall(r"\]\((?!https://)([^)#]+)", TEXT)
    for path in [*re.findall(r"\| `([^`]+)` \|", TEXT), *links]:
        assert (ROOT / path).exists(), path
    headings = re.findall(r"\]\(([^)#]+\.md)#([^)]+)\)", TEXT)
    for path, heading in headings:
        titles = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), flags=re.MULTILINE)
        assert heading in map(heading_anchor, titles), heading
