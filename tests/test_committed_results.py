"""The committed results are whole, small, and what a report makes of the committed rows."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from bench.grid import FAILURE
from bench.report import page, results

ROOT = Path(__file__).parents[1] / "results"
FOLDERS = page.stored(ROOT)
MEGABYTE = 1_000_000


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.parent.name)
def test_a_folder_is_whole_and_small(folder):
    assert results.read(folder).problems == []
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3 * MEGABYTE
    kept = {*results.STORED, "throughput.json", "README.md"}
    assert {path.name for path in files if path.parent == folder} <= kept
    assert {path.name for path in folder.iterdir() if path.is_dir()} <= {"figures", "tables"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.parent.name)
def test_no_task_behind_a_folder_failed(folder):
    assert results.read(folder).of(FAILURE).empty


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.parent.name)
def test_latex_needs_no_unicode_engine(folder):
    for path in folder.glob("tables/*.tex"):
        assert path.read_text(encoding="utf-8").isascii(), path


def test_tables_are_sorted_by_numbers():
    page = (ROOT / "index.html").read_text(encoding="utf-8")
    values = re.findall('data-value="([^"]*)"', page)
    assert len(values) > 1000
    assert all(math.isfinite(float(value)) for value in values)


def test_the_page_is_small():
    assert (ROOT / "index.html").stat().st_size < 6 * MEGABYTE
