"""Where the project lies, and paths that a user names."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from bench.errors import BenchError, one_line

ROOT = Path(__file__).parents[2]
"""The folder of `bench/`, `vaes/` and `results/`."""
SHOWN = 300
"""Characters of a path that fit a message."""


def usable(what: str, name: str | os.PathLike) -> Path:
    """The path with `~` expanded, whether anything is there or not.

    Raises BenchError, naming `what` it is, where no file can have the path (too long, no UTF-8, of
    an unknown user, in a folder that cannot be entered), or no page can show it.
    """
    name = str(name)
    try:
        name.encode()
        path = Path(name).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except UnicodeEncodeError:
        raise BenchError(f"the path {shown(name)!a} is no UTF-8: rename it") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise BenchError(
            f"{what} {shown(name)} cannot be found ({reason}): check the path"
        ) from None
    if not name.isprintable():
        raise BenchError(f"{what} {shown(name)!a} has characters that cannot be shown: rename it")
    return path


def without_links(folder: Path) -> None:
    """Raises BenchError where a folder of results, the one above or anything in it is a symbolic
    link: nothing is written, or removed, where it leads."""
    inside = folder.iterdir() if folder.is_dir() else ()
    for path in (folder.parent, folder, *inside):
        if path.is_symlink():
            raise BenchError(
                f"{path} is a symbolic link, and results are not written through one: remove it, "
                "or name the folder that it leads to with --results"
            )


def shown(name: str) -> str:
    """A name as messages have it, by its beginning where it is long."""
    return name if len(name) < SHOWN else f"{name[:100]}… ({len(name):,} characters)"
