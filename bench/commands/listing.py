"""What is stored and what is missing: a configuration's tasks, and the folders of results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from bench.grid import TRAINING, TUNING
from bench.grid.survey import State
from bench.questions import QUESTIONS
from bench.report import page, results
from bench.report.style import ordered, title
from bench.report.table import Table

FIRST = (TUNING, TRAINING)
"""What is done before anything is measured."""


def tasks(states: Mapping[tuple[str, str], State]) -> Table:
    """A line a variant and what was done of it: how many tasks are done, missing and open."""
    order = [*FIRST, *(question.name for question in QUESTIONS if question.name not in FIRST)]
    variants = ordered({variant for _, variant in states})
    lines = [
        [what, title(variant), str(state.done), str(state.missing), str(state.open)]
        for what in order
        for variant in variants
        if (state := states.get((what, variant)))
    ]
    return Table("tasks", ["", "variant", "done", "missing", "to be tuned"], lines)


def folders(root: Path) -> Iterator[str]:
    """A line a folder of results under the root: commits, protocol, date, what it holds."""
    for folder in page.stored(root):
        found = results.read(folder)
        config, runs = found.environment.get("config", {}), found.environment.get("runs", [])
        stored = (path for name in results.STORED if (path := folder / name).exists())
        written = datetime.fromtimestamp(max(path.stat().st_mtime for path in stored))
        counted = (f"{config[name]} {name}" for name in ("epochs", "seeds") if name in config)
        measured = set(found.rows.question)
        yield (
            f"{folder}: commit {_listed(run.get('commit') for run in runs)}; "
            f"{_listed([config.get('preset'), *counted])}; written {written:%Y-%m-%d}; "
            f"{_listed(q.name for q in QUESTIONS if q.name in measured)}"
        )


def _listed(items: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(item) for item in items if item)) or "unknown"
