"""The cases, their file and their report: what is timed is shown as what it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.questions.throughput import report, run_cases
from bench.questions.throughput.files import FILE, joined, stored, without_rounds
from bench.questions.throughput.timings import read, rounded
from bench.report import results
from bench.report import rows as tidy
from bench.report.results import Results
from bench.report.section import Section
from vaes import VAE, discover

pytestmark = pytest.mark.slow

VARIANTS = discover().variants


@pytest.fixture(scope="module")
def timings(tmp_path_factory):
    """A folder with the real JSON of two variants on tiny images, by the real command."""
    folder = tmp_path_factory.mktemp("tiny") / "cpu"
    folder.mkdir()
    path = folder.parent / "tiny.npz"
    images = np.random.default_rng(0).random((200, 4, 4)).astype(np.float32)
    np.savez(path, train=images[:120], valid=images[120:160], test=images[160:])
    wanted = (
        "test_training and 100 and not 1000",
        "evaluation",
        "importance",
        "copy",
        "matrix",
        "first_step and input_dependent",
        "latent_dim-2",
        "latent_dim-10",
    )
    only = " or ".join(f"({case})" for case in wanted)
    variants = ("autoencoder", "input_dependent")
    run_cases.run_cases(folder, str(path), "cpu", variants, None, False, 0.01, only)
    return folder


def results_in(folder: Path, rows=()) -> Results:
    return Results(folder, tidy.frame(rows))


def with_cases(timings: Path, folder: Path, *cases: dict) -> Results:
    """The timings with further cases, stored in another folder."""
    found = stored(timings / FILE)
    found["benchmarks"] += [{"extra_info": case} for case in cases]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(found), encoding="utf-8")
    return results_in(folder)


def tables_of(section: Section) -> dict:
    return {table.name: table for table in section.tables}


def test_the_cases_store_times_bounds_and_labels(timings):
    found = stored(timings / FILE)
    assert found["machine_info"].keys().isdisjoint({"node", "user"})
    cases = [b["extra_info"] for b in found["benchmarks"]]
    kinds = {c["kind"] for c in cases}
    assert kinds >= {"training", "estimator", "evaluation", "importance", "fresh", "growth"}
    for case in cases:
        assert case["seconds"] > 0
        if case["kind"] in ("training", "evaluation", "importance"):
            assert case["bound_seconds"] > 0
    for name in ("name", "fullname"):
        assert len({b[name] for b in found["benchmarks"]}) == len(cases), "commits match by name"


def test_statistics_are_kept_and_rounds_are_not(timings):
    """Nothing that comes with each round, so that a file of all cases stays small."""
    benchmarks = stored(timings / FILE)["benchmarks"]
    assert all(not {"data", "total"} & b["stats"].keys() and "options" not in b for b in benchmarks)
    assert all(b["stats"]["min"] <= b["stats"]["median"] <= b["stats"]["max"] for b in benchmarks)
    assert (timings / FILE).stat().st_size < 1100 * len(benchmarks)
    assert [path.name for path in timings.iterdir()] == [FILE]
    case = {"name": "a", "extra_info": {"seconds": 1 / 3}, "options": {}}
    statistics = dict.fromkeys(("min", "max", "mean", "stddev", "median", "iqr", "ops"), 1 / 3)
    statistics |= {"outliers": "1;0", "rounds": 3, "iterations": 1, "data": [1 / 3] * 3}
    (kept,) = without_rounds({"benchmarks": [case | {"stats": statistics}]})["benchmarks"]
    assert kept["extra_info"] == case["extra_info"]
    assert (kept["stats"]["median"], kept["stats"]["rounds"]) == (0.333333, 3)


def test_the_committed_timings_are_without_rounds():
    files = list((run_cases.ROOT / "results").glob(f"*/*/{FILE}"))
    assert files
    for path in files:
        found = stored(path)
        assert found == without_rounds(found)
        assert not any("data" in b["stats"] for b in found["benchmarks"])


def test_the_report_shows_every_variant_and_estimator(timings):
    speed, growth = report.sections(results_in(timings))
    tables = tables_of(speed)
    assert set(tables["training_speed"].frame().variant) == {"autoencoder", "input-dependent"}
    assert "leave-one-out" in set(tables["estimator_speed"].frame().estimator)
    assert "GFLOP/s" in speed.notes
    assert "(batch 100)" in speed.takeaway
    assert speed.answer.startswith("input-dependent trains on")
    assert "latent dimensions" in growth.tables[0].markdown()
    assert "100,000" in tables_of(growth)["importance_memory"].markdown()
    for figure in (*speed.figures, *growth.figures):
        assert figure.png("tiny").startswith(b"\x89PNG")


def test_a_training_step_is_as_fast_as_its_case_says(timings, tmp_path):
    """500 images in 0.02 s; a stack of five seeds against one seed's steps."""
    labels = {"kind": "stacked", "variant": "input_dependent", "items": 500, "seconds": 0.02}
    ratios = {"lean_ratio": 0.5, "ordinary_ratio": 0.6}
    speed, *_ = report.sections(with_cases(timings, tmp_path, labels | ratios))
    frame = tables_of(speed)["training_speed"].frame().set_index("step")
    stacked = frame.loc["five seeds stacked"]
    assert (stacked["images/s"], stacked["× eager step"]) == (25_000, 2.5)
    assert stacked["× ordinary loop"] == 3


