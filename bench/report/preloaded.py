"""What a process that answers folders needs; such processes start with it imported."""

from __future__ import annotations

import gc
import importlib
from contextlib import suppress
from pathlib import Path

gc.disable()  # such a process ends with the page; looking for garbage takes a tenth of its time

from altair.utils import schemapi  # noqa: E402

REPORTS = sorted(Path(__file__).parents[1].glob("questions/*/report.py"))

importlib.import_module("bench.report.page_cache")
for path in REPORTS:
    with suppress(Exception):  # the question's own page will tell of it
        importlib.import_module(f"bench.questions.{path.parent.name}.report")
schemapi.disable_debug_mode()  # the tests check every chart; here it takes a tenth of the time
