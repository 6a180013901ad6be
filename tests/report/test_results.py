"""A folder of results: partial runs merge, configurations never mix, damage does not spread."""

from __future__ import annotations

import json

import numpy as np
import pytest
from stand_ins import VARIANTS, elbo_rows, environment_of, history_of, stored

from bench.report import results, rows
from bench.report.provenance import made


def loss_rows(variants=VARIANTS) -> list[dict]:
    changed = {"question": "loss_noise", "metric": "elbo_variance", "S": 1, "value": 2.0}
    return [row | changed for row in elbo_rows(variants=variants)]


def failures(variants=VARIANTS) -> list[dict]:
    changed = {"question": results.FAILURE, "metric": "training", "value": None, "reason": "NaN"}
    return [row | changed for row in elbo_rows(variants=variants)]


def questions(folder) -> dict[str, int]:
    return results.read(folder).rows.question.value_counts().to_dict()


def test_what_is_stored_is_read_again(tmp_path):
    found = results.read(stored(tmp_path / "toy" / "cpu"))
    assert found.problems == []
    assert (found.dataset, found.device) == ("toy", "cpu")
    assert found.variants() == list(VARIANTS)
    assert len(found.of("headline", "elbo", variant="flow")) == 3
    assert found.arrays("pictures", "samples")["flow"].shape == (2, 4, 4)
    assert len(found.history) == 9


def test_what_was_all_in_the_cache_stays_said_where_it_was_made(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    table = rows.frame(elbo_rows(folder.parent.name))
    elsewhere = environment_of() | {"cpu": "another", "load_average_at_start": 3.0}
    elsewhere["runs"][0]["commit"] = "later"
    results.store(folder, table, history_of(), {}, elsewhere, computed=False)
    found = results.read(folder).environment
    assert (found["cpu"], found["load_average_at_start"]) == ("a <processor>", 3.0)
    assert [run["commit"] for run in found["runs"]] == ["abc123"]
    results.store(folder, table, history_of(), {}, elsewhere)
    assert results.read(folder).environment["cpu"] == "another"


def test_a_run_that_finds_everything_leaves_every_byte_as_it_was(tmp_path):
    """In whatever order it finds it: the page kept of these files then still holds."""
    folder = tmp_path / "toy" / "cpu"

    def store(variants, computed: bool) -> None:
        found = {f"pictures/{variant}/0/samples": np.zeros(3) for variant in variants}
        table = rows.frame(loss_rows())
        results.store(folder, table, history_of(), found, environment_of(), computed)

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    store(VARIANTS, computed=True)
    (folder / results.TIMINGS).write_text("{}")
    results.record(folder)
    before = content()
    store(VARIANTS[::-1], computed=False)
    assert content() == before


def test_a_second_question_joins_the_first(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    made = environment_of(questions=["loss_noise"], command="make bench QUESTIONS=loss_noise")
    results.store(folder, rows.frame(loss_rows()), history_of(()), {}, made)
    assert questions(folder) == {"headline": 9, "loss_noise": 9}
    found = results.read(folder)
    assert len(found.history) == 9
    assert "pictures/flow/0/samples" in found.pictures
    assert [run["command"] for run in found.environment["runs"]] == [
        "make bench",
        "make bench QUESTIONS=loss_noise",
    ]


def test_a_variant_measured_again_replaces_its_own_rows_only(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    again = elbo_rows(variants=["flow"], seeds=2, shift=7)
    made = environment_of(["flow"], command="make bench VARIANTS=flow")
    results.store(folder, rows.frame(again), history_of(["flow"]), {}, made)
    found = results.read(folder)
    assert sorted(found.of("headline", variant="flow").value) == [-93, -92.9]
    assert len(found.of("headline", variant="autoencoder")) == 3
    assert len(found.history) == 9


def test_a_run_that_does_all_of_an_earlier_one_takes_its_place(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    results.store(
        folder, rows.frame(elbo_rows()), history_of(), {}, environment_of(command="make bench B=2")
    )
    runs = results.read(folder).environment["runs"]
    assert [run["command"] for run in runs] == ["make bench B=2"]


def test_rows_of_another_configuration_never_mix(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    made = environment_of(["flow"], preset="full")
    flow = rows.frame(elbo_rows(variants=["flow"]))
    results.store(folder, flow, history_of(["flow"]), {}, made)
    found = results.read(folder)
    assert set(found.rows.variant) == {"flow"}
    assert set(found.history.variant) == {"flow"}
    assert found.pictures == {}
    assert len(found.environment["runs"]) == 1


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_a_run_of_failures_keeps_what_was_stored(tmp_path, preset):
    folder = stored(tmp_path / "toy" / "cpu")
    made = environment_of(preset=preset)
    lost = results.store(folder, rows.frame(failures()), history_of(()), {}, made)
    assert questions(folder)["headline"] == 9
    assert len(results.read(folder).history) == 9
    if preset == "quick":
        assert questions(folder)[results.FAILURE] == 9
    else:
        assert "every task failed" in lost[0]


def test_failures_go_when_their_variants_run_again(tmp_path):
    folder = tmp_path / "toy" / "cpu"
    made = environment_of()
    results.store(folder, rows.frame(failures()), history_of(()), {}, made)
    assert results.read(folder).problems == []
    results.store(folder, rows.frame(elbo_rows()), history_of(), {}, made)
    assert questions(folder) == {"headline": 9}


@pytest.mark.parametrize("file", [results.HISTORY, results.PICTURES, rows.FILE])
def test_a_file_of_one_byte_is_set_aside_and_poisons_nothing(tmp_path, file):
    folder = stored(tmp_path / "toy" / "cpu")
    (folder / file).write_bytes(b"\n")
    new = rows.frame(loss_rows())
    made = environment_of(questions=["loss_noise"])
    (line,) = results.store(folder, new, history_of(()), {}, made)
    assert f"{file}.unreadable" in line
    found = results.read(folder)
    assert found.problems == []
    assert len(found.of("loss_noise")) == 9
    assert len(found.of("headline")) == (0 if file == rows.FILE else 9)


def test_files_of_an_unknown_configuration_are_set_aside(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    (folder / results.ENVIRONMENT).write_text("{")
    made = environment_of(questions=["loss_noise"])
    lost = results.store(folder, rows.frame(loss_rows()), history_of(()), {}, made)
    assert len(lost) == 4
    assert questions(folder) == {"loss_noise": 9}
    assert (folder / "rows.csv.gz.unreadable").exists()


def test_names_beyond_ascii_are_stored_as_utf8(tmp_path):
    folder = stored(tmp_path / "zäh" / "cpu", command="make bench DATASET=zäh")
    text = (folder / results.ENVIRONMENT).read_bytes().decode("utf-8")
    assert json.loads(text)["runs"][0]["command"] == "make bench DATASET=zäh"
    assert set(results.read(folder).rows.dataset) == {"zäh"}


def test_pictures_of_another_program_are_told_of(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    np.savez(folder / results.PICTURES, weights=np.zeros(3))
    (problem,) = results.read(folder).problems
    assert "'weights'" in problem


def test_where_numbers_were_measured_is_told_apart_from_where_rates_were_chosen(tmp_path):
    folder = stored(tmp_path / "toy" / "cpu")
    found = results.read(folder)
    runs = [{"questions": ["tuning"], "commit": "aaa", "command": "make tune"}]
    runs += [{"questions": ["headline"], "commit": c, "command": "make bench"} for c in ("b", "b")]
    found.environment["runs"] = runs
    told = made(found)
    assert (told["commit"], told["chosen_at"]) == ("b", "aaa")
