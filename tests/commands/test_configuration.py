"""From options to a grid."""

from __future__ import annotations

import pytest

from bench.commands import configuration
from bench.data.dataset import load
from bench.options import Config


@pytest.mark.parametrize(("seeds", "dealt_to"), [(0, 5), (2, 5), (8, 8)])
def test_test_images_are_dealt_to_as_many_seeds_as_run(seeds, dealt_to):
    """To five at least, so that more seeds up to five leave what is stored as it is."""
    grid = configuration.grid(Config(dataset="digits", seeds=seeds), load("digits"), (), (), "cpu")
    assert grid.seeds == (seeds or 5)
    assert grid.preset.seeds == dealt_to
