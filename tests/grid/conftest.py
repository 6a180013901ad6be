"""A small grid that the tests of this folder run."""

from __future__ import annotations

import pytest

from bench.config import PRESETS
from bench.grid.tasks import Grid
from bench.questions import named


@pytest.fixture
def grid(tiny, tmp_path) -> Grid:
    overrides = (("latent_dim", 2), ("hidden_dim", 8))
    names = ("autoencoder", "fixed_variance", "input_dependent")
    return Grid(
        str(tiny),
        names,
        2,
        PRESETS["quick"],
        "cpu",
        overrides,
        cache=tmp_path / "cache",
        questions=named(["headline"]),
    )
