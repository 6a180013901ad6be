"""Files that are whole or not there at all, folders that change in one step, and their locks."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from bench.errors import BenchError

LOCK = ".lock"
TEMPORARY = ".{}.????????"
"""What `tempfile` calls a file or a folder that is to become the one named."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux's `renameat2`."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the path, then rename over it. Raises BenchError where that is impossible."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise BenchError(
            f"{path} cannot be written ({error.strerror}): free or change the disk and run again; "
            "what was finished before is kept"
        ) from None


def held(path: Path) -> bytes:
    """What a file holds; b"" where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@contextmanager
def rewritten(folder: Path) -> Iterator[Path]:
    """A copy of a folder, to be changed; in the end it takes the folder's place in one step.

    Its files are the folder's own (hard links): one that is to change is replaced, see
    `write_atomically`. Where the block fails the folder stays as it was. Raises BenchError where
    the folder is gone or cannot be written.
    """
    folder, copy = folder.resolve(), None
    try:
        copy = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        leftovers = shutil.ignore_patterns(TEMPORARY.format("*"))
        shutil.copytree(folder, copy, True, leftovers, _linked, dirs_exist_ok=True)
        yield copy
        _exchange(folder, copy)
    except BenchError as error:
        raise BenchError(str(error).replace(str(copy), str(folder))) from None
    except OSError as error:
        (*_, reason) = error.args[0][0] if isinstance(error, shutil.Error) else [error.strerror]
        raise BenchError(
            f"{folder} cannot be written ({reason}): free or change the disk and run again; "
            "what was finished before is kept"
        ) from None
    finally:
        if copy is not None:
            shutil.rmtree(copy, ignore_errors=True)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _exchange(folder: Path, other: Path) -> None:
    """Two folders change places: in one step where the system can, else file by file."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    paths = os.fsencode(folder), os.fsencode(other)
    if rename and rename(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0:
        return
    new = {path.relative_to(other) for path in other.rglob("*")}
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies within comes before
        place = path.relative_to(folder)
        if place not in new or path.is_dir() != (other / place).is_dir():
            remove(path)
    for place in sorted(new):
        if (other / place).is_dir():
            (folder / place).mkdir(exist_ok=True)
        else:
            (other / place).replace(folder / place)


def remove(path: Path) -> None:
    """Whatever it is; nothing where it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename what cannot be used, so that its place is free and nothing is lost."""
    names = (f"{path.name}.unreadable{f'-{n}' if n > 1 else ''}" for n in count(1))
    aside = next(path.with_name(name) for name in names if not os.path.lexists(path.parent / name))
    path.replace(aside)
    return aside


def sweep(folder: Path, *names: str) -> None:
    """Remove what writers that were killed have left of these files (or folders) in a folder."""
    for name in names:
        for path in folder.glob(TEMPORARY.format(name)):
            remove(path)


@contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Only one program at a time is in such a block of a folder; another says so and waits.

    A folder that cannot be written, or a file system without locks, is used without.
    """
    lock = FileLock(folder.resolve() / LOCK, is_singleton=True)  # cache and results may be one
    with suppress(OSError):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another run is using {folder}: this one waits until that has ended")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
