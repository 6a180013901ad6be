"""Charts as PNG, and Vega's JavaScript for the page.

Both start a JavaScript engine that holds Python's lock, so they are done in a process of their own,
for which this module imports nothing heavy.
"""

from __future__ import annotations

import io

import numpy as np

COLOURS, EXACT = 64, 4
"""Of a stored PNG, at a third of the size: so many, of which the most frequent stay as they are."""


def png(specification: dict) -> bytes:
    """A Vega-Lite specification as an image on white."""
    import vl_convert

    white = specification | {"background": "white"}
    return smaller(vl_convert.vegalite_to_png(white, scale=1.15))


def smaller(image: bytes) -> bytes:
    """The same PNG with a palette of its own colours, the most frequent (ground, grid) first."""
    from PIL import Image

    picture = Image.open(io.BytesIO(image)).convert("RGB")
    pixels = np.asarray(picture).reshape(-1, 3)
    _, first, places, counts = np.unique(
        pixels @ [1 << 16, 1 << 8, 1], return_index=True, return_inverse=True, return_counts=True
    )
    found, order = pixels[first], np.argsort(-counts, kind="stable")
    # an octree keeps a colour that few pixels have, a thin line's, but not exactly
    cells = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    _, leaders = np.unique(np.asarray(cells).ravel()[first][order], return_index=True)
    palette = found[np.union1d(order[:EXACT], order[leaders])]
    distances = np.square(palette.astype(float)).sum(1) - 2.0 * found @ palette.T.astype(float)
    indices = distances.argmin(1)[places].reshape(picture.height, picture.width)
    small = Image.fromarray(indices.astype(np.uint8))
    small.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    small.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def javascript() -> str:
    """Vega, Vega-Lite and vegaEmbed as one script, safe between `<script>` tags."""
    import vl_convert

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")
