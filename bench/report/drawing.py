"""Charts as PNG, and Vega's JavaScript for the page.

Both start a JavaScript engine that holds Python's lock, so they are done in a process of their own,
for which this module imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

COLOURS, EXACT = 64, 4
"""Of a stored PNG, at a third of the size: so many, of which the most frequent stay as they are."""
SHIFTS = np.array([1 << 16, 1 << 8, 1])
"""A colour's three bytes as one number."""
END = b"IEND\xaeB`\x82"
"""Of every PNG, with its checksum."""
SCALE = 1.15


def fingerprint(specification: dict) -> str:
    """What an image of the specification depends on, short; the image carries it."""
    return _short(specification, "vl-convert-python", SCALE)


def picture_fingerprint(draw: Callable, title: str, arrays: Mapping[str, np.ndarray]) -> str:
    """What a picture by matplotlib depends on: title, arrays, and the files it is drawn by."""
    digests = [
        (name, str(a.dtype), a.shape, hashlib.sha256(a.tobytes()).hexdigest())
        for name, a in sorted(arrays.items())
    ]
    shared = [Path(__file__).with_name(name) for name in ("figure.py", "style.py")]
    code = [f.read_text(encoding="utf-8") for f in (Path(inspect.getfile(draw)), *shared)]
    return _short([title, digests, code], "matplotlib")


def _short(content: object, library: str, *settings: float) -> str:
    made_with = [version(library), *settings, COLOURS, EXACT]
    text = json.dumps([content, made_with], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def carries(image: bytes, fingerprint: str) -> bool:
    """Whether a whole PNG was drawn from what has the fingerprint: it need not be drawn again."""
    from PIL import Image

    try:
        Image.open(io.BytesIO(image)).verify()  # the checksum of every part
    except Exception:  # of bytes that are damaged in any way
        return False
    return image.endswith(END) and fingerprint.encode() in image[:1000]


def png(specification: dict) -> bytes:
    """A Vega-Lite specification as an image on white."""
    import vl_convert

    white = specification | {"background": "white"}
    image = vl_convert.vegalite_to_png(white, scale=SCALE)
    return smaller(image, fingerprint(specification))


def smaller(image: bytes, comment: str = "") -> bytes:
    """The same PNG with a palette of its own colours, the most frequent (ground, grid) first."""
    from PIL import Image, PngImagePlugin

    picture = Image.open(io.BytesIO(image)).convert("RGB")
    counted = sorted(picture.getcolors(picture.width * picture.height), key=lambda c: c[1])
    counts, found = (np.array(column) for column in zip(*counted, strict=True))
    order = np.argsort(-counts, kind="stable")
    # a table of all colours, since sorting a million pixels takes as long as drawing them
    places = np.empty(1 << 24, np.int32)
    places[found @ SHIFTS] = np.arange(len(found))
    places = places[np.asarray(picture).reshape(-1, 3) @ SHIFTS]
    # an octree keeps a colour that few pixels have, a thin line's, but not exactly
    cells = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    cell = np.empty(len(found), np.uint8)
    cell[places] = np.asarray(cells).ravel()
    _, leaders = np.unique(cell[order], return_index=True)
    palette = found[np.union1d(order[:EXACT], order[leaders])].astype(np.uint8)
    distances = np.square(palette.astype(float)).sum(1) - 2.0 * found @ palette.T.astype(float)
    indices = distances.argmin(1)[places].reshape(picture.height, picture.width)
    small = Image.fromarray(indices.astype(np.uint8))
    small.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    text = PngImagePlugin.PngInfo()
    if comment:
        text.add_text("Comment", comment)
    small.save(buffer, "png", optimize=True, pnginfo=text)
    return buffer.getvalue()


def javascript() -> str:
    """Vega, Vega-Lite and vegaEmbed as one script, safe between `<script>` tags."""
    import vl_convert

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")
