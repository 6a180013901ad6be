"""The pages: what they show, what survives broken files, and that nothing foreign is believed."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from stand_ins import (
    QUESTIONS,
    StandIn,
    elbo_rows,
    environment_of,
    headline,
    history_of,
    stored,
)

from bench.report import embedding, page, results, rows
from bench.report.lecture_notes import STATEMENTS
from bench.report.table import escaped

pytestmark = pytest.mark.usefixtures("in_process")


class Links(HTMLParser):
    """Every id, and every target of a link or picture."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.targets = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        self.targets |= {found[name] for name in ("href", "src") if name in found}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_folder_gets_its_tables_figures_and_page(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    written = page.write(tmp_path, None, QUESTIONS)
    assert written.problems == []
    assert [section.title for section in written.sections[folder]] == [
        "What it buys",
        "What is drawn",
    ]
    assert {p.name for p in (folder / "tables").iterdir()} == {"elbo.csv", "elbo.tex"}
    assert {p.name for p in (folder / "figures").iterdir()} == {
        "elbo.png",
        "one.png",
        "samples.png",
    }
    for image in (folder / "figures").iterdir():
        assert image.read_bytes().startswith(b"\x89PNG")
    readme = text_of(folder / "README.md")
    for part in ("# toy on cpu", "make bench\n", "`abc123`", "preset `quick`"):
        assert part in readme
    assert "| flow | **−93.90 ± 0.25** |" in readme
    assert "Grey pixels" not in readme


