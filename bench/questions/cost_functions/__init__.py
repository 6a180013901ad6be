"""Where does the pathwise gradient lose?"""

from __future__ import annotations

COSTS = {
    "quadratic": "(x − k)²",
    "exponential": "exp(−kx²)",
    "cosine": "cos kx",
}
"""Cost functions f of Mohamed et al. 2020, section 3, as they are printed."""
CASES = (
    ("quadratic", -3.0),
    ("quadratic", 0.0),
    ("quadratic", 1.0),
    ("exponential", 10.0),
    ("cosine", 5.0),
)
"""Those of the table."""
PARAMETERS = ("location", "scale")
"""Of N(μ, σ²) at μ = σ = 1: what is differentiated by."""
