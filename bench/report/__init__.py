"""From stored rows to tables, figures and the index; it never computes on a model.

Every module of this folder with a `sections(results)` function is a part of the page; `PLACE`
orders them.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from bench.report.common import Results, Section


def parts() -> list:
    """The modules that make sections, in the page's order."""
    names = [info.name for info in pkgutil.iter_modules(__path__)]
    found = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return sorted((m for m in found if hasattr(m, "sections")), key=lambda m: m.PLACE)


def sections(results: Results) -> list[Section]:
    """Every section the results have rows for; writes its tables and figures."""
    return [section for part in parts() for section in part.sections(results)]


def write(results: Results) -> None:
    pass


def headline(results: Results) -> str:
    return ""


def write_index(folder: Path) -> Path:
    return folder / "README.md"
