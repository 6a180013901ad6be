"""Stand-ins for the files that data sets are published as."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from bench.data import files as download


def idx(array: np.ndarray) -> bytes:
    return np.array([2048 + array.ndim, *array.shape], dtype=">u4").tobytes() + array.tobytes()


def amat(images: np.ndarray) -> bytes:
    return "".join(" ".join(map(str, row)) + "\n" for row in images).encode()


def published_file(dataset: str, content: str) -> download.PublishedFile:
    """Where a split's images, or the `labels` of the test images, are published."""
    if content == "labels":
        return download.LABEL_FILES[dataset]
    return download.FILES[dataset][content]


def put(folder: Path, dataset: str, payloads: dict, compress: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for (owner, content), payload in payloads.items():
        if owner == dataset:
            plain = published_file(dataset, content).name.removesuffix(".gz")
            path = folder / (f"{plain}.gz" if compress else plain)
            path.write_bytes(gzip.compress(payload, 1) if compress else payload)