def test_stale_files_and_twins_go_when_a_folder_is_redrawn(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    (folder / "tables").mkdir()
    (folder / "figures").mkdir()
    stale = ["elbo.md", "elbo.csv", "page.json", "tables/old.csv", "figures/old.png"]
    kept = ["rows.csv.gz", "history.csv", "environment.json", "pictures.npz", "throughput.json"]
    for name in [*stale, "throughput.json"]:
        (folder / name).write_text("{}\n")
    page.write(tmp_path, [folder], QUESTIONS)
    assert not [name for name in stale if (folder / name).exists()]
    assert all((folder / name).exists() for name in kept)


def test_only_the_folders_named_are_redrawn_but_the_pages_have_all(tmp_path):
    one, other = stored(tmp_path / "one" / "cpu"), stored(tmp_path / "other" / "cpu")
    written = page.write(tmp_path, [one], QUESTIONS)
    assert list(written.sections) == [one]
    assert not (other / "README.md").exists()
    for text in (text_of(tmp_path / "README.md"), text_of(tmp_path / "index.html")):
        assert "one" in text
        assert "other" in text
    assert 'id="other-cpu--headline"' in text


def test_the_questions_stand_beside_their_answers_for_each_data_set(tmp_path):
    stored(tmp_path / "toy" / "cpu")
    page.write(tmp_path, None, QUESTIONS)
    text = text_of(tmp_path / "README.md")
    link = "[toy](toy/cpu/README.md#what-it-buys)"
    assert f"\n\n**What does it buy?** `headline`\n\n- {link} after 2 epochs: flow wins by" in text
    assert "\n\n**Is it sure?** `uncertainty`\n\n- no answer: toy\n\n" in text
    html = text_of(tmp_path / "index.html")
    line = '<a href="#toy-cpu--headline">toy</a> after 2 epochs</th><td>flow wins by 3 | 4 nats'
    assert line in html
    assert '<th scope="row">no answer</th><td>toy</td>' in html


def test_the_same_answer_of_two_data_sets_stands_there_once(tmp_path):
    stored(tmp_path / "toy" / "cpu")
    stored(tmp_path / "twin" / "cpu")
    page.write(tmp_path, None, QUESTIONS)
    links = [
        f"[{name}]({name}/cpu/README.md#what-it-buys) after 2 epochs" for name in ("toy", "twin")
    ]
    assert f"\n\n- {', '.join(links)}: flow wins by 3 | 4 nats\n" in text_of(tmp_path / "README.md")
    assert text_of(tmp_path / "index.html").count("<td>flow wins by 3 | 4 nats</td>") == 1


def test_all_links_lead_somewhere_even_with_odd_names(tmp_path):
    stored(tmp_path / "with space & <b>#1%" / "cpu")
    stored(tmp_path / "with-space--b--1" / "cpu")
    written = page.write(tmp_path, None, QUESTIONS)
    assert written.problems == []
    text = text_of(tmp_path / "index.html")
    found = Links(text)
    assert "<b>#1%" not in text
    for target in found.targets - {"data:,"}:
        if target.startswith("#"):
            assert unquote(target[1:]) in found.ids, target
        elif not target.startswith("data:image/png;base64,"):
            assert (tmp_path / unquote(target)).exists(), target
    for readme in [tmp_path / "README.md", *tmp_path.glob("*/cpu/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)", text_of(readme)):
            if target != "../README.md":  # the repository's
                assert " " not in target
                assert (readme.parent / unquote(target)).exists(), target


def test_what_is_not_ours_is_escaped(tmp_path):
    name = "<img src=x onerror=alert(1)>|*_`&amp;"
    stored(tmp_path / name / "cpu", command="make bench DATASET='</script><b>'")
    written = page.write(tmp_path, None, QUESTIONS)
    html = text_of(written.index)
    assert "<img src=x" not in html
    assert "</script><b>" not in html
    assert f"## {escaped(name)}" in text_of(tmp_path / "README.md")
    assert page.MARKDOWN.render(escaped(name)).count("<img") == 0


def test_a_failing_question_and_a_failing_figure_leave_the_rest(tmp_path):
    def fails(found):
        raise ValueError("a <b>reason</b>\nof two lines")

    def undrawable(found):
        (section,) = headline(found)
        (figure, *_) = section.figures

        def draw():
            raise RuntimeError("no canvas")

        broken = type(figure)("broken", "Broken", "How.", "Nothing.", draw=draw)
        section.figures = [figure, broken]
        return [section]

    folder = stored(tmp_path / "toy" / "cpu")
    questions = [StandIn("headline", "Asked?", undrawable), StandIn("loss", "Loss?", fails)]
    written = page.write(tmp_path, None, questions)
    assert any("the question 'loss' cannot be shown" in line for line in written.problems)
    assert any("the figure 'broken' cannot be drawn" in line for line in written.problems)
    assert not any("\n" in line for line in written.problems)
    assert (folder / "figures" / "elbo.png").exists()
    assert not (folder / "figures" / "broken.png").exists()
    html = text_of(written.index)
    assert "a &lt;b&gt;reason&lt;/b&gt; of two lines" in html
    assert "What it buys" in html
    assert "Left out" in text_of(folder / "README.md")


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "one byte": lambda path: path.write_bytes(b"x"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "foreign": lambda path: path.write_text('["of", "another", "program"]\n', encoding="utf-8"),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", results.STORED)
def test_a_broken_file_is_one_line_and_the_rest_is_made(tmp_path, file, damage):
    good, folder = stored(tmp_path / "good" / "cpu"), stored(tmp_path / "bad" / "cpu")
    DAMAGE[damage](folder / file)
    written = page.write(tmp_path, None, QUESTIONS)
    (problem,) = written.problems
    assert str(folder / file) in problem
    assert "make bench" in problem
    assert "\n" not in problem
    assert len(written.sections[good]) == 2
    assert (good / "figures" / "elbo.png").exists()
    assert "Left out" in text_of(folder / "README.md")
    if file != "rows.csv.gz":
        assert (folder / "figures" / "elbo.png").exists()


def test_an_environment_of_another_shape_is_told_of(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    (folder / results.ENVIRONMENT).write_text(json.dumps({"config": 3, "runs": [4]}))
    written = page.write(tmp_path, None, QUESTIONS)
    assert len(written.problems) == 1
    assert "environment.json" in written.problems[0]


def test_grey_pixels_are_labelled(tmp_path):
    folder = stored(tmp_path / "toy-grey" / "cpu", binarization="none")
    page.write(tmp_path, None, QUESTIONS)
    paths = (folder / "README.md", tmp_path / "README.md", tmp_path / "index.html")
    assert all("Grey pixels" in text_of(path) for path in paths)


def test_published_numbers_made_again_are_linked_where_there_are_any(tmp_path):
    stored(tmp_path / "toy" / "cpu")
    link = "validation/README.md"
    paths = (tmp_path / "README.md", tmp_path / "index.html")
    page.write(tmp_path, None, QUESTIONS)
    assert not any(link in text_of(path) for path in paths)
    (tmp_path / "validation").mkdir()
    (tmp_path / link).write_text("# Published numbers\n")
    page.write(tmp_path, None, QUESTIONS)
    assert all(link in text_of(path) for path in paths)


def test_two_devices_of_a_data_set_are_told_apart(tmp_path):
    stored(tmp_path / "toy" / "cpu")
    stored(tmp_path / "toy" / "cuda")
    text = text_of(page.write(tmp_path, [], QUESTIONS).index)
    assert "toy on cpu" in text
    assert "toy on cuda" in text


def test_the_page_is_one_small_file_that_names_no_host(tmp_path):
    stored(tmp_path / "toy" / "cpu")
    index = page.write(tmp_path, None, QUESTIONS).index
    assert index.stat().st_size < 6e6
    found = Links(text_of(index))
    assert not [target for target in found.targets if re.match(r"(https?:)?//", target)]
    assert text_of(index).count("<script") == text_of(index).count("</script>")


def test_files_are_utf8_whatever_the_locale(tmp_path):
    stored(tmp_path / "toy" / "cpu")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "sys.path.insert(0, 'tests')\n"
        "from stand_ins import QUESTIONS\nfrom bench.report import page\n"
        "if __name__ == '__main__':\n"
        "    print(page.write(Path(sys.argv[1]), None, QUESTIONS).problems)\n"
    )
    script = tmp_path / "write.py"
    script.write_text(code)
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr
    assert "−93.90 ± 0.25" in text_of(tmp_path / "toy" / "cpu" / "README.md")


def test_charts_in_the_page_carry_short_data_and_no_configuration():
    datasets = {}
    rows = [{"a": 1.23456789, "b": None}, {"a": float("nan"), "c": "x"}]
    whole = {"datasets": {"d": rows}, "config": {}, "title": "t", "data": {"name": "d"}}
    assert embedding.compact(whole, datasets) == {"data": {"name": "d"}}
    assert datasets == {
        "d": {
            "columns": ["a", "b", "c"],
            "words": {"c": ["x"]},
            "rows": [[1.2346, None, None], [None, None, 0]],
        }
    }


def test_colours_stand_out_on_the_dark_ground():
    dark = embedding.on_dark('"#000000" "#444" "#0072B2" "#E69F00"')
    assert set(dark) == {"#000000", "#444", "#0072b2"}
    assert all(embedding.lightened(colour) == colour for colour in dark.values())


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.said)
def test_functions_named_beside_the_notes_exist(statement):
    for path in statement.functions:
        parts = path.split(".")
        for end in range(len(parts) - 1, 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:end]))
            except ModuleNotFoundError:
                continue
            break
        for name in parts[end:]:
            found = getattr(found, name)
        assert callable(found)


