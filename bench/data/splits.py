"""The three splits, and how one table of images becomes three."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SPLITS = ("train", "valid", "test")
TEST_LABELS, TRAIN_LABELS = "test_labels", "train_labels"
SPLIT_SEED = 20130612
NAMES = {"train": "training", "valid": "validation", "test": "test"}

Arrays = dict[str, np.ndarray]
"""Images by split, `(N, H, W)` or `(N, D)`, and under `TEST_LABELS`, where known, the classes of
the test images, `(N_test,)`."""


def shuffled_splits(images: np.ndarray, labels: np.ndarray, train: int, valid: int) -> Arrays:
    """The first `train` images of a fixed permutation, the next `valid`, and the rest as test."""
    # RandomState's stream is frozen by numpy's policy; a Generator's may change with a release.
    order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
    images, labels = images[order], labels[order]
    return {
        "train": images[:train],
        "valid": images[train : train + valid],
        "test": images[train + valid :],
        TEST_LABELS: labels[train + valid :],
    }


def cut_from_training(arrays: Arrays, smallest: Mapping[str, int]) -> tuple[Arrays, list[str]]:
    """Missing validation and test images are random ones of `train`, a tenth each, and said so.

    Never less than the `smallest` number of each, and as many as leave that number to train on.
    Labels, under `TRAIN_LABELS`, go with the test images.
    """
    missing = [split for split in ("valid", "test") if split not in arrays]
    if not missing:
        return arrays, []
    train, labels = arrays["train"], arrays.get(TRAIN_LABELS)
    order = np.random.RandomState(SPLIT_SEED).permutation(len(train))
    spare = (len(train) - smallest["train"]) // len(missing)
    cut, said = {}, []
    for split in missing:
        part, order = np.split(order, [max(smallest[split], min(len(train) // 10, spare))])
        cut[split] = train[part]
        said.append(
            f"there is no {NAMES[split]} split: {len(part):,} of the {len(train):,} to train on "
            "were chosen for it, by a fixed seed"
        )
        if split == "test" and labels is not None:
            cut[TEST_LABELS] = labels[part]
    return arrays | cut | {"train": train[order]}, said
