"""Words of the command line, or of a TOML file, made options; and options made the words that ask
for them again."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from cyclopts.config import Dict

from bench.commands import limits
from bench.errors import BenchError, one_line
from bench.machine.places import shown, usable
from bench.options import Config, as_typed

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection

LONGEST = 100_000
"""Characters of an option."""
MADE_BY_MAKE = ("dataset", "variants", "seeds", "device", "preset", "precision", "questions")
"""The fields of `Config` that the Makefile has a variable for."""
NOT_OF_A_PAGE = ("jobs", "engine", "scheduler", "results", "cache", "config")
"""Fields that change no number, or that stand in others."""


def from_file(words: list[str]) -> list[Dict]:
    """What the file of `--config FILE` says of options that are not on the command line.

    Lists become what one types: `hidden = [512, 256]` is `--hidden 512,256`.
    """
    given = [
        part for w in words for part in (w.split("=", 1) if w.startswith("--config=") else [w])
    ]
    if "--config" not in given[:-1]:
        return []
    path = usable("--config", given[given.index("--config") + 1])
    if not path.exists():
        raise BenchError(f"--config {path} does not exist: name a TOML file")
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(
            f"--config {path} cannot be read as a TOML file ({one_line(error)}): "
            'write lines such as epochs = 60 or variants = "flow"'
        ) from None
    # under the command's name: of a flat table, keys that are names of commands too are dropped
    given = {name: as_typed(name, value) for name, value in options.items()}
    return [Dict({words[0]: given}, source=str(path))]


def numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse what is no number for an option that is one, and a fraction, which would be rounded,
    for one that is a whole number."""
    for argument in arguments:
        kinds = {argument.hint, *get_args(argument.hint)} & {int, float}
        for token in argument.tokens if kinds else ():
            whole = int in kinds
            if not _is_number(token.value, whole):
                what = "a whole number" if whole else "a number"
                raise BenchError(f"{argument.name} must be {what}, not {token.value}")


def _is_number(word: str, whole: bool) -> bool:
    try:
        return float(word).is_integer() or not whole
    except ValueError:
        return False


def utf8(word: str) -> str:
    """The word itself; raises BenchError where it is no UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise BenchError(f"{shown(word)} is no UTF-8: rename the file, or type it anew") from None
    return word


def usable_option(name: str, value: object) -> object:
    """An option's value, a path with `~` expanded; raises BenchError on what could never work."""
    if isinstance(value, Config):
        options = ((f.name, getattr(value, f.name)) for f in fields(value))
        return replace(value, **{name: usable_option(name, option) for name, option in options})
    if name in limits.LIMITS:
        limits.check(name, value)
    if isinstance(value, Path):
        return usable(f"'{name}'", value)
    if isinstance(value, str):
        if len(value) > LONGEST:
            raise BenchError(
                f"--{name.replace('_', '-')} has {len(value):,} characters: give fewer"
            )
        return str(usable("--data-dir", value)) if name == "data_dir" else value
    return value


def command(config: Config, device: str, name: str = "run") -> str:
    """The command that does the same again, as one types it into a shell."""
    changed = {
        field.name: str(getattr(config, field.name))
        for field in fields(Config)
        if field.name not in NOT_OF_A_PAGE and getattr(config, field.name) != field.default
    }
    if "device" in changed:
        changed["device"] = device
    if set(changed) <= set(MADE_BY_MAKE):
        target = "bench" if name == "run" else name
        words = ["make", target, *(f"{name.upper()}={value}" for name, value in changed.items())]
    else:
        options = ((f"--{name.replace('_', '-')}", value) for name, value in changed.items())
        given = ((option,) if value == "True" else (option, value) for option, value in options)
        words = [".venv/bin/python", "-m", "bench", name, *(w for pair in given for w in pair)]
    return shlex.join(words)
