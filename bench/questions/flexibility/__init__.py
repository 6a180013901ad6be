"""What does flexibility cost, and what does it buy?"""

from __future__ import annotations

COMPARED = ("log_likelihood", "inference_gap", "approximation_gap", "amortization_gap")
"""What of two variants is compared image by image; the gaps' parts last."""
