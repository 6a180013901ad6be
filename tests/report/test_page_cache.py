"""What was answered before is not asked again, and what has changed is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stand_ins import QUESTIONS, elbo_rows, environment_of, history_of, stored

from bench.grid.store import Store
from bench.report import page, page_cache, results, rows
from bench.report.section import Section
from bench.report.table import Cell, Column, Table

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def asked(monkeypatch) -> list[Path]:
    """The folders that were answered, as they come."""
    folders, answered = [], page_cache.answered

    def noted(folder, *rest):
        folders.append(folder)
        return answered(folder, *rest)

    monkeypatch.setattr(page_cache, "answered", noted)
    return folders


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "cache")


def files_under(root: Path) -> dict[Path, bytes]:
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_pages_of_kept_answers_are_the_same_and_no_folder_is_asked_again(tmp_path, store, asked):
    root = tmp_path / "results"
    one, two = stored(root / "one" / "cpu"), stored(root / "two" / "cpu")
    page.write(root, [one], QUESTIONS, store)
    before = files_under(root)
    assert asked == [one, two]
    assert page.write(root, [one], QUESTIONS, store).problems == []
    assert asked == [one, two]
    assert files_under(root) == before


def test_a_folder_that_has_changed_is_asked_again_and_no_other(tmp_path, store, asked):
    root = tmp_path / "results"
    one, _ = stored(root / "one" / "cpu"), stored(root / "two" / "cpu")
    page.write(root, [one], QUESTIONS, store)
    asked.clear()
    changed = rows.frame(elbo_rows("one", shift=1.0))
    results.store(one, changed, history_of(), {}, environment_of())
    page.write(root, [one], QUESTIONS, store)
    assert asked == [one]
    assert "−93.90" in (root / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["one", "one-bf16"])
def test_timings_count_and_the_same_runs_in_bf16(tmp_path, store, asked, name):
    root = tmp_path / "results"
    one = stored(root / "one" / "cpu")
    page.write(root, [one], QUESTIONS, store)
    beside = root / name / "cpu"
    beside.mkdir(parents=True, exist_ok=True)
    (beside / results.TIMINGS).write_text("{}")
    page.write(root, [one], QUESTIONS, store)
    assert asked == [one, one]


def test_rows_of_the_same_runs_in_bf16_count(tmp_path, store, asked):
    root = tmp_path / "results"
    one = stored(root / "one" / "cpu")
    page.write(root, [one], QUESTIONS, store)
    other = stored(root / "one-bf16" / "cpu")
    page.write(root, [one], QUESTIONS, store)
    assert sorted(asked) == sorted([one, one, other])


def test_other_questions_are_other_answers(tmp_path, store, asked):
    root = tmp_path / "results"
    one = stored(root / "one" / "cpu")
    page.write(root, [one], QUESTIONS, store)
    page.write(root, [one], QUESTIONS[:1], store)
    assert asked == [one, one]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path, store, monkeypatch):
    root = tmp_path / "results"
    one = stored(root / "one" / "cpu")
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == results.PICTURES:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    (problem,) = page.write(root, [one], QUESTIONS, store).problems
    assert results.PICTURES in problem


def test_what_is_kept_and_damaged_is_answered_again(tmp_path, store, asked):
    root = tmp_path / "results"
    one = stored(root / "one" / "cpu")
    page.write(root, [one], QUESTIONS, store)
    (file,) = store.folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    page.write(root, [one], QUESTIONS, store)
    assert asked == [one, one]


def test_an_answer_with_a_problem_is_not_kept(tmp_path, store, asked):
    root = tmp_path / "results"
    one = stored(root / "one" / "cpu")
    (one / results.HISTORY).write_text("cut off")
    for _ in range(2):
        assert page.write(root, [one], QUESTIONS, store).problems
    assert asked == [one, one]


def test_a_section_is_the_same_after_it_was_kept():
    lines = [["a", Cell(np.float64(1.5), 0.1)], ["b", Cell(np.int64(2))], ["c", Cell(reason="no")]]
    columns = ["variant", Column("ELBO", best="max", sign=True)]
    table = Table("elbo", columns, lines, groups=[("x", 1), ("x", 1), None], variants=list("abc"))
    before = Section("Title", "A takeaway.", tables=[table], notes="A note.", question="headline")
    found = page.Page(results.Results(Path("toy/cpu"), rows.frame([])), [before])
    (after,) = map(page_cache._section, page_cache._packed(found)["sections"])
    assert [t.html() for t in after.tables] == [table.html()]
    assert after.tables[0].markdown() == table.markdown()
    assert {**vars(after), "tables": 0} == {**vars(before), "tables": 0}
