"""What is noted of where numbers were made."""

from __future__ import annotations

import subprocess

from bench.grid import environment


def test_a_checkout_is_dirty_by_edits_of_the_code_alone(tmp_path, monkeypatch):
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    code, result = tmp_path / "bench" / "grid" / "environment.py", tmp_path / "results" / "rows"
    for path in (code, result):
        path.parent.mkdir(parents=True)
        path.write_text("first")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.commit() is None
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    first = environment.commit()
    result.write_text("second")
    assert environment.commit() == first
    added = tmp_path / "vaes" / "low_rank.py"
    added.parent.mkdir()
    added.write_text("new")
    assert environment.commit() == f"{first}-dirty"
    added.unlink()
    code.write_text("second")
    assert environment.commit() == f"{first}-dirty"
