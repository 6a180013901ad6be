"""Finished work on disk: keyed by everything it depends on, written atomically, checked on reading.

A key is a hash of the configuration, the data's fingerprint and the source of the code reached
from the functions that did the work; docstrings, annotations and comments do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch

from bench.config import BenchError

MAGIC = b"vae-bench 1"
PACKAGES = ("bench", "vaes")


class Unreadable(Exception):
    """A cache file that is truncated, foreign or of another key."""


def key(identity: object, *code: Callable) -> str:
    """Hash of an identity (anything `json` can write) and of the code reached from `code`."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(f"{text}\n{source_fingerprint(*code)}".encode()).hexdigest()[:24]


def source_fingerprint(*roots: Callable) -> str:
    """Hash of the functions and classes given and of all they name, within `bench` and `vaes`.

    Followed by name through module-level definitions and imports, so that editing one variant
    or adding an estimator leaves the others' results valid.
    """
    waiting = [(root.__module__, root.__qualname__.split(".")[0]) for root in roots]
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
    module = importlib.import_module(module_name)
    tree = ast.parse(inspect.getsource(module))
    own, imported = _names(tree)
    if name not in own:
        return (f"{module_name}.{name}", [imported[name]] if name in imported else [])
    text, reached = [], []
    for node in own[name]:
        node = _bare(node)
        text.append(ast.dump(node))
        for used in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
            if used in own:
                reached.append((module_name, used))
            elif used in imported:
                reached.append(imported[used])
    return "\n".join(text), reached


def _names(tree: ast.Module) -> tuple[dict[str, list[ast.stmt]], dict[str, tuple[str, str]]]:
    """Module-level definitions by name, and names imported from our own packages."""
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


def _bare(node: ast.stmt) -> ast.Module:
    """A copy without docstrings and annotations, which change no result."""
    copy = ast.parse(ast.unparse(node))
    for inner in ast.walk(copy):
        body = getattr(inner, "body", None)
        if isinstance(body, list):
            inner.body = [s for s in body if not _is_text(s)] or [ast.Pass()]
        if isinstance(inner, ast.arg | ast.AnnAssign):
            inner.annotation = ast.Constant(None)
        if isinstance(inner, ast.FunctionDef):
            inner.returns = None
    return copy


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


class Store:
    """A folder of finished work.

    Attributes:
        folder: where the files lie.
        notices: what was found amiss, one line each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notices: list[str] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchError(
                f"the cache folder {folder} cannot be made ({error.strerror}): "
                "name another with --cache"
            ) from None

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.run"

    def load(self, key: str) -> dict | None:
        """What was stored under a key; None where nothing (readable) is, with a notice."""
        path = self.path(key)
        if not path.exists():
            return None
        try:
            return _decode(path.read_bytes(), key)
        except (Unreadable, OSError) as error:
            self.notices.append(f"{path.name} in the cache is {error}: it will be made again")
            return None

    def save(self, key: str, content: dict) -> None:
        """Write atomically: a reader sees the whole file or none.

        Raises BenchError where the disk is full or read-only; what was stored before stays.
        """
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(self.path(key), _encode(buffer.getvalue(), key))


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the path, then rename over it. Raises BenchError where that is impossible."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise BenchError(
            f"{path} cannot be written ({error.strerror}): free or change the disk and run again; "
            "what was finished before is kept"
        ) from None


def _encode(payload: bytes, key: str) -> bytes:
    digest = hashlib.sha256(payload).hexdigest().encode()
    return b" ".join([MAGIC, key.encode(), digest]) + b"\n" + payload


def _decode(data: bytes, key: str) -> dict:
    header, separator, payload = data.partition(b"\n")
    if not separator or not header.startswith(MAGIC):
        raise Unreadable("not a file of this program")
    *_, named, digest = header.split(b" ")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise Unreadable("truncated or damaged")
    if named != key.encode():
        raise Unreadable("of another run")
    return torch.load(io.BytesIO(payload), weights_only=True)
