"""A first, working file of a new variant: `python -m bench new-variant NAME`."""

from __future__ import annotations

from pathlib import Path

import vaes
from bench.errors import BenchError

FOLDER = Path(vaes.__file__).parent
TEMPLATE = FOLDER / "_template.py"


def new_variant(name: str, folder: Path = FOLDER) -> Path:
    """Write `folder/name.py` from the template; raises BenchError where that cannot be."""
    path = folder / f"{name}.py"
    known = vaes.is_name(name) and name.islower() and len(name) < 100
    if not known or name.startswith("_"):
        raise BenchError(
            f"'{name}' is no name of a variant: use small letters, digits and underscores, "
            "a letter first, e.g. low_rank"
        )
    if path.exists() or path.is_symlink():
        raise BenchError(f"{path} exists already: choose another name")
    class_name = "".join(word.capitalize() for word in name.split("_"))
    text = TEMPLATE.read_text(encoding="utf-8").replace("class Template", f"class {class_name}")
    path.write_text(text, encoding="utf-8")
    return path
