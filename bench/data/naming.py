"""What the arrays of a user's file are, by the names that are customary for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.data.splits import SPLITS
from bench.errors import BenchError

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}
IMAGE_WORDS = {"x", "image", "images", "img", "imgs", "data"}
LABEL_WORDS = {"y", "label", "labels", "target", "targets"}
OF_FILES = {"", "idx", "idx1", "idx2", "idx3", "idx4", "ubyte", "npy", "gz"}
"""Parts of a file's name that say how it is stored."""


def split_of(name: str) -> str | None:
    """The split that a single word stands for, or None."""
    return SPLIT_WORDS.get(name.lower())


def role_of(name: str) -> str | None:
    """`train`, `valid` or `test`, or one of these with `_labels`; None for a name of neither.

    Images and labels of no split are those of `train`.

    >>> [role_of(name) for name in ("X_train", "val", "y_test", "labels", "arr_0")]
    ['train', 'valid', 'test_labels', 'train_labels', None]
    """
    words = set(re.split(r"[^a-z0-9]+", name.lower())) - OF_FILES
    splits = {SPLIT_WORDS[word] for word in words & SPLIT_WORDS.keys()}
    if not words or len(splits) > 1 or words - SPLIT_WORDS.keys() - IMAGE_WORDS - LABEL_WORDS:
        return None
    split = splits.pop() if splits else "train"
    return f"{split}_labels" if words & LABEL_WORDS else split


def roles(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Role → name of the arrays that `path` holds; a single one is `train` whatever its name.

    Raises BenchError where none is for training, or two have the same role.
    """
    found: dict[str, str] = {}
    for name in names:
        role = role_of(name)
        if role in found:
            raise BenchError(
                f"{path} has two arrays for '{role}', '{found[role]}' and '{name}': keep one"
            )
        if role:
            found[role] = name
    others = [name for name in names if role_of(name) is None]
    if not found.keys() & set(SPLITS) and len(others) == 1:
        found["train"] = others[0]
    if "train" not in found:
        held = ", ".join(f"'{name}'" for name in names[:10]) or "none"
        raise BenchError(
            f"{path} lacks the array 'train' (it holds {held}): save it with "
            "np.savez(path, train=..., valid=..., test=...)"
        )
    return found
