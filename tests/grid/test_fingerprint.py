"""Keys follow what a result depends on, and nothing else."""

from __future__ import annotations

import pytest

from bench.config import PRESETS, Run
from bench.grid import fingerprint
from bench.grid.tasks import Task, key_of
from bench.questions import named
from bench.training.loop import train
from vaes import discover

VARIANTS = discover().variants


@pytest.fixture
def edited(monkeypatch):
    """Pretend a module's source were edited."""

    def edit(module: str, old: str, new: str) -> None:
        original = fingerprint.inspect.getsource

        def source(of):
            text = original(of)
            if of.__name__ == module:
                assert old in text
                text = text.replace(old, new)
            return text

        monkeypatch.setattr(fingerprint.inspect, "getsource", source)
        fingerprint._module.cache_clear()
        fingerprint._definition.cache_clear()
        fingerprint._reached.cache_clear()

    yield edit
    fingerprint._module.cache_clear()
    fingerprint._definition.cache_clear()
    fingerprint._reached.cache_clear()


def fingerprints() -> dict[str, str]:
    return {name: fingerprint.source_fingerprint(v, train) for name, v in VARIANTS.items()}


def test_editing_one_variant_changes_that_variant_alone(edited):
    before = fingerprints()
    edited("vaes.learned_diagonal", "torch.full(", "torch.full_like(")
    after = fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"learned_diagonal"}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("vaes.base", " = Tanh\n", " = nn.ReLU\n"),
        ("bench.training.optimizers", "fused=True", "fused=False"),
        (
            "bench.inference.reparameterize",
            "posterior.loc + posterior.scale * noise",
            "posterior.loc",
        ),
        ("bench.data.binarization", "/ 255", "/ 256"),
        ("bench.randomness", "digest[:8]", "digest[:7]"),
    ],
)
def test_editing_shared_code_changes_every_variant(edited, module, old, new):
    before = fingerprints()
    edited(module, old, new)
    after = fingerprints()
    assert all(before[name] != after[name] for name in before)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("vaes.base", "shared", "Other words"),
        ("bench.training.schedules", "def learning_rate(run: Run,", "def learning_rate(run,"),
        ("bench.inference.gradients", "def sticking_the_landing", "def sticking_the_ladning"),
        ("bench.inference.gradients", 'label="pathwise"', 'label="path by path"'),
        ("bench.config", "variance_images: int = 32", "variance_images: int = 33"),
    ],
)
def test_what_no_result_depends_on_does_not_count(edited, module, old, new):
    before = fingerprints()
    edited(module, old, new)
    assert fingerprints() == before


def test_a_question_that_loops_over_estimators_depends_on_each(edited):
    """Though no name leads from a registry to its functions."""
    task = Task(Run("input_dependent", "digits", 0, 1), *asked("gradient_noise"))
    before = key_of(task, VARIANTS["input_dependent"], "data")
    edited("bench.inference.gradients", "torch.cat([half, -half])", "torch.cat([half, half])")
    assert key_of(task, VARIANTS["input_dependent"], "data") != before


def asked(name: str) -> tuple:
    (question,) = named([name])
    run = Run("input_dependent", "digits", 0, 1)
    (request,) = question.requests(run, PRESETS["quick"])
    return question, request.settings
