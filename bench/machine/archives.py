"""Compressed files unpacked within bounds, so that a small one cannot fill the memory."""

from __future__ import annotations

import gzip
import io

LARGEST = 2**30
"""Bytes that a file of results, or a published one, may have once unpacked: ten times the largest
there is."""


def check_unpacked(size: int) -> None:
    """Raises ValueError where so many bytes are too many."""
    if size > LARGEST:
        raise ValueError(f"it holds more than {LARGEST / 2**30:g} GiB once unpacked")


def gunzip(content: bytes) -> bytes:
    """`gzip.decompress`, read no further than is allowed; ValueError beyond."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(LARGEST + 1)
    check_unpacked(len(unpacked))
    return unpacked
