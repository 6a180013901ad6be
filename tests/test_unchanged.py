"""Moving code changes no number: two folders of results hold equal values, timings aside.

    pytest tests/test_unchanged.py --before results-of-main/mnist5k/cpu --after results/mnist5k/cpu

Both must come from one machine: processors round differently.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.commands.compare import ROUNDING, TIMED, TIMED_METRICS
from bench.report import results, rows

KEYS = [*rows.IDENTITY, *rows.SETTINGS]


@pytest.fixture
def folders(request) -> tuple[results.Results, results.Results]:
    before, after = (request.config.getoption(name) for name in ("--before", "--after"))
    if not (before and after):
        pytest.skip("names no two folders: --before FOLDER --after FOLDER")
    return results.read(Path(before)), results.read(Path(after))


def untimed(table: pd.DataFrame) -> pd.DataFrame:
    timed = table.unit.isin(TIMED) | table.metric.isin(TIMED_METRICS)
    keys = [*KEYS, *(c for c in table if c.startswith(rows.HYPERPARAMETER))]
    return table[~timed].sort_values(keys, kind="stable").reset_index(drop=True)


def test_every_stored_value_is_the_same(folders):
    before, after = (untimed(folder.rows) for folder in folders)
    keys = [c for c in before if c not in rows.MEASURED]
    pd.testing.assert_frame_equal(before[keys], after[keys])
    for column in ("value", "standard_error", "n"):
        np.testing.assert_allclose(
            before[column].astype(float),
            after[column].astype(float),
            rtol=ROUNDING,
            atol=1e-9,
            err_msg=column,
        )


def test_every_epoch_is_the_same(folders):
    before, after = (
        folder.history.drop(columns="seconds").sort_values(["variant", "seed", "epoch"])
        for folder in folders
    )
    pd.testing.assert_frame_equal(
        before.reset_index(drop=True), after.reset_index(drop=True), rtol=ROUNDING
    )


def test_every_picture_is_the_same(folders):
    before, after = (folder.pictures for folder in folders)
    assert before.keys() <= after.keys()
    for name, array in before.items():
        np.testing.assert_allclose(
            array.astype(float), after[name].astype(float), rtol=1e-3, atol=1e-3, err_msg=name
        )
