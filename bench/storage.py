"""Files that are whole or not there at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bench.errors import BenchError


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
