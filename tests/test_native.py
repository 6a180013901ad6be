"""Importance weights as native code against the function they are traced from, and the fallback."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Laplace

from bench import bounds, native
from bench.bounds import CompiledLogWeight, log_weight, log_weights, standard_normal
from bench.config import PRESETS, generator
from bench.data import as_float, load
from bench.measure import elbo
from bench.runner import execute
from bench.tasks import Grid
from tests.subjects import subject
from vaes import VAE, discover

VARIANTS = [name for name, kind in discover().variants.items() if issubclass(kind, VAE)]
S, B, L = 4, 5, 3

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")


def shaken(model) -> None:
    """Weights that start at zero would hide what they multiply."""
    noise = generator("cpu", "weights")
    for weight in model.parameters():
        weight += 0.2 * torch.randn(weight.shape, generator=noise)


def noise_of(batch: int):
    return standard_normal(batch, L, generator("cpu", "noise"))


@pytest.fixture
def uncompiled(monkeypatch):
    """What is compiled, run operation by operation; the compiler itself is slow and not ours."""
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graph)


@pytest.fixture
def worthwhile(monkeypatch):
    """Small test sets count as large ones."""
    monkeypatch.setattr(bounds, "WORTHWHILE", 1)


@needs_compiler
@pytest.mark.parametrize("variant", VARIANTS)
def test_traced_weights_are_those_of_any_model_and_images(variant, uncompiled):
    """Traced for one model and its images, called with others: nothing of the first remains."""
    traced, other = subject(variant), subject(variant, shaken)
    images = as_float(other.data.test)
    compiled = CompiledLogWeight(traced.model(), images[:B], S)
    for x, samples in ((images[B : 2 * B], 3 * S), (images[:B], S + 1), (images[: B + 1], S)):
        found, wanted = (
            log_weights(other.model(), x, noise_of(len(x)), samples, S, weigh)
            for weigh in (compiled, log_weight)
        )
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@needs_compiler
def test_a_compiled_measurement_agrees_with_the_eager_one(monkeypatch):
    one = subject("input_dependent", shaken)
    eager = elbo.measure(one, samples=2, importance_samples=(1, 10))
    monkeypatch.setattr(bounds, "WORTHWHILE", 1)
    compiled = elbo.measure(one, samples=2, importance_samples=(1, 10))
    assert compiled.notice == ""
    for ours, theirs in zip(compiled.rows, eager.rows, strict=True):
        assert ours.value == pytest.approx(theirs.value, rel=1e-5), ours.metric


def test_small_evaluations_are_not_compiled(monkeypatch):
    monkeypatch.setattr(bounds, "CompiledLogWeight", None)  # would raise
    assert elbo.measure(subject("input_dependent"), 1, (1, 10)).notice == ""


def test_without_a_compiler_the_function_itself_is_taken_and_said_once(
    tiny, tmp_path, inline, worthwhile, monkeypatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    overrides = (("latent_dim", 2), ("hidden_dim", 8))
    grid = Grid(str(tiny), ("input_dependent",), 2, PRESETS["quick"], "cpu", overrides,
                cache=tmp_path / "cache", measurements=("elbo",))  # fmt: skip
    said = []
    outcome = execute(grid, load(grid.dataset), inline,
                      lambda event, task, value: said.append((event, value)))  # fmt: skip
    assert not outcome.failures
    (notice,) = [value for event, value in said if event == "notice"]
    assert "the IW bound was not compiled: no C++ compiler" in notice


def test_without_pythons_headers_there_is_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(native.sysconfig, "get_path", lambda name: str(tmp_path))
    assert native.compiler() is None


def test_a_posterior_that_samples_by_itself_is_not_compiled(worthwhile):
    class Laplacian(discover().variants["input_dependent"]):
        def posterior(self, x):
            q = super().posterior(x)
            return Independent(Laplace(q.mean, q.stddev), 1)

    one = subject("input_dependent")
    own = elbo.measure(type(one)(one.trained, Laplacian, one.data), 1, (1, 10))
    assert own.notice == "the IW bound was not compiled: the posterior is no map of noise"
