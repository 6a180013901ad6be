"""Does theory hold where log p(x) is known?"""

from __future__ import annotations

TOLERANCE = 0.05
"""Nats within which theory is said to hold, and posteriors to be equal."""
