"""What numbers of the command line may be: beyond, a run would never end, or never begin."""

from __future__ import annotations

from bench.errors import BenchError

LIMITS: dict[str, tuple[float, float]] = {
    "seeds": (1, 10_000),
    "seed": (0, 9_999),
    "epochs": (1, 1_000_000),
    "samples": (1, 100_000),
    "latent": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "train_size": (0, 1_000_000_000),
    "beta": (0, 1_000_000),
    "free_bits": (0, 1_000_000),
    "kl_warmup_epochs": (0, 1_000_000),
    "early_stopping": (0, 1_000_000),
    "jobs": (0, 1_024),
    "count": (1, 10_000_000),
    "noise_seed": (0, 2**63 - 1),
    "seconds": (0.001, 3600),
    "minutes": (0.01, 1440),
}
"""By option: the lowest and the highest value."""
MOST_UNITS = 1_000_000
"""Of a hidden layer."""
MOST_IMPORTANCE_SAMPLES = 10_000_000


def check(name: str, value: float | None) -> None:
    """Refuse a value of an option that is beyond its limits, NaN among them."""
    lowest, highest = LIMITS[name]
    if value is None or lowest <= value <= highest:
        return
    shown = f"{value:.3e}" if abs(value) >= 1e12 else value
    bound = f"at most {highest:,}" if value > highest else f"at least {lowest:,}"
    raise BenchError(f"--{name.replace('_', '-')} must be {bound}, not {shown}")


def counts(text: str, highest: int) -> tuple[int, ...] | None:
    """Whole numbers from 1 to `highest`, separated by commas; None where one is none."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        return None
    return found if all(1 <= value <= highest for value in found) else None
