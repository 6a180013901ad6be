"""The schema of rows: kept on writing and reading, and anything else is one clear line."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest
from stand_ins import elbo_rows

from bench.errors import BenchError
from bench.report import rows


@pytest.fixture
def table() -> pd.DataFrame:
    lines = elbo_rows()
    lines[0] |= {"S": 4, "level": 0.5, "capped": True, "hyperparameter_scale": 0.3}
    lines[1] |= {"value": float("nan"), "reason": "it, diverged"}
    return rows.frame(lines)


def test_a_round_trip_changes_nothing(tmp_path, table):
    rows.write(tmp_path, table)
    pd.testing.assert_frame_equal(rows.read(tmp_path), table)


def test_every_column_of_the_schema_is_there_and_typed(table):
    assert {name: str(table[name].dtype) for name in ("seed", "S", "capped", "level")} == {
        "seed": "Int64",
        "S": "Int64",
        "capped": "boolean",
        "level": "float64",
    }
    assert set(rows.COLUMNS) <= set(table)
    assert rows.hyperparameters(table) == ["scale"]


def test_settings_nobody_has_are_not_stored(tmp_path, table):
    rows.write(tmp_path, table)
    text = gzip.decompress((tmp_path / rows.FILE).read_bytes()).decode()
    header = text.splitlines()[0].split(",")
    assert "S" in header
    assert "K" not in header


def test_rows_are_selected_by_value_or_by_several(table):
    assert len(rows.select(table, variant="flow")) == 3
    assert len(rows.select(table, variant=["flow", "autoencoder"], seed=0)) == 2
    assert len(rows.select(table, S=4)) == 1
    assert len(rows.select(table, S=4, capped=False)) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,score\nx,1\n", "'name'"),
        ("dataset,value\n", "lack the column 'device'"),
        ("", "cannot be read"),
        ("x", "cut off"),
        ('"dataset\n', "cannot be read"),
    ],
)
def test_a_foreign_file_is_one_line_with_the_remedy(tmp_path, text, said):
    (tmp_path / rows.FILE).write_bytes(gzip.compress(text.encode()))
    with pytest.raises(BenchError, match="make bench") as caught:
        rows.read(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path / rows.FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value"), [("seed", "two"), ("capped", "maybe"), ("value", "?")]
)
def test_a_value_of_another_type_is_told_with_its_column(tmp_path, table, column, value):
    rows.write(tmp_path, table)
    stored = pd.read_csv(tmp_path / rows.FILE, dtype=object)
    stored.loc[0, column] = value
    stored.to_csv(tmp_path / rows.FILE, index=False)
    with pytest.raises(BenchError, match=f"column '{column}'"):
        rows.read(tmp_path)


def test_a_file_cut_anywhere_is_not_believed(tmp_path, table):
    rows.write(tmp_path, table)
    whole = (tmp_path / rows.FILE).read_bytes()
    for length in range(1, len(whole), 37):
        (tmp_path / rows.FILE).write_bytes(whole[:length])
        with pytest.raises(BenchError):
            rows.read(tmp_path)


def test_a_changed_value_is_noticed(tmp_path, table):
    rows.write(tmp_path, table)
    whole = bytearray((tmp_path / rows.FILE).read_bytes())
    for place in range(10, len(whole), 13):
        damaged = whole.copy()
        damaged[place] ^= 1
        (tmp_path / rows.FILE).write_bytes(damaged)
        with pytest.raises(BenchError):
            rows.read(tmp_path)


def test_rows_of_before_are_read_until_there_are_others(tmp_path, table):
    (tmp_path / rows.FORMER_FILE).write_bytes(rows.csv(table))
    assert len(rows.read(tmp_path)) == len(table)
    rows.write(tmp_path, table.iloc[:1])
    assert len(rows.read(tmp_path)) == 1
    assert rows.path_in(tmp_path).name == rows.FILE


def test_an_unknown_column_is_refused_on_writing():
    with pytest.raises(BenchError, match="colour"):
        rows.frame([elbo_rows()[0] | {"colour": "red"}])


def test_no_rows_are_a_table_too(tmp_path):
    rows.write(tmp_path, rows.frame([]))
    assert len(rows.read(tmp_path)) == 0