def test_where_a_steps_time_goes_is_a_line_a_part_and_a_column_a_batch(timings, tmp_path):
    case = {"kind": "parts", "variant": "input_dependent", "items": 100}
    cases = [
        case | {"batch": 100, "seconds": 2e-3, "parts": {"matrix products": 0.6, "calls": 0.05}},
        case | {"batch": 1000, "seconds": 2e-2, "parts": {"matrix products": 0.8}},
    ]
    speed, *_ = report.sections(with_cases(timings, tmp_path, *cases))
    assert tables_of(speed)["step_parts"].markdown().splitlines()[2:] == [
        "| matrix products | 0.60 | 0.80 | 1.200 | 16.000 |",
        "| calls | 0.05 | – | 0.100 | – |",
        "| the rest | 0.35 | 0.20 | 0.700 | 4.000 |",
    ]


def test_a_compiled_step_stands_beside_its_roofline(timings, tmp_path):
    case = {"kind": "compiled", "variant": "flow", "batch": 100, "items": 100, "seconds": 2e-3}
    case |= {"bound_ratio": 0.6, "roofline_ratio": 0.87, "ordinary_ratio": 2.0}
    large = case | {"batch": 1000, "items": 1000, "seconds": 2e-2, "roofline_ratio": 0.8}
    both, *_ = report.sections(with_cases(timings, tmp_path, case, large))
    assert "it reaches 0.80 (batch 1,000) of the speed of its roofline" in both.takeaway
    speed, *_ = report.sections(with_cases(timings, tmp_path, case))
    assert "roofline" not in speed.takeaway  # which is no bound of small batches
    frame = tables_of(speed)["training_speed"].frame().set_index("step")
    assert frame.loc["compiled", "of roofline"] == 0.87


def test_a_grids_speed_up_stands_beside_that_of_its_trainings_alone(timings, tmp_path):
    rounds = [
        {"1": {"seconds": 4.0, "bound_seconds": 3.8}, "2": {"seconds": 2.5, "bound_seconds": 1.9}},
        {"1": {"seconds": 4.0, "bound_seconds": 3.8}, "2": {"seconds": 2.0, "bound_seconds": 2.0}},
    ]
    case = {"kind": "grid", "rounds_by_tasks": {"4": rounds}}
    _, section = report.sections(with_cases(timings, tmp_path, case))
    assert "2 workers finish a grid of 4 trainings 1.80 times as fast as one" in section.takeaway
    assert "the same trainings directly, 1.95 times" in section.takeaway
    line = "| 4 | 4.00 | 2.25 | 1.80 (1.60 – 2.00) | 1.95 (1.90 – 2.00) |"
    assert line in tables_of(section)["grid_speed"].markdown()


def test_an_estimators_memory_and_start_stand_beside_its_speed(timings, tmp_path):
    fresh = {
        "kind": "fresh_estimator",
        "variant": "input_dependent",
        "estimator": "pathwise",
        "batch": 100,
        "seconds": 2.5,
        "peak_bytes": 333 * 2**20,
    }
    section, _ = report.sections(with_cases(timings, tmp_path, fresh))
    lines = tables_of(section)["estimator_speed"].markdown().splitlines()
    pathwise, other = (
        next(line for line in lines if f"| input-dependent | {name} |" in line)
        for name in ("pathwise", "score function")
    )
    assert pathwise.endswith("| 333 | 2.50 |")
    assert other.endswith("| – | – |")


