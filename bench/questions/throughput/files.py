"""The file of timings: pytest-benchmark's statistics, without the seconds of every round."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bench.errors import BenchError, one_line

FILE = "throughput.json"
"""Its name in a folder of results."""
STATISTICS = (
    "min",
    "max",
    "mean",
    "stddev",
    "median",
    "iqr",
    "outliers",
    "ops",
    "rounds",
    "iterations",
)
"""Of a case's rounds: what `pytest-benchmark compare` shows."""

TIMES = ("min", "median", "rounds")
"""Of these, what is compared."""


def stored(path: Path) -> dict:
    """pytest-benchmark's JSON; raises BenchError where it is missing, damaged or foreign."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BenchError(f"{path} does not exist: make it with 'make throughput'") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(
            f"{path} cannot be read ({one_line(error)}): make it again with 'make throughput'"
        ) from None
    known = isinstance(found, dict) and isinstance(found.get("machine_info"), dict)
    cases = found.get("benchmarks") if known else None
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise BenchError(f"{path} is another program's: make it again with 'make throughput'")
    return found


def check_comparable(path: Path) -> None:
    """Raises BenchError where a file lacks what `pytest-benchmark compare` needs of it."""
    cases = stored(path)["benchmarks"]
    if not cases or not all(map(_has_times, cases)):
        raise BenchError(f"{path} has no timings to compare: make it again with 'make throughput'")


def _has_times(case: dict) -> bool:
    return (
        {"name", "fullname", "group", "params"} <= case.keys()
        and isinstance(case["name"], str)
        and isinstance(case.get("stats"), dict)
        and all(isinstance(case["stats"].get(name), float | int) for name in TIMES)
    )


def joined(old: Mapping, new: Mapping) -> dict:
    """The new timings, and the old cases of the same code and machine that they do not repeat."""

    def made_by(found: Mapping) -> list:
        machine = [found["machine_info"].get(name) for name in ("cpu", "gpu", "torch")]
        return [found.get(name) for name in ("code", "dataset", "device")] + machine

    names = {case["name"] for case in new["benchmarks"]}
    kept = [case for case in old["benchmarks"] if case["name"] not in names]
    same = made_by(old) == made_by(new)
    return {**new, "benchmarks": [*(kept if same else []), *new["benchmarks"]]}


def without_rounds(found: Mapping) -> dict:
    """pytest-benchmark's JSON without the options and the single rounds of its cases.

    Statistics are kept to six digits.
    """

    def rounded(value: object) -> object:
        return float(f"{value:.6g}") if isinstance(value, float) else value

    cases = []
    for case in found["benchmarks"]:
        statistics = {name: rounded(case["stats"][name]) for name in STATISTICS}
        rest = {name: value for name, value in case.items() if name not in ("options", "stats")}
        cases.append(rest | {"stats": statistics})
    return {**found, "benchmarks": cases}
