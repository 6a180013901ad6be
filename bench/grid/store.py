"""Finished work on disk, by its key: written atomically, checked on reading."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch

from bench.errors import BenchError, one_line
from bench.machine.storage import set_aside, sweep, write_atomically

MAGIC, MAGIC_OF_ONE_PART = b"vae-bench 2", b"vae-bench 1"
HEADER_BYTES = 400
DAMAGED = "truncated or damaged"


class Unreadable(Exception):
    """A cache file that is truncated, foreign or of another key."""


class Store:
    """A folder of finished work.

    Attributes:
        folder: where the files lie.
        notices: what was found amiss, one line each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notices: list[str] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchError(
                f"the cache folder {folder} cannot be made ({error.strerror}): "
                "name another with --cache"
            ) from None

    def sweep(self) -> None:
        """Remove what killed runs were writing; no other may be at it."""
        sweep(self.folder, "*.run")

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.run"

    def load(self, key: str, tensors: bool = True) -> dict | None:
        """What was stored under a key; None where nothing (readable) is, with a notice.

        Without `tensors`, what only their file format holds is left out: it is neither read nor
        checked.
        """
        path = self.path(key)
        try:
            with path.open("rb") as file:
                return _read(file, key, tensors)
        except FileNotFoundError:
            return None
        except (Unreadable, OSError) as error:
            said = error if isinstance(error, Unreadable) else f"unreadable ({one_line(error)})"
            self.notices.append(f"{path.name} in the cache is {said}: it will be made again")
            if path.is_dir():
                set_aside(path)
            return None

    def packed(self, key: str) -> bytes | None:
        """The file of a key as it is, for another store's `keep`; None where there is none."""
        try:
            return self.path(key).read_bytes()
        except OSError:
            return None

    def keep(self, key: str, packed: bytes) -> None:
        """Write what is `packed` in another store; raises BenchError as `save` does."""
        write_atomically(self.path(key), packed)

    def save(self, key: str, content: dict) -> None:
        """Write atomically: a reader sees the whole file or none.

        Raises BenchError where the disk is full or read-only; what was stored before stays.
        """
        write_atomically(self.path(key), encoded(content, key))


def encoded(content: dict, key: str) -> bytes:
    """A file's bytes: a header, what JSON gives back as it was, and the rest, tensors."""
    plain = {name: value for name, value in content.items() if _is_plain(value)}
    buffer = io.BytesIO()
    torch.save({name: value for name, value in content.items() if name not in plain}, buffer)
    parts = (json.dumps(plain).encode(), buffer.getvalue())
    told = [f"{len(part)} {_digest(part)}".encode() for part in parts]
    return b" ".join([MAGIC, key.encode(), *told]) + b"\n" + b"".join(parts)


def _is_plain(value: object) -> bool:
    if type(value) is dict:
        return all(type(name) is str and _is_plain(held) for name, held in value.items())
    if type(value) is list:
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _digest(part: bytes) -> str:
    return hashlib.sha256(part).hexdigest()


def _read(file: BinaryIO, key: str, tensors: bool) -> dict:
    """What a file holds. Raises Unreadable with the reason, a clause."""
    header = file.readline(HEADER_BYTES)
    magic, (named, *told) = header[: len(MAGIC)], header[len(MAGIC) :].split() or [b""]
    if magic == MAGIC_OF_ONE_PART and len(told) == 1:
        content = _understood(_part(file, -1, *told), _tensors)
    elif magic == MAGIC and len(told) == 4 and all(size.isdigit() for size in told[::2]):
        sizes, digests = [int(size) for size in told[::2]], told[1::2]
        if os.fstat(file.fileno()).st_size != len(header) + sum(sizes):
            raise Unreadable(DAMAGED)
        content = _understood(_part(file, sizes[0], digests[0]), json.load)
        if tensors:
            content |= _understood(_part(file, sizes[1], digests[1]), _tensors)
    else:
        raise Unreadable("not a file of this program")
    if named != key.encode():
        raise Unreadable("of another run")
    return content


def _part(file: BinaryIO, size: int, digest: bytes) -> bytes:
    part = file.read(size)
    if _digest(part).encode() != digest:
        raise Unreadable(DAMAGED)
    return part


def _understood(part: bytes, how: Callable[[BinaryIO], dict]) -> dict:
    with suppress(Exception):  # of pickles that would run code among others
        if isinstance(content := how(io.BytesIO(part)), dict):
            return content
    raise Unreadable("of something else than plain values and tensors")


def _tensors(part: BinaryIO) -> dict:
    return torch.load(part, weights_only=True)
