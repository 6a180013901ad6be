"""Charts inside the page: their data without repetition, and their colours in light and dark."""

from __future__ import annotations

import colorsys
import json
import math
import re
from collections.abc import Iterable

INK = {"light": "#1c2430", "dark": "#e7eaef"}
LINES = {"light": "#d5dae1", "dark": "#3a424e"}
DARK_GROUND = "#15191f"
DIGITS = 5
"""Of an embedded number: more than a pixel can show."""
CONTRAST = 4.0
"""Of a mark to the dark ground, by WCAG 2.1, which asks 3 of a graphical object."""


def theme(scheme: str) -> dict:
    """Vega's configuration of everything that is neither data nor ground."""
    ink, line = INK[scheme], LINES[scheme]
    text = {"labelColor": ink, "titleColor": ink}
    return {
        "background": "transparent",
        "axis": text | {"gridColor": line, "domainColor": line, "tickColor": line},
        "header": text,
        "legend": text,
        "title": {"color": ink},
        "view": {"stroke": line},
        "text": {"color": ink},
        "rule": {"color": ink},
    }


def compact(specification: dict, datasets: dict[str, dict]) -> dict:
    """The specification without data, configuration and title, which the page gives itself.

    Its data join `datasets`: name → `{"columns": […], "words": {column: […]}, "rows": [[…]]}`; a
    column that has `words` holds their places.
    """
    left_out = ("datasets", "config", "title", "$schema")
    for name, rows in specification.get("datasets", {}).items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        words = {column: _words(row.get(column) for row in rows) for column in columns}
        words = {column: found for column, found in words.items() if found}
        places = {
            c: {word: place for place, word in enumerate(found)} for c, found in words.items()
        }
        lines = [
            [places[c].get(row.get(c)) if c in places else _short(row.get(c)) for c in columns]
            for row in rows
        ]
        datasets[name] = {"columns": columns, "words": words, "rows": lines}
    return {key: value for key, value in specification.items() if key not in left_out}


def _words(values: Iterable[object]) -> list[str]:
    """The different texts of a column; none where it holds anything else."""
    found = list(dict.fromkeys(value for value in values if value is not None))
    return found if all(isinstance(value, str) for value in found) else []


def _short(value: object) -> object:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short


def on_dark(specification: str) -> dict[str, str]:
    """Each colour of a text whose contrast to the dark ground is too small → a lighter one."""
    colours = {c.lower() for c in re.findall(r"#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\b", specification)}
    lighter = {colour: lightened(colour) for colour in sorted(colours)}
    return {colour: new for colour, new in lighter.items() if new != colour}


def lightened(colour: str) -> str:
    """The colour, or where it would drown in the dark ground, a lighter one; black is white."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*_rgb(colour))
    if not saturation and _contrast(colour) < CONTRAST:
        lightness = 0.92 * (1 - lightness)
    while _contrast(colour) < CONTRAST:
        lightness = min(1, lightness + 0.02)
        channels = colorsys.hls_to_rgb(hue, lightness, saturation)
        colour = "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
    return colour


def _rgb(colour: str) -> list[float]:
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    return [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]


def _contrast(colour: str) -> float:
    return (_luminance(colour) + 0.05) / (_luminance(DARK_GROUND) + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _rgb(colour)]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def script(value: object) -> str:
    """JSON that is safe between `<script>` tags."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
