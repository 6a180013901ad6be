"""A stored picture keeps what matters of the one drawn."""

from __future__ import annotations

import io

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
    assert drawing.is_of(image, chart)
    assert not drawing.is_of(image, chart | {"mark": "bar"})
    assert not drawing.is_of(b"another program's", chart)
