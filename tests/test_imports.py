"""Imports run down: every module uses only what lies below it, and heavy ones wait."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bench.questions import QUESTIONS
from vaes import discover

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("errors",),
    ("config", "options", "machine"),
    ("randomness",),
    ("data",),
    ("inference",),
    ("training",),
    ("variant_checks",),
    ("statistics",),
    ("grid",),
    ("report",),
    ("questions",),
    ("weights",),
    (
        "commands.limits",
        "commands.compare",
        "commands.contestants",
        "commands.listing",
        "commands.new_variant",
    ),
    ("commands.configuration", "commands.check", "commands.arguments"),
    ("commands.apply", "commands.validation"),
    ("commands.report",),
    ("commands.throughput",),
    ("commands.finished", "commands.gpu_check", "commands.run"),
    ("cli",),
    ("__main__",),
)
"""From the bottom; a module may import its own room and the rooms of lower lines."""
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
MODULES = sorted(ROOT.glob("bench/**/*.py"))


def imported(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it, those of annotations alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    """`bench.grid.runner` → `grid`; `bench.commands.run` → `commands.run`, a room of one file."""
    _, name, *inner = module.split(".")
    return f"{name}.{inner[0]}" if name == "commands" and inner else name


def own(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=own)
def test_a_module_imports_only_what_lies_below_it(path):
    me = own(path)
    for name in imported(path):
        if not name.startswith("bench."):
            continue
        if me == "bench" and room(name) == "machine":
            continue  # what must come before torch
        if me in ("bench", "bench.commands"):
            pytest.fail(f"{path} imports {name}")
        assert room(name) == room(me) or HEIGHT[room(name)] < HEIGHT[room(me)], f"{me} ← {name}"


def test_every_room_has_its_place():
    rooms = {room(own(path)) for path in MODULES if own(path) not in ("bench", "bench.commands")}
    assert rooms == HEIGHT.keys()


ROOMS = ("machine", "data", "inference", "training", "grid", "report", "commands")


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_says_what_each_of_its_modules_is(name):
    said = docstring(ROOT / "bench" / name)
    for path in (ROOT / "bench" / name).glob("*.py"):
        assert path.stem == "__init__" or f"`{path.stem}`" in said, path


def docstring(room: Path) -> str:
    return ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))


def test_a_module_of_data_imports_only_those_above_it():
    said = docstring(ROOT / "bench" / "data")
    for path in ROOT.glob("bench/data/*.py"):
        for name in imported(path):
            if name.startswith("bench.data.") and path.stem != "__init__":
                other = name.split(".")[2]
                assert said.index(f"`{other}`") < said.index(f"`{path.stem}`"), f"{path} ← {name}"


def test_the_variants_know_nothing_of_the_bench():
    for path in ROOT.glob("vaes/*.py"):
        assert not [name for name in imported(path) if name.startswith("bench")], path


def test_the_bench_knows_variants_through_their_contract_alone():
    for path in MODULES:
        for variant in discover().variants:
            assert not any(n.startswith(f"vaes.{variant}") for n in imported(path)), path


def test_the_mathematics_needs_torch_alone():
    for path in ROOT.glob("bench/inference/*.py"):
        outside = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
        assert outside <= {"torch", "bench", "vaes"}, path
        rooms = {room(name) for name in imported(path) if name.startswith("bench.")}
        assert rooms <= {"inference", "errors"}, path


def test_the_data_never_reach_the_variants():
    for path in ROOT.glob("bench/data/*.py"):
        assert not [name for name in imported(path) if name.startswith("vaes")], path


def test_the_grid_names_no_question():
    for path in ROOT.glob("bench/grid/*.py"):
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not strings & {q.name for q in QUESTIONS if q.name != "tuning"}, path


def test_no_report_imports_a_measure():
    rooms = [*ROOT.glob("bench/report/*.py"), *ROOT.glob("bench/questions/*/*.py")]
    for path in [p for p in rooms if p.stem not in ("measure", "actions")]:
        assert not [name for name in imported(path) if ".measure" in name], path


def test_a_cluster_is_imported_only_where_it_is_asked_for():
    code = (
        "import sys; from bench import cli; from bench.commands import run; "
        "sys.exit(' '.join({'dask', 'distributed'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_waits_for_no_heavy_import():
    code = (
        "import sys; from bench import cli; "
        "heavy = {'torch', 'pandas', 'scipy', 'altair', 'matplotlib', 'sklearn', 'numpy'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
