"""Importance weights: their bound, their sample size, and their native code."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import (
    Independent,
    Laplace,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from bench.config import PRESETS
from bench.data.binarization import as_float
from bench.data.dataset import load
from bench.grid.runner import execute
from bench.grid.tasks import Grid
from bench.inference import elbo, importance, native
from bench.inference.compiled import Compiled
from bench.inference.elbo import CompiledTerms, elbo_terms, terms_for
from bench.inference.importance import (
    CompiledLogWeight,
    effective_sample_size,
    iw_bound,
    log_weight,
    log_weights,
)
from bench.inference.reparameterize import standard_normal
from bench.questions import named
from bench.questions.headline import measure as headline
from bench.randomness import generator
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
    monkeypatch.setattr(importance, "WORTHWHILE", 1.0)


def test_the_bound_is_the_log_of_the_mean_weight():
    weights = torch.rand(7, 5, generator=generator("cpu", "w"), dtype=torch.float64)
    torch.testing.assert_close(iw_bound(weights.log()), weights.mean(0).log())
    torch.testing.assert_close(iw_bound(weights[:1].log()), weights[0].log())


def test_the_effective_sample_size_runs_from_one_to_all():
    weights = torch.rand(7, 5, generator=generator("cpu", "w"), dtype=torch.float64)
    expected = weights.sum(0).square() / weights.square().sum(0)
    torch.testing.assert_close(effective_sample_size(weights.log()), expected)
    torch.testing.assert_close(
        effective_sample_size(torch.full((7,), -1e3).double()), torch.tensor(7.0).double()
    )
    one = torch.tensor([0.0, -1e4, -1e4])
    torch.testing.assert_close(effective_sample_size(one), torch.tensor(1.0))


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
@pytest.mark.parametrize("variant", discover().variants)
def test_traced_elbo_terms_are_those_of_any_model_and_images(variant, uncompiled):
    traced, other = subject(variant), subject(variant, shaken)
    images = as_float(other.data.test)
    compiled = CompiledTerms(traced.model(), images[:B], S)
    model = other.model()
    for x, samples in ((images[B : 2 * B], S), (images[:B], S + 1), (images[: B + 1], S)):
        found, wanted = (
            terms(model, x, noise_of(len(x)), samples) for terms in (compiled, elbo_terms)
        )
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4, equal_nan=True)


@needs_compiler
def test_a_compiled_function_follows_weights_that_move_and_models_that_differ(uncompiled):
    images = as_float(subject("flow").data.test)[:B]
    one, other = subject("flow").model(), subject("flow", shaken).model()
    compiled = CompiledTerms(one, images, S)
    for model in (one, other, one):
        with torch.no_grad():
            model.location.bias += 1
            model.location.weight = torch.nn.Parameter(model.location.weight + 0.1)
        found, wanted = (terms(model, images, noise_of(B), S) for terms in (compiled, elbo_terms))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_elbo_terms_are_compiled_where_they_are_evaluated_often(uncompiled, monkeypatch):
    one = subject("input_dependent")
    x = as_float(one.data.test)[:B]
    assert terms_for(one.model(), x, S, passes=10**4) == (elbo_terms, "")
    monkeypatch.setattr(elbo, "WORTHWHILE", 1.0)
    if native.compiler() is not None:
        assert isinstance(terms_for(one.model(), x, S, passes=10**4)[0], CompiledTerms)
    monkeypatch.setattr(native, "compiler", lambda: None)
    terms, notice = terms_for(one.model(), x, S, passes=10**4)
    assert terms is elbo_terms
    assert "no C++ compiler" in notice


@needs_compiler
def test_a_compiled_measurement_agrees_with_the_eager_one(monkeypatch):
    one = subject("input_dependent", shaken)
    eager = headline.measure(one, samples=2, importance_samples=(1, 10))
    monkeypatch.setattr(importance, "WORTHWHILE", 1.0)
    compiled = headline.measure(one, samples=2, importance_samples=(1, 10))
    assert compiled.notice == ""
    for ours, theirs in zip(compiled.rows, eager.rows, strict=True):
        assert ours.value == pytest.approx(theirs.value, rel=1e-5), ours.metric


def test_small_evaluations_are_not_compiled(monkeypatch):
    monkeypatch.setattr(CompiledLogWeight, "__init__", None)  # would raise
    assert headline.measure(subject("input_dependent"), 1, (1, 10)).notice == ""


def test_without_a_compiler_the_function_itself_is_taken_and_said_once(
    tiny, tmp_path, inline, worthwhile, monkeypatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    overrides = (("latent_dim", 2), ("hidden_dim", 8))
    grid = Grid(
        str(tiny),
        ("input_dependent",),
        2,
        PRESETS["quick"],
        "cpu",
        overrides,
        cache=tmp_path / "cache",
        questions=named(["headline"]),
    )
    said = []
    outcome = execute(
        grid, load(grid.dataset), inline, lambda event, task, value: said.append((event, value))
    )
    assert not outcome.failures
    (notice,) = [value for event, value in said if event == "notice"]
    assert "the IW bound was not compiled: no C++ compiler" in notice


def test_a_posterior_that_samples_by_itself_is_not_compiled(worthwhile):
    class Laplacian(discover().variants["input_dependent"]):
        def posterior(self, x):
            q = super().posterior(x)
            return Independent(Laplace(q.mean, q.stddev), 1)

    one = subject("input_dependent")
    own = headline.measure(type(one)(one.trained, Laplacian, one.data), 1, (1, 10))
    assert own.notice == "the IW bound was not compiled: the posterior is no map of noise"


class Cached(VAE):
    """A posterior whose transform keeps what last passed through it, as torch's own may."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.log_scale = torch.nn.Linear(self.hidden_dim, self.latent_dim)

    def posterior(self, x):
        base = Normal(self.encode(x), self.log_scale(self.encoder(x)).exp(), validate_args=False)
        squashed = [TanhTransform(cache_size=1)]
        return TransformedDistribution(Independent(base, 1), squashed, validate_args=False)


@needs_compiler
def test_a_posterior_that_keeps_tensors_is_compiled_without_them(uncompiled):
    model, x = Cached(12, L, 6), torch.ones(B, 12)
    compiled = CompiledLogWeight(model, x, S)
    found, wanted = (
        log_weights(model, x, noise_of(B), S, S, weigh) for weigh in (compiled, log_weight)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@needs_compiler
def test_a_compiled_function_refuses_tensors_of_other_shapes(uncompiled):
    model = subject("flow").model()
    compiled = Compiled(
        lambda model, x: [model.encode(x)], (model, as_float(subject("flow").data.test)[:B])
    )
    with pytest.raises(ValueError, match="other shapes"):
        compiled(model, as_float(subject("flow").data.test)[: B + 1])
