"""Whatever is typed is answered by one line, before work begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import joblib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.commands import configuration
from bench.options import Config

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


# --- kinds found by hand, and what is said of each -------------------------------------------

RUN = ("run", "--dataset", "digits")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*RUN, "--seeds", "1000000000"), "--seeds must be at most 10,000"),
        ((*RUN, "--epochs", "9" * 23), "--epochs must be at most 1,000,000"),
        ((*RUN, "--jobs", "3000000000"), "--jobs must be at most 1,024, not 3000000000"),
        (("validate", "--jobs", "3000000000"), "--jobs must be at most 1,024"),
        ((*RUN, "--measurements", "exact_likelihood"), "exact_likelihood: nothing to measure"),
        ((*RUN, "--questions", "exact_likelihood"), "and nothing else was asked for"),
        (("throughput", "--seconds", "inf"), "--seconds must be at most 3,600"),
        (("throughput", "--seconds", "nan"), "--seconds must be at least 0.001, not nan"),
        (("throughput", "--seconds", "-1"), "--seconds must be at least 0.001"),
        (("gpu-check", "--minutes", "nan", "--device", "cpu"), "--minutes must be at least"),
        (("samples", "--out", "x.npz", "--count", "9" * 20), "--count must be at most"),
        (("codes", "x.npy", "--out", "x.npz", "--seed", "9" * 20), "--seed must be at most 9,999"),
        ((*RUN, "--results", "~nosuchuser"), "'results' ~nosuchuser cannot be found"),
        ((*RUN, "--cache", "~nosuchuser"), "'cache' ~nosuchuser cannot be found"),
        (("run", "--dataset", "mnist", "--data-dir", "~nosuchuser"), "--data-dir ~nosuchuser"),
        (("tune", "--dataset", "mnist", "--data-dir", "~nosuchuser"), "--data-dir ~nosuchuser"),
        (("report", "--results", "~nosuchuser/x"), "'results' ~nosuchuser/x cannot be found"),
        (("run", "--config", "~nosuchuser/x"), "--config ~nosuchuser/x cannot be found"),
        (("check", "~nosuchuser/x.py"), "variant file ~nosuchuser/x.py cannot be found"),
        ((*RUN, "--variants", "~nosuchuser/x.py"), "variant file ~nosuchuser/x.py cannot be found"),
        ((*RUN, "--results", "no\udcffutf"), "no\\udcffutf is no UTF-8"),
        (("list", "--cache", "null\0byte"), "'cache' null\\x00byte cannot be found"),
        (("new-variant", "a" * 300), "is no name of a variant"),
        (("new-variant", "nan"), "is no name of a variant"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_said(answer, words, said):
    code, text = answer(*words)
    assert code == 2
    assert said in text


PLACES = ["--results", "--cache", "--data-dir", "--config", "--dataset"]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("path", [LONG, "a" * 5000, "a" * 300 + "/x", f"{LONG}.npz", f"{LONG}.py"])
@pytest.mark.usefixtures("unchecked")
def test_long_paths(answer, name, path):
    dataset = () if name == "--dataset" else ("--dataset", "digits")
    code, text = answer("run", *dataset, name, path)
    assert code == 2
    assert "File name too long" in text or "unknown data set" in text
    assert len(text) < 1000


@pytest.mark.parametrize("command", ["check", "throughput-compare", "report", "compare"])
def test_long_paths_of_commands(answer, command):
    words = ("--results",) if command == "report" else ()
    path = "a/" * 2500 + ".py"
    code, text = answer(command, *words, path, *((path,) if command == "compare" else ()))
    assert code == 2
    assert "File name too long" in text


NO_TIMINGS = {
    "text": b"a text",
    "empty": b"",
    "archive": b"PK\x03\x04\0\0",
    "a number": b"3",
    "null": b"null",
    "another kind": b'{"config": {}, "runs": []}',
    "no cases": b'{"benchmarks": [], "machine_info": {}}',
    "cases of another kind": b'{"benchmarks": [1], "machine_info": {}}',
    "cases without times": b'{"benchmarks": [{"name": "a", "stats": {}}], "machine_info": {}}',
    "machine": b'{"benchmarks": {}, "machine_info": 3}',
    "deep": b"[" * 100_000,
    "no utf-8": b'"\xff"',
}


@pytest.mark.parametrize("content", NO_TIMINGS.values(), ids=NO_TIMINGS)
def test_timings_of_another_kind(answer, tmp_path, content):
    path = tmp_path / "throughput.json"
    path.write_bytes(content)
    for words in ((path,), (ROOT / "results/mnist5k/cpu/throughput.json", path)):
        code, text = answer("throughput-compare", *words)
        assert code == 2
        assert f"{path}" in text
        assert "make throughput" in text


def test_timings_are_not_compared_with_themselves(answer):
    path = ROOT / "results/mnist5k/cpu/throughput.json"
    assert "compared with itself" in answer("throughput-compare", path, path)[1]


@pytest.mark.parametrize(
    ("variable", "dataset"), [("BENCH_CACHE", "digits"), ("BENCH_DATA", "mnist")]
)
@pytest.mark.parametrize("path", ["~nosuchuser", "~nosuchuser/x", LONG])
@pytest.mark.usefixtures("unchecked")
def test_places_of_the_environment(answer, monkeypatch, variable, dataset, path):
    monkeypatch.setenv(variable, path)
    code, text = answer("run", "--dataset", dataset)
    assert code == 2
    assert "cannot be found" in text


@pytest.mark.usefixtures("unchecked")
def test_home_is_unknown(answer, monkeypatch):
    """HOME is unset and the user has no entry."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    for words in (("--data-dir", "~"), ("--results", "~/x"), ("--cache", "~")):
        code, text = answer("run", "--dataset", "mnist", *words)
        assert code == 2
        assert "Could not determine home directory" in text
    assert answer(*RUN)[0] == "begun"


@pytest.mark.usefixtures("unchecked")
def test_a_home_folder_is_what_a_shell_makes_of_it(answer, tmp_path):
    """make hands over RESULTS=~/x as it is."""
    (tmp_path / "home").mkdir()
    assert answer(*RUN, "--results", "~/x", "--cache", "~/cache")[0] == "begun"
    assert (tmp_path / "home" / "x").is_dir()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_small_character_set(tmp_path, encoding):
    """What it lacks, such as − and ±, is shown as a question mark."""
    words = [sys.executable, "-m", "bench", "run", "--variants", "−±é", "--results", tmp_path]
    small = {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, env=os.environ | small, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith(b"error: unknown variant '?")
    assert b"Traceback" not in done.stderr


def test_no_jobs_given_are_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 640)
    few = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {few})
        assert configuration.jobs_of(Config()) == 1
    finally:
        os.sched_setaffinity(0, before)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    assert configuration.jobs_of(Config()) == 3
    assert configuration.jobs_of(Config(jobs=7)) == 7
