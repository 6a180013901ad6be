"""Does the autoencoder overfit, and does the prior help?"""

from __future__ import annotations

RELATIVE = 0.5
"""The noise, in standard deviations of the codes, at which variants are compared."""
DRAWN_SCALES = (0.0, 0.2, 0.5, 1.0)
"""The noise scales, in standard deviations of the codes, of the decoded images that are drawn."""
