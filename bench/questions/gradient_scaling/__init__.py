"""How does the gradient's noise grow with the number of latents?"""

from __future__ import annotations

LATENT_DIMS = (2, 5, 10, 20, 50)
STAGES = {"initialisation": "initialisation", "end": "trained"}
"""Stage of the short training → the stage its rows state."""
