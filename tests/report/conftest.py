"""Shared by the tests of reports."""

from __future__ import annotations

import pytest

from bench.report import page


@pytest.fixture
def in_process(monkeypatch, inline) -> None:
    """Draw in this process: the JavaScript engine starts once for all tests."""
    monkeypatch.setattr(page.workers, "context", lambda: None)
    monkeypatch.setattr(page, "ProcessPoolExecutor", lambda *_, **__: inline)