def test_without_timings_there_is_no_section(tmp_path):
    assert report.sections(results_in(tmp_path)) == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2]",
        '{"benchmarks": [{"name": "a"}], "machine_info": {}}',
        '{"benchmarks": [], "machine_info": 3}',
        '{"benchmarks": [{"extra_info": {"kind": "growth", "seconds": "x"}}], "machine_info": {}}',
    ],
)
def test_damaged_timings_are_told_of_in_one_line(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(BenchError, match="make it again with 'make throughput'") as problem:
        report.sections(results_in(tmp_path))
    assert str(tmp_path / FILE) in str(problem.value)
    assert "\n" not in str(problem.value)


def test_bf16_is_shown_beside_float32(timings, tmp_path):
    identity = {"device": "cpu", "variant": "input_dependent", "question": "headline"}
    folders = tmp_path / "tiny" / "cpu", tmp_path / "tiny-bf16" / "cpu"
    for folder, shift in zip(folders, (0.0, -0.5)):
        folder.mkdir(parents=True)
        values = [-90.0 + s + shift + 0.01 * shift * s for s in range(4)]
        rows = tidy.frame(
            identity | {"dataset": "tiny", "seed": s, "metric": "elbo", "value": value}
            for s, value in enumerate(values)
        )
        tidy.write(folder, rows)
    with_cases(timings, folders[0])
    section, _ = report.sections(results_in(folders[0], tidy.read(folders[0]).to_dict("records")))
    assert "bf16's test ELBO against float32's at the same learning rates" in section.notes
    assert "nats over 4 paired seeds" in section.notes
    assert "lower for `input-dependent` (−0.508 ± 0.010)" in section.notes
    assert "different processors" not in section.notes
    for folder, cpu in zip(folders, ("one", "another")):
        (folder / "environment.json").write_text(json.dumps({"cpu": cpu, "config": {}, "runs": []}))
    section, _ = report.sections(results.read(folders[0]))
    assert "trained on different processors" in section.notes
    for folder, epochs in zip(folders, (240, 100)):
        environment = {"config": {"epochs": epochs}, "runs": []}
        (folder / "environment.json").write_text(json.dumps(environment))
    here = results.read(folders[0])
    section, _ = report.sections(here)
    assert "no comparison of ELBOs" in section.notes
    assert "lower for" not in section.notes


def test_two_commits_are_compared(timings, tmp_path, capfd, monkeypatch):
    """Also where the other file is as pytest-benchmark wrote it, and its cases lay elsewhere."""
    found = stored(timings / FILE)
    for case in found["benchmarks"]:
        case["fullname"] = case["fullname"].replace("bench/questions/throughput/cases", "old")
        case["stats"]["data"] = [case["stats"]["median"]]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(found))
    monkeypatch.chdir(tmp_path)
    run_cases.compare(timings / FILE, Path("other.json"))
    shown = capfd.readouterr().out
    assert shown.count("test_training[autoencoder-100]") >= 2
    with pytest.raises(BenchError, match="make throughput"):
        run_cases.compare(tmp_path / "none.json", other)
    other.write_text("{")
    with pytest.raises(BenchError, match=r"other\.json cannot be read"):
        run_cases.compare(timings / FILE, other)


def test_other_cases_are_other_timings():
    assert {path.parent.name for path in run_cases.CODE} == {"throughput", "cases"}
    assert {"actions.py", "conftest.py", "test_speed.py"} <= {path.name for path in run_cases.CODE}
    assert len(run_cases.fingerprint()) == 64


@pytest.mark.parametrize(
    ("value", "text"),
    [(16_643.2, "16,600"), (0.04567, "0.0457"), (1.0, "1.00"), (float("nan"), "–")],
)
def test_digits(value, text):
    assert rounded(value) == text


def test_only_vaes_have_importance_bounds(timings):
    cases = read(timings / FILE).of("importance")
    assert set(cases.variant) == {n for n in ("input_dependent",) if issubclass(VARIANTS[n], VAE)}


def test_cases_of_the_same_code_and_machine_stay_and_others_go():
    def found(code: str, machine: str, *names: str) -> dict:
        cases = [{"name": name, "extra_info": {"by": code}} for name in names]
        return {"code": code, "machine_info": {"cpu": machine}, "benchmarks": cases}

    def names_of(old: dict, new: dict) -> list[str]:
        return [case["name"] for case in joined(old, new)["benchmarks"]]

    new = found("now", "here", "a", "b")
    assert names_of(found("now", "here", "b", "peers"), new) == ["peers", "a", "b"]
    assert names_of(found("before", "here", "b", "peers"), new) == ["a", "b"]
    assert names_of(found("now", "elsewhere", "peers"), new) == ["a", "b"]
