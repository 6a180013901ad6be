"""Values of make's variables reach the program as one argument each, and are never run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
RECORDER = '#!/bin/sh\nfor word in "$@"; do printf \'%s\\0\' "$word"; done >> "$RECORD"\n'
HOSTILE = [
    "x; touch touched",
    "$(touch touched)",
    "$(shell touch touched)",
    "${shell touch touched}",
    "$$(touch touched)",
    "`touch touched`",
    '"; touch touched; "',
    "'; touch touched; '",
    '\' "$(touch touched)" `touch touched`',
    "x && touch touched || touch touched",
    "x | touch touched > touched &",
    "two words",
    "new\nline; touch touched",
    "*",
    "#",
    "\\",
    "%s ~ ! ${HOME} $HOME",
    "--help",
    "-é−±",
]
TARGETS = {
    "DATASET": "bench quick tune throughput report gpu-check",
    "VARIANTS": "bench quick tune throughput",
    "QUESTIONS": "bench quick tune",
    "SEEDS": "bench quick tune",
    "DEVICE": "bench quick tune validate throughput gpu-check",
    "JOBS": "bench quick tune validate check-results",
    "ENGINE": "bench quick tune",
    "SCHEDULER": "bench quick tune",
    "PRESET": "bench tune validate",
    "PRECISION": "bench quick",
    "RESULTS": "bench quick tune validate throughput report",
    "BASE": "throughput-compare",
    "ROWS": "validate",
    "NAME": "variant check",
    "PEERS": "throughput",
}
OVERRIDDEN = {("DATASET", "quick"), ("PRESET", "quick")}
CASES = [(name, target) for name, targets in TARGETS.items() for target in targets.split()]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The Makefile beside an environment whose Python notes what it is called with."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER)
    python.chmod(0o755)
    for name in ("requirements.lock", "requirements-peers.lock"):
        (tmp_path / name).touch()
    for name in (".ready", ".peers"):
        (tmp_path / ".venv" / name).touch()
    return tmp_path


def called(folder: Path, *words: str, **environment: str) -> list[str]:
    """The words that Python was called with."""
    record = folder / "record"
    record.unlink(missing_ok=True)
    environment = {**os.environ, "RECORD": str(record), **environment}
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    done = subprocess.run(
        ["make", *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return record.read_text(encoding="utf-8").split("\0")[:-1]


@pytest.mark.parametrize("way", ["command line", "environment"])
@pytest.mark.parametrize(("name", "target"), CASES)
def test_a_value_is_one_argument_and_is_not_run(checkout, counted, name, target, way):
    for value in HOSTILE:
        counted()
        named = (f"{name}={value}",) if way == "command line" else ()
        found = called(checkout, target, *named, **({} if named else {name: value}))
        assert not (checkout / "touched").exists(), value
        if name != "PEERS" and (name, target) not in OVERRIDDEN:
            assert value in found, (value, found)


def test_every_variable_is_tried():
    """All that the Makefile has a default for, but the program's own places."""
    own = {line.split()[0] for line in MAKEFILE.splitlines() if " ?=" in line} - {"PYTHON"}
    lines = MAKEFILE.replace("\\\n", "").splitlines()
    (exported,) = (line for line in lines if line.startswith("VARIABLES :="))
    assert own | set(exported.split()[2:]) == TARGETS.keys()
