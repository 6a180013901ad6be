"""The key of finished work: a hash of everything it depends on.

That is its configuration, the data's fingerprint and the source of the code reached from the
functions that did the work; docstrings, annotations, comments and registrations do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from bench.machine.places import ROOT

PACKAGES = ("bench", "vaes")
REGISTRATION = "registered"
"""A decorator of this name describes what it decorates and changes no result."""


def key(identity: object, *code: Callable) -> str:
    """Hash of an identity (anything `json` can write) and of the code reached from `code`."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(f"{text}\n{source_fingerprint(*code)}".encode()).hexdigest()[:24]


def source_files() -> list[Path]:
    """Every file of the project's own packages."""
    found = (path for name in PACKAGES for path in sorted((ROOT / name).rglob("*")))
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def source_fingerprint(*roots: Callable) -> str:
    """Hash of the functions and classes given and of all they name, within `bench` and `vaes`.

    Followed by name through module-level definitions and imports, so that editing one variant
    or adding an estimator leaves the others' results valid.
    """
    return _reached(frozenset((r.__module__, r.__qualname__.split(".")[0]) for r in roots))


@cache
def _reached(places: frozenset[tuple[str, str]]) -> str:
    """The hash of all that some places lead to, themselves included."""
    waiting = [*places]
    seen: dict[tuple[str, str], str] = {}
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        nodes, reached = _definition(*place)
        seen[place] = nodes
        waiting += reached
    # a file loaded from another folder has no stable module name, so only the code counts
    return hashlib.sha256("\n".join(sorted(seen.values())).encode()).hexdigest()


@cache
def _definition(module_name: str, name: str) -> tuple[str, list[tuple[str, str]]]:
    """The normalised source of a module-level name and the places it leads to."""
    own, imported = _module(module_name)
    if name not in own:
        return (f"{module_name}.{name}", [imported[name]] if name in imported else [])
    text, reached = [], []
    for node in own[name]:
        node = bare(node)
        text.append(ast.dump(node))
        for used in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
            if used in own:
                reached.append((module_name, used))
            elif used in imported:
                reached.append(imported[used])
    return "\n".join(text), reached


@cache
def _module(name: str) -> tuple[dict[str, list[ast.stmt]], dict[str, tuple[str, str]]]:
    """Module-level definitions by name, and names imported from our own packages."""
    tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    own: dict[str, list[ast.stmt]] = {}
    imported: dict[str, tuple[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                imported[alias.asname or alias.name] = (node.module, alias.name)
        for name in _defined(node):
            own.setdefault(name, []).append(node)
    return own, imported


def _defined(node: ast.stmt) -> Iterator[str]:
    """Names a statement defines; `@f.register` belongs to f."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Attribute) and isinstance(decorator.value, ast.Name):
                yield decorator.value.id
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (t.id for t in targets if isinstance(t, ast.Name))


def bare(node: ast.stmt) -> ast.Module:
    """A copy without docstrings, annotations and registrations, which change no result."""
    copy = ast.parse(ast.unparse(node))
    for inner in ast.walk(copy):
        body = getattr(inner, "body", None)
        if isinstance(body, list):
            inner.body = [s for s in body if not _is_text(s)] or [ast.Pass()]
        if isinstance(inner, ast.arg | ast.AnnAssign):
            inner.annotation = ast.Constant(None)
        if isinstance(inner, ast.FunctionDef):
            inner.returns = None
            inner.decorator_list = [d for d in inner.decorator_list if not _is_registration(d)]
    return copy


def _is_registration(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == REGISTRATION


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
