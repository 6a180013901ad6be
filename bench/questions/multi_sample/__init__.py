"""Does a tighter bound spoil the encoder's gradient?"""

from __future__ import annotations

STAGES = ("initialisation", "best")
"""Of training, at which it is measured: theory's K → ∞ is near where weights are even."""
THEORY = {"iwae": -0.5, "dreg": 0.5}
"""Exponent of K of the signal-to-noise ratio for K → ∞: Rainforth et al. 2018, theorem 1; Tucker
et al. 2018, section 4."""
REFERENCE = "iwae"
"""The estimator that others are compared with."""
UNBIASED = "dreg"
"""The unbiased estimator whose mean stands for that of all: the least noisy for K → ∞."""
