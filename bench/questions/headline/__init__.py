"""What does the posterior's variance buy?"""

from __future__ import annotations

ACTIVE_VARIANCE = 0.01
"""A latent is active where the variance of its posterior mean over images is larger."""
