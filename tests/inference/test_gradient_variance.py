"""Variance of gradient estimators, exact for any posterior.

Statistical comparisons allow 4 standard errors: a correct program fails one with probability
under 1e-4. Seeds are fixed.
"""

from __future__ import annotations

import math

import pytest
import torch

from bench.errors import BenchError
from bench.inference import decoded, gradient_variance, gram_matrix, native
from bench.inference.gradient_variance import PosteriorGradient, total_variance
from bench.inference.gradients import ESTIMATORS, of_bound
from bench.inference.tensors import tensors
from tests.posteriors import (
    Correlated,
    Mixture,
    ModuleFlow,
    OneScale,
    Reused,
    perturbed,
)
from vaes import discover

LATENTS = 3
ERRORS = 4

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=3, data_dim=12, dtype=torch.float64):
    return torch.bernoulli(torch.full((count, data_dim), 0.4, dtype=dtype), generator=seeded(1))


@pytest.mark.parametrize("variant", [Correlated, ModuleFlow, Reused, OneScale, Mixture])
def test_the_quadratic_form_is_exact_for_any_posterior(variant):
    """gᵀ G g is the squared norm of the whole backward, whatever the posterior is made of."""
    model, x = perturbed(variant).double(), images()
    gradient = PosteriorGradient.from_model(model, x)
    parameters = list(model.parameters())
    for image in range(len(x)):
        held = tensors(model.posterior(x[image : image + 1]))
        direction = {
            p: torch.randn(held[p].shape, generator=seeded(2)).double() for p in gradient.parameters
        }
        along = sum((held[path] * direction[path]).sum() for path in gradient.parameters)
        found = torch.autograd.grad(along, parameters, allow_unused=True)
        expected = sum(g.square().sum() for g in found if g is not None)
        flat = {p: v.reshape(1, 1, -1).expand(1, len(x), -1) for p, v in direction.items()}
        norms = gradient.squared_norms(flat)[0, 0]
        torch.testing.assert_close(norms[image], expected, rtol=1e-9, atol=0)


def test_a_flow_s_own_weights_take_no_part_in_the_gram_matrix():
    gradient = PosteriorGradient.from_model(perturbed(ModuleFlow).double(), images())
    assert {path.rpartition(".")[2] for path in gradient.weights} == {"weight", "bias"}
    assert gradient.gram.shape == (3, LATENTS, LATENTS)


@pytest.mark.parametrize(
    ("variant", "family", "fewest"),
    [
        (Correlated, "elbo", 3),
        (ModuleFlow, "elbo", 3),
        (Mixture, "elbo", 3),
        (Correlated, "iw_bound", 2),
        (ModuleFlow, "iw_bound", 2),
    ],
)
def test_estimators_agree_on_the_mean_gradient(variant, family, fewest):
    """All unbiased ones that the posterior admits have one mean in encoder space, seen through J:
    G g and own."""
    model, x = perturbed(variant).double(), images(2)
    gradient = PosteriorGradient.from_model(model, x)
    bound = [path for path in gradient.parameters if path not in gradient.weights]
    means, errors = [], []
    for name in (n for n in of_bound(family) if not ESTIMATORS[n].biased):
        try:
            gradient.passes(name, 2)
        except BenchError:
            continue
        g = gradient.gradients(ESTIMATORS[name], 2, 4000, seeded(5))
        seen = torch.einsum(
            "bpq,rbq->rbp", gradient.gram, torch.cat([g[path] for path in bound], -1)
        )
        flat = torch.cat(
            [seen, *(g[path] for path in gradient.parameters if path in gradient.weights)], -1
        )
        means.append(flat.mean(0))
        errors.append(flat.std(0) / math.sqrt(len(flat)))
    assert len(means) >= fewest
    for mean, error in zip(means[1:], errors[1:]):
        assert ((mean - means[0]).abs() <= ERRORS * torch.hypot(error, errors[0]) + 1e-9).all()


def test_the_same_generator_gives_the_same_numbers():
    for variant in (Correlated, Mixture):
        gradient = PosteriorGradient.from_model(perturbed(variant).double(), images())
        first, second = (
            total_variance(gradient, "score_function", 2, seeded(3), 0.2, 500) for _ in range(2)
        )
        assert torch.equal(first.value, second.value)


