"""Finished work on disk, by its key: written atomically, checked on reading."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch

from bench.errors import BenchError, one_line
from bench.storage import set_aside, sweep, write_atomically

MAGIC = b"vae-bench 1"


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

    def load(self, key: str) -> dict | None:
        """What was stored under a key; None where nothing (readable) is, with a notice."""
        path = self.path(key)
        try:
            return _decode(path.read_bytes(), key)
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
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(self.path(key), _encode(buffer.getvalue(), key))


def _encode(payload: bytes, key: str) -> bytes:
    digest = hashlib.sha256(payload).hexdigest().encode()
    return b" ".join([MAGIC, key.encode(), digest]) + b"\n" + payload


def _decode(data: bytes, key: str) -> dict:
    header, separator, payload = data.partition(b"\n")
    if not separator or not header.startswith(MAGIC):
        raise Unreadable("not a file of this program")
    *_, named, digest = header.split(b" ")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise Unreadable("truncated or damaged")
    if named != key.encode():
        raise Unreadable("of another run")
    try:
        return torch.load(io.BytesIO(payload), weights_only=True)
    except Exception:  # pickles that would run code among them
        raise Unreadable("of something else than plain values and tensors") from None
