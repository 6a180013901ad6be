"""CONTRIBUTING.md is true: its variant, its estimator and its question work as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from subjects import subject

from bench.commands import configuration
from bench.inference import gradients
from bench.inference.elbo import elbo_terms
from bench.inference.reparameterize import standard_normal
from bench.questions.published import published
from bench.report import rows
from bench.report.results import Results

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, re.S))


def module(path: str, **names: object) -> SimpleNamespace:
    """What the block of that path defines."""
    names["__name__"] = path
    exec(compile(BLOCKS[path], path, "exec"), names)
    return SimpleNamespace(**names)


def test_the_variant():
    model = module("vaes/bounded_scale.py").BoundedScale(6, 2, 4, floor=0.1)
    assert (model.posterior(torch.ones(3, 6)).stddev > 0.1).all()
    noise = standard_normal(3, 2, torch.Generator())
    distortion, rate = elbo_terms(model, torch.ones(3, 6), noise, 5)
    assert (distortion + rate).isfinite().all()


def test_the_published_number(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    (tmp_path / "my_row.toml").write_text(text, encoding="utf-8")
    row = published.read(tmp_path / "my_row.toml")
    configuration.check(configuration.config_of(row.options))
    assert row.numbers[0].value == -235.0


def test_the_estimator(monkeypatch):
    monkeypatch.setattr(gradients, "ESTIMATORS", dict(gradients.ESTIMATORS))
    function = module("bench/inference/gradients.py", **vars(gradients)).half_landing
    assert gradients.ESTIMATORS["half_landing"].function is function
    model = subject("input_dependent").model()
    posterior = model.posterior(torch.ones(1, model.data_dim))
    passes = gradients.admit("half_landing", posterior, model.prior, 3)
    assert passes.total == 6


@pytest.mark.parametrize("variants", [(), ("flow",), ("autoencoder", "input_dependent")])
def test_the_question(variants):
    measure = module("bench/questions/code_length/measure.py").measure
    lines = [
        {
            "dataset": "small",
            "device": "cpu",
            "variant": variant,
            "seed": 0,
            "question": "code_length",
            **{name: getattr(row, name) for name in ("metric", *rows.MEASURED)},
            **row.settings,
        }
        for variant in variants
        for row in measure(subject(variant)).rows
    ]
    results = Results(Path("results/small/cpu"), rows.frame(lines))
    sections = module("bench/questions/code_length/report.py").sections(results)
    assert len(sections) == bool(variants)
    assert [len(section.tables[0].lines) for section in sections] == [len(variants)] * len(sections)


def test_what_it_names_exists():
    for path in re.findall(r"`((?:bench|vaes|tests)/[\w/.]+)`", TEXT):
        invented = "code_length" in path
        assert invented or (ROOT / path).exists(), path
