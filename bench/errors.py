"""What goes wrong by a mistake of the user's or the machine's, told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake of the user's or the machine's, told in one line with its remedy."""


def readable(text: str) -> str:
    """A text on one line; what cannot be printed, or written as UTF-8, stands as its escape."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def one_line(error: BaseException) -> str:
    """What an error says in its first sentence, or else its type, without line breaks."""
    if type(error).__name__ == "ConnectionError":  # requests' text is a chain of inner objects
        return "no connection"
    return " ".join(str(error).split()).partition(". ")[0] or type(error).__name__


def nearest(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """The error for an unknown name, with the nearest known one."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'?" if close else f"choose from {', '.join(known)}"
    return BenchError(f"unknown {kind} '{name}': {hint}")
