"""The stored timings as a table of cases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.errors import BenchError, one_line
from bench.questions.throughput.files import stored
from bench.report.style import in_order

LABELS = [
    *("kind", "variant", "estimator", "axis", "importance_bytes", "rounds_by_tasks"),
    *("network", "missing", "versions", "action", "parts"),
]
NUMBERS = [
    *("samples", "passes", "batch", "K", "value", "items", "seconds", "peak_bytes"),
    *("bound_ratio", "roofline_ratio", "ordinary_ratio", "lean_ratio", "float32_ratio"),
    *("jax_ratio", "torch_compile_ratio", "pythae_ratio"),
    *("base_bytes", "grown_bytes", "rows"),
    *("alone_seconds", "parent_seconds", "cached_seconds", "report_seconds"),
]


@dataclass(frozen=True)
class Timings:
    """The stored cases.

    Attributes:
        cases: one line a case: its labels and `seconds` a call with `items` done in it; ratios
            are a companion's time over the case's own (`bound_ratio` 0.8: 80 % of the bound).
        machine: processor, cores, GPU, torch and the load when the timing began.
    """

    cases: pd.DataFrame
    machine: Mapping[str, object]

    @property
    def where(self) -> str:
        """The GPU, or that it was one core of which processor."""
        return str(self.machine.get("gpu") or f"one core of {self.machine.get('cpu')}")

    def of(self, kind: str) -> pd.DataFrame:
        """The cases of a kind, with the items done in a second and the peak memory in MiB."""
        cases = self.cases[self.cases.kind == kind]
        rate, memory = cases["items"] / cases.seconds, cases.peak_bytes / 2**20
        return cases.assign(rate=rate, memory=memory)


def read(path: Path) -> Timings:
    """The timings in a file, variants from simple to flexible.

    Raises BenchError where it is missing, damaged or another program's.
    """
    found = stored(path)
    try:
        cases = pd.DataFrame([case["extra_info"] for case in found["benchmarks"]])
        cases = cases.reindex(columns=[*LABELS, *NUMBERS])
        cases[NUMBERS] = cases[NUMBERS].apply(pd.to_numeric)
        return Timings(in_order(cases, "variant", "batch"), dict(found["machine_info"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BenchError(
            f"{path} is damaged ({one_line(error)}): make it again with 'make throughput'"
        ) from None


def significant(value: float) -> float:
    """The value to three significant digits, as many as timings have."""
    return float(f"{value:.3g}")


def rounded(value: float) -> str:
    """Three significant digits, thousands separated; a dash for none."""
    if not math.isfinite(value):
        return "–"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{significant(value):,.{digits}f}"


def span(values: pd.Series) -> str:
    """`0.36–0.54`: from the least to the greatest, with two decimals."""
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low}–{high}"
