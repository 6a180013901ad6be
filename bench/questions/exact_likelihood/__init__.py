"""Does theory hold where log p(x) is known?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.config import OPTIONS

if TYPE_CHECKING:
    from bench.report.results import Results

TOLERANCE = 0.05
"""Nats within which theory is said to hold, and posteriors to be equal."""


def tolerance_of(results: Results) -> float:
    """Nats within which ELBOs count as equal: those that theory is held to, where log p(x) is known
    since the decoder is linear and the likelihood Gaussian; 0 elsewhere."""
    config = results.environment.get("config", {})
    model = OPTIONS.get(config.get("dataset"), {}) | config
    known = (model.get("decoder"), model.get("likelihood")) == ("linear", "gaussian")
    return TOLERANCE if known else 0
