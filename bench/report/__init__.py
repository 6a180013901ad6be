"""From stored rows to tables, figures and the index; it never computes on a model.

Every module of this folder with a `sections(results)` function is a part of the page; its
`PLACE` orders them.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from bench.report.common import Results, Section
from bench.report.index import write_page


def parts() -> list[ModuleType]:
    """The modules that make sections, in the page's order."""
    names = [info.name for info in pkgutil.iter_modules(__path__)]
    found = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return sorted((m for m in found if hasattr(m, "sections")), key=lambda m: m.PLACE)


def write(results: Results) -> list[Section]:
    """Write every table and figure the results have rows for, and the folder's page."""
    sections = [section for part in parts() for section in part.sections(results)]
    write_page(results.folder, sections)
    return sections
