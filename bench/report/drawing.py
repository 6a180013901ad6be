"""Charts as PNG, and Vega's JavaScript for the page.

Both start a JavaScript engine that holds Python's lock, so they are done in a process of their own,
for which this module imports nothing heavy.
"""

from __future__ import annotations

import io

COLOURS = 256
"""Of a stored PNG: as legible as with all, at a third of the size."""


def png(specification: dict) -> bytes:
    """A Vega-Lite specification as an image on white."""
    import vl_convert

    white = specification | {"background": "white"}
    return smaller(vl_convert.vegalite_to_png(white, scale=1.25))


def smaller(image: bytes) -> bytes:
    """The same PNG with a palette."""
    from PIL import Image

    picture = Image.open(io.BytesIO(image)).convert("RGB")
    buffer = io.BytesIO()
    # an octree keeps a colour that few pixels have, a thin line's
    small = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def javascript() -> str:
    """Vega, Vega-Lite and vegaEmbed as one script, safe between `<script>` tags."""
    import vl_convert

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")
