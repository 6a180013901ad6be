"""What is said of variants before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from bench.commands import contestants
from bench.errors import BenchError
from bench.options import Config
from vaes import discover

EXAMPLES = Path(__file__).parents[2] / "vaes" / "_examples"


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "iwae"}, True),
        ({"estimator": "dreg"}, True),
        ({"objective": "iwae", "samples": 5}, False),
        ({"estimator": "rloo"}, False),
        ({}, False),
    ],
)
def test_a_bound_of_one_sample_is_said_to_be_the_elbo(options, said):
    assert len([*contestants.of_one_sample(Config(**options))]) == said


def test_images_that_a_variant_cannot_be_made_for_are_refused_before_anything_is_done():
    known = discover(files=[EXAMPLES / "convolutional.py"]).variants
    contestants.check_variants(known, ["convolutional"], {}, 64)
    with pytest.raises(BenchError, match=r"images of 900 pixels: .* no squares of a side that 4"):
        contestants.check_variants(known, ["convolutional"], {}, 900)


@pytest.mark.parametrize(
    ("shape", "said"), [((8, 32), True), ((28, 28), False), ((1, 256), True), ((5, 7), False)]
)
def test_images_that_pass_for_squares_are_told_of(shape, said):
    """Where a variant has a decoder of its own."""
    known = discover(files=[EXAMPLES / "convolutional.py"]).variants
    lines = [*contestants.own_shapes(known, known, shape)]
    assert len(lines) == said
    assert all("networks of their own: convolutional;" in line for line in lines)


class Normalized(discover().variants["full_covariance"]):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder.append(nn.BatchNorm1d(self.hidden_dim))


def test_layers_of_batches_do_not_hide_what_a_variant_admits():
    """The one image that it is asked with is evaluated, not trained on."""
    with pytest.raises(BenchError, match="free bits are of each latent's KL"):
        contestants.check_variants(
            {"normalized": Normalized}, ["normalized"], {"free_bits": 0.1}, 16
        )
