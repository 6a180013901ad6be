"""Whatever is typed is answered by one line, before work begins."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import Config

ROOT = Path(__file__).parents[2]
LONG = "a/" * 2500
NAMES = [f"--{field.name.replace('_', '-')}" for field in fields(Config)]
WRONG = [
    "",
    " ",
    "-",
    "--",
    "-1",
    "0",
    "1e999",
    "nan",
    "inf",
    "9" * 23,
    "1_0",
    "9" * 5000,
    LONG,
    "a" * 300,
    "a" * 300 + ".py",
    "a" * 300 + ".npz",
    "~nosuchuser",
    "~nosuchuser/x.py",
    "~nosuchuser/x.npz",
    "../../x",
    "../../x.npz",
    "../../x.py",
    ",",
    ",,1",
    "1,-1",
    "null\0byte",
    "no\udcffutf",
    "new\nline.npz",
    "[red]x",
    "\x1b[2J",
    "$(touch touched)",
    "; touch touched",
    "`touch touched`",
    "%s{0}",
    "−±",
    "/dev/null",
    "/dev/zero",
]
VALUES = st.one_of(
    st.sampled_from(WRONG),
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.integers(-2, 10**30)).map(lambda some: ",".join(map(str, some))),
)
OPTIONS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), min_size=1, max_size=3)
COMMANDS = {
    "run": (),
    "tune": (),
    "list": (),
    "throughput": ("--seconds", "--full", "--peers"),
    "validate": ("--rows",),
    "report": (),
    "gpu-check": ("--minutes",),
    "new-variant": (),
    "check": (),
    "throughput-compare": (),
    "compare": ("--question",),
    "codes": ("--out", "--variant", "--seed"),
    "samples": ("--out", "--count", "--noise-seed", "--variant", "--seed"),
    "likelihood": ("--out", "--variant", "--seed"),
    "export-weights": ("--stage", "--variant", "--seed"),
}


@given(OPTIONS)
@pytest.mark.usefixtures("unchecked")
def test_options_of_a_run(answer, options):
    answer("run", "--dataset=digits", *(f"{name}={value}" for name, value in options))


@given(st.data())
@pytest.mark.usefixtures("unchecked")
def test_every_command(answer, data):
    command = data.draw(st.sampled_from(sorted(COMMANDS)))
    names = st.sampled_from([*COMMANDS[command] * 3, *NAMES, "--help"])
    given = data.draw(st.lists(st.tuples(names, VALUES), max_size=3))
    words = data.draw(st.lists(VALUES, max_size=2))
    options = (f"{name}={value}" if value else name for name, value in given)
    answer(command, *words, *options)


@given(st.lists(st.one_of(VALUES, st.sampled_from(NAMES)), max_size=4))
@pytest.mark.usefixtures("unchecked")
def test_words_in_any_order(answer, words):
    answer(*words)


@given(st.dictionaries(st.sampled_from([name.strip("-") for name in NAMES]), VALUES, max_size=3))
@pytest.mark.usefixtures("unchecked")
def test_options_in_a_file(answer, tmp_path, options):
    import json

    file = tmp_path / "options.toml"
    lines = (f"{name} = {json.dumps(value)}" for name, value in options.items())
    file.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    answer("run", "--config", file)


@given(st.one_of(st.text(), st.binary().map(lambda b: b.decode(errors="surrogateescape"))))
@pytest.mark.usefixtures("unchecked")
def test_any_file_as_options(answer, tmp_path, content):
    file = tmp_path / "options.toml"
    file.write_bytes(content.encode(errors="surrogateescape"))
    answer("run", "--config", file)