def test_questions_named_beside_the_notes_exist():
    questions = Path(page.__file__).parents[1] / "questions" / "__init__.py"
    names = {
        node.args[0].value
        for node in ast.walk(ast.parse(text_of(questions)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Question"
    }
    assert {statement.question for statement in STATEMENTS} <= names


def test_the_notes_show_what_was_measured(tmp_path):
    stored(tmp_path / "toy" / "cpu")
    text = text_of(page.write(tmp_path, [], QUESTIONS).index)
    notes = text[text.index('id="notes"') : text.index('id="results"')]
    assert "<code>bench.inference.elbo.elbo_terms</code>" in notes
    assert "flow wins by 3 | 4 nats" in notes


def test_pictures_of_folders_not_redrawn_are_those_stored(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    page.write(tmp_path, None, QUESTIONS)
    other = {"pictures/flow/0/samples": np.zeros((1, 2, 2), np.uint8)}
    results.store(folder, rows.frame(elbo_rows()), history_of(), other, environment_of())
    before = text_of(tmp_path / "index.html")
    assert text_of(page.write(tmp_path, [], QUESTIONS).index) == before


def test_what_is_compared_is_said_and_a_former_protocol_is_warned_of(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu", preset="quick")
    page.write(tmp_path, None, QUESTIONS)
    for path in (folder / "README.md", tmp_path / "README.md", tmp_path / "index.html"):
        assert "Former protocol" in text_of(path)
        assert "a check that everything runs" in text_of(path)
    environment = json.loads((folder / results.ENVIRONMENT).read_text())
    environment["config"] |= {"learning_rate": None, "preset": "default", "hidden_dim": [64, 32]}
    environment |= {"image_shape": [2, 3], "images": {"train": 1000, "valid": 20, "test": 30}}
    del environment["sha256"]
    (folder / results.ENVIRONMENT).write_text(json.dumps(environment))
    page.write(tmp_path, None, QUESTIONS)
    for path in (folder / "README.md", tmp_path / "index.html"):
        assert "Former" not in text_of(path)
        assert "Encoder 6-64-32-20 (tanh), decoder the mirror image" in text_of(path)
        assert "1,000 images to train, 20 to validate and 30 to test on" in text_of(path)
    environment["config"] |= {"dataset": "ppca"}
    (folder / results.ENVIRONMENT).write_text(json.dumps(environment))
    page.write(tmp_path, None, QUESTIONS)
    assert "decoder linear" in text_of(folder / "README.md")
    assert "affine coupling layers" in text_of(tmp_path / "index.html")
