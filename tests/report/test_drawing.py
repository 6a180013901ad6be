"""A stored picture keeps what matters of the one drawn."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from bench.report import drawing


def test_a_smaller_picture_keeps_ground_grid_and_thin_lines():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 400, 3), dtype=np.uint8)  # many colours
    drawn = np.full((400, 400, 3), 255, np.uint8)
    drawn[:60] = pixels
    drawn[100::40] = 247
    drawn[60:, 7] = (204, 121, 167)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "png")
    stored = drawing.smaller(buffer.getvalue())
    found = np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))
    assert len(stored) < len(buffer.getvalue()) / 2
    assert (found[60:] == drawn[60:]).all()
    assert np.abs(found[:60].astype(int) - pixels).mean() < 40


def test_an_image_knows_what_it_was_drawn_from():
    chart = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": [{"x": 1}]},
        "mark": "point",
        "encoding": {"x": {"field": "x", "type": "quantitative"}},
    }
    image = drawing.png(chart)
    assert drawing.carries(image, drawing.fingerprint(chart))
    assert not drawing.carries(image, drawing.fingerprint(chart | {"mark": "bar"}))
    assert not drawing.carries(b"another program's", drawing.fingerprint(chart))


def test_a_picture_is_told_from_one_of_other_arrays_or_another_title():
    """What a fingerprint leaves out would keep an old picture beside new numbers."""

    def draw():
        raise AssertionError

    arrays = {"pictures/flow/0/samples": np.zeros((1, 2, 2), np.uint8)}
    one = drawing.picture_fingerprint(draw, "Samples: mnist", arrays)
    assert one == drawing.picture_fingerprint(draw, "Samples: mnist", dict(arrays))
    others = [
        drawing.picture_fingerprint(draw, "Samples: digits", arrays),
        drawing.picture_fingerprint(draw, "Samples: mnist", {k: v + 1 for k, v in arrays.items()}),
        drawing.picture_fingerprint(json.dumps, "Samples: mnist", arrays),
    ]
    assert one not in others
