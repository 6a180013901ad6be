"""How memory and a grid's cost grow: what is measured, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.data.dataset import load
from bench.errors import BenchError
from bench.grid.outcome import rows
from bench.grid.runner import execute
from bench.questions.throughput import growth, run_cases
from bench.questions.throughput.cases import scale
from bench.questions.throughput.cases.memory import peak_of
from bench.questions.throughput.files import FILE, stored
from bench.questions.throughput.fresh import in_fresh_process
from bench.questions.throughput.timings import read
from bench.report.section import Section

STORED = run_cases.ROOT / "results" / "mnist5k" / "cpu" / FILE
MIB = 2**20


def section_of(folder: Path, *cases: dict) -> Section:
    """The section of the stored timings with these cases of memory and scale instead of theirs."""
    found, replaced = stored(STORED), ("fresh", "memory", "scale")
    kept = [c for c in found["benchmarks"] if c["extra_info"]["kind"] not in replaced]
    found["benchmarks"] = kept + [{"extra_info": case} for case in cases]
    (folder / FILE).write_text(json.dumps(found), encoding="utf-8")
    (section,) = growth.sections(read(folder / FILE))
    for table in section.tables:
        assert table.html()
        assert table.latex()
    return section


def peak(action: str, axis: str, value: int, mib: float) -> dict:
    where = {"kind": "memory", "action": action, "axis": axis, "value": value}
    return where | {"base_bytes": 300 * MIB, "peak_bytes": (300 + mib) * MIB}


def test_timings_from_before_still_have_their_section(tmp_path):
    before = {"kind": "fresh", "variant": "flow", "importance_bytes": {"10": MIB, "1000": 2 * MIB}}
    section = section_of(tmp_path, before)
    assert {table.name for table in section.tables} == {
        "step_growth",
        "importance_memory",
        "grid_speed",
    }
    assert "one image's IW bound is from 1 to 2 MiB, from K = 10 to 1,000" in section.takeaway
    before["importance_bytes"]["1000"] = MIB
    section = section_of(tmp_path, before)
    assert "importance_memory" not in {table.name for table in section.tables if table.lines}
    assert "is below 1 MiB, the process's own peak, up to K = 1,000" in section.takeaway


def test_peaks_stand_without_what_torch_takes(tmp_path):
    section = section_of(
        tmp_path,
        peak("training", "pixels", 20_000, 600),
        peak("training", "pixels", 784, 110),
        peak("importance_bound", "samples", 10, 20),
        peak("importance_bound", "samples", 1000, 40),
        peak("importance_bound", "samples", 100_000, 80),
    )
    (table,) = [table for table in section.tables if table.name == "memory_growth"]
    first, second = table.markdown().splitlines()[2:]
    assert first == "| a training | pixels D | 784 | 20,000 | 110 | 600 | 26.11 |"
    assert second == "| one image's IW bound | K | 10 | 100,000 | 20 | 80 | 0.61 |"
    assert "takes 110 MiB at D = 784 and 600 MiB at D = 20,000." in section.takeaway
    assert (
        "for one image's IW bound, 20 to 80 MiB over a 10,000-fold range of K." in section.takeaway
    )
    assert "importance_memory" not in {table.name for table in section.tables}


def test_a_grids_cost_is_a_tasks_and_its_power(tmp_path):
    """Overhead 0.1 and 2 s (power 1.30), report 4 s whatever the grid."""
    cases = [
        {
            "kind": "scale",
            "value": tasks,
            "seconds": alone + overhead,
            "alone_seconds": alone,
            "parent_seconds": 0.003 * tasks,
            "cached_seconds": 0.002 * tasks,
            "report_seconds": 4.0,
            "grown_bytes": 1024 * tasks,
            "rows": 7 * tasks,
        }
        for tasks, alone, overhead in ((50, 1.0, 0.1), (500, 9.0, 2.0))
    ]
    section = section_of(tmp_path, *cases)
    (table,) = [table for table in section.tables if table.name == "grid_scale"]
    *_, small, large, exponents = table.markdown().splitlines()
    assert small == "| 50 | 20.0 | 2.0 | 3.0 | 2.0 | 1.0 | 80.0 | 350 |"
    assert large == "| 500 | 18.0 | 4.0 | 3.0 | 2.0 | 1.0 | 8.0 | 3,500 |"
    assert exponents.startswith("| exponent of the whole | – | 1.3 | 1.0 | 1.0 | 1.0 | 0.0 |")
    assert "A grid of 500 tiny tasks adds 4.0 ms to each" in section.takeaway
    assert "the overhead (exponent 1.30)" in section.takeaway
    assert "the report (exponent 0.00)" in section.takeaway


def test_one_grid_has_no_power(tmp_path):
    case = dict.fromkeys([f"{name}seconds" for name in ("", "alone_", "parent_", "cached_")], 1.0)
    section = section_of(
        tmp_path,
        {"kind": "scale", "value": 50, **case, "report_seconds": 4.0, "grown_bytes": 0, "rows": 7},
    )
    assert "grid_scale" in {table.name for table in section.tables}
    assert "tiny tasks" not in section.takeaway


def test_a_peak_is_taken_in_a_process_of_its_own():
    found = in_fresh_process(peak_of, "importance_bound", "cpu", {"samples": 100, "images": 2})
    assert 10**8 < found["base_bytes"] < found["peak_bytes"]
    with pytest.raises(BenchError, match=r"fresh process failed \(.*no_such"):
        in_fresh_process(peak_of, "training", "cpu", {"no_such": 1})


def test_a_grid_of_tiny_tasks_is_done_and_found(tmp_path, monkeypatch):
    """The report, which takes seconds, is another test's: here its rows are counted."""
    monkeypatch.setattr(
        scale, "_report", lambda root, grid, outcome: len(list(rows(grid, outcome)))
    )
    found = scale.scale(str(tmp_path), 12)
    assert found["rows"] > 12
    for name in ("seconds", "alone_seconds", "parent_seconds", "cached_seconds"):
        assert found[name] > 0
    assert len(list((tmp_path / "cache").glob("*.run"))) == 12
    assert len(list((tmp_path / "warm").glob("*.run"))) == 16


def test_a_grids_report_has_its_rows(tmp_path, inline):
    grid = scale.tiny_grid(tmp_path, 4)
    outcome = execute(grid, load(grid.dataset), inline)
    assert scale._report(tmp_path / "results", grid, outcome) == len(list(rows(grid, outcome)))
    assert (tmp_path / "results" / "index.html").exists()
