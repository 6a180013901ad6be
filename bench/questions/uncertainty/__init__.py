"""Does noise raise the encoder's uncertainty?"""

TIE = 1e-3
"""Entropies closer than this, in nats, count as equal: float32 rounds a flat one."""
