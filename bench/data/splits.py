"""The three splits, and how one table of images becomes three."""

from __future__ import annotations

import numpy as np

SPLITS = ("train", "valid", "test")
TEST_LABELS = "test_labels"
SPLIT_SEED = 20130612

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
