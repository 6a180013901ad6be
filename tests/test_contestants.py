"""What is said of variants before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import contestants
from bench.config import Config
from vaes import discover

EXAMPLES = Path(__file__).parents[1] / "vaes" / "_examples"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"activation": "relu", "gated": True}, "nothing changes by --activation and --gated"),
        ({"hidden": "64,32"}, "nothing changes by --hidden"),
        ({"latent": 5, "prior": "vamp"}, ""),
        ({}, ""),
    ],
)
def test_options_that_a_variants_own_networks_have_no_use_for_are_said(options, said):
    file = EXAMPLES / "convolutional.py"
    known = discover(files=[file]).variants
    lines = [*contestants.unused_options(known, known, Config(**options))]
    assert len(lines) == bool(said)
    for line in lines:
        assert line.startswith("convolutional: has networks of its own")
        assert line.endswith(said)
