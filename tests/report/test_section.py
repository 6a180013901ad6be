"""The words beside a report: notes on top, and below a heading each what is said of a figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report.section import captioned, prose

ROOT = Path(__file__).parents[2]
NOTES = sorted(ROOT.glob("bench/questions/*/notes.md"))
TEXT = """Means over {seeds} seeds.

# first

A title

How it is
read.

Lines up to {most:.1f}.

# second

Another

How.

What.
"""


@pytest.fixture
def beside(tmp_path):
    (tmp_path / "notes.md").write_text(TEXT, encoding="utf-8")
    return str(tmp_path / "report.py")


def test_notes_end_where_figures_begin(beside):
    assert prose(beside, seeds=5) == "Means over 5 seeds."


def test_a_figure_finds_its_three_paragraphs(beside):
    figure = captioned(beside, "first", filters=("stage",), most=2)
    assert (figure.name, figure.title, figure.filters) == ("first", "A title", ("stage",))
    assert figure.how == "How it is read."
    assert figure.alt == "Lines up to 2.0."
    assert captioned(beside, "second").alt == "What."


@pytest.mark.parametrize("path", NOTES, ids=lambda path: path.parent.name)
def test_every_figure_has_its_words_and_is_drawn(path):
    code = "".join(file.read_text(encoding="utf-8") for file in path.parent.glob("*.py"))
    for block in path.read_text(encoding="utf-8").split("\n# ")[1:]:
        name, *paragraphs = block.strip().split("\n\n")
        assert len(paragraphs) == 3, name
        assert f'"{name}"' in code
