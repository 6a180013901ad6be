"""After the table of times, the figure they are about: noise samples a second, trick over brute."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config) -> None:
    session = getattr(config, "_benchmarksession", None)
    each = {
        case.name: case.stats.median / case.extra_info["noise_samples"]
        for case in (session.benchmarks if session else [])
        if "noise_samples" in case.extra_info and case.stats.data
    }
    if {"test_brute_force", "test_trace_trick"} <= each.keys():
        ratio = each["test_brute_force"] / each["test_trace_trick"]
        terminalreporter.write_line(
            f"tr(C G) draws {ratio:.0f} x the noise samples a second of brute-force "
            f"backpropagation ({1e6 * each['test_brute_force']:.0f} us and "
            f"{1e6 * each['test_trace_trick']:.1f} us a sample)"
        )