def test_the_cap_is_flagged_and_more_passes_narrow_the_error():
    gradient = PosteriorGradient.from_model(
        perturbed(discover().variants["input_dependent"]), images(dtype=torch.float32)
    )
    short = total_variance(gradient, "score_function", 1, seeded(), 1e-9, 3000)
    long = total_variance(gradient, "score_function", 1, seeded(), 1e-9, 30_000)
    assert short.capped
    assert long.capped
    assert long.replicates > 5 * short.replicates
    assert long.standard_error[0] < short.standard_error[0]
    loose = total_variance(gradient, "score_function", 1, seeded(), 0.5, 30_000)
    assert not loose.capped
    assert loose.standard_error[0] <= 0.5 * loose.value[0]


def test_the_standard_error_is_that_of_repetition():
    """Over 60 repetitions the spread of the estimate is the standard error it states, ± 40 %.

    The spread itself has a relative error of 9 %, so this fails by chance under 1e-4.
    """
    gradient = PosteriorGradient.from_model(
        perturbed(discover().variants["learned_diagonal"]), images(dtype=torch.float32)
    )
    found = [total_variance(gradient, "pathwise", 1, seeded(s), 1e-9, 500) for s in range(60)]
    values = torch.stack([v.value[0] for v in found])
    stated = torch.stack([v.standard_error[0] for v in found]).square().mean().sqrt()
    assert 0.6 < values.std() / stated < 1.4


@pytest.mark.parametrize("name", ESTIMATORS)
def test_many_samples_and_images_are_decoded_in_parts_with_the_same_result(name, monkeypatch):
    """Each part's own images and samples: 3 images, S = 4, in parts of at most 5 passes."""
    passes: list[int] = []
    whole = OneScale.log_likelihood

    def log_likelihood(model, x, z):
        passes.append(z.shape[:-1].numel())
        return whole(model, x, z)

    monkeypatch.setattr(OneScale, "log_likelihood", log_likelihood)
    gradient = PosteriorGradient.from_model(perturbed(OneScale).double(), images())
    expected = gradient.gradients(ESTIMATORS[name], 4, 1, seeded())
    monkeypatch.setattr(gradient_variance, "MOST_AT_ONCE", 5)
    passes.clear()
    found = gradient.gradients(ESTIMATORS[name], 4, 1, seeded())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert max(passes) <= 5
    assert len(passes) > 2


def test_the_jacobians_of_many_images_are_taken_a_few_at_once(monkeypatch):
    model, x = perturbed(Correlated).double(), images(7)
    expected = PosteriorGradient.from_model(model, x).gram
    monkeypatch.setattr(gram_matrix, "IMAGES_AT_ONCE", 3)
    torch.testing.assert_close(PosteriorGradient.from_model(model, x).gram, expected)


@needs_compiler
@pytest.mark.parametrize("name", ["pathwise", "sticking_the_landing", "score_function"])
def test_compiled_and_eager_decoding_give_the_same_variance(name, monkeypatch):
    """What is compiled, run operation by operation; the compiler itself is slow and not ours."""
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graph)
    monkeypatch.setattr(decoded, "WORTHWHILE", 1.0)
    monkeypatch.setattr(decoded, "AT_ONCE", 3 * 16)
    monkeypatch.setattr(gradient_variance, "PASSES_AT_ONCE", 3 * 32)
    model, calls = perturbed(discover().variants["input_dependent"]), []
    derivative = decoded._with_derivative
    monkeypatch.setattr(
        decoded, "_with_derivative", lambda *given: calls.append(1) or derivative(*given)
    )
    eager, compiled = (
        PosteriorGradient.from_model(model, images().float(), passes) for passes in (0, 10**4)
    )
    assert compiled.notice == ""
    assert isinstance(compiled.decoded, decoded.CompiledLogLikelihood)
    ours, theirs = (
        total_variance(one, name, 2, seeded(), 0.0, 2000).value for one in (compiled, eager)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
    assert calls
    monkeypatch.setattr(native, "compiler", lambda: None)
    without = PosteriorGradient.from_model(model, images().float(), 10**4)
    assert "no C++ compiler" in without.notice
