"""Random numbers that follow from what they are for, never from global state."""

from __future__ import annotations

import hashlib

import torch


def generator(device: str | torch.device, *identity: object) -> torch.Generator:
    """A generator seeded from what the numbers are for, e.g. (dataset, seed, 'order').

    Variants share the identity, so that data order, binarization and noise are common to them
    and their differences are paired.
    """
    digest = hashlib.sha256(repr(identity).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
