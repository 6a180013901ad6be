"""How noisy is the gradient?"""

from __future__ import annotations

STAGES = ("initialisation", "epoch_1", "best")
"""Of training, at which it is measured."""
