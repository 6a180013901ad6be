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
from bench.inference.gradient_variance import PosteriorGradient, between_images, total_variance
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


def gradients_by_hand(model, gradient, along):
    """Σ λ · a over one image's λ, backward: the rows `(B, W)` of all images."""
    parameters, rows = list(model.parameters()), []
    for image in range(len(gradient.x)):
        held = tensors(model.posterior(gradient.x[image : image + 1]))
        terms = [
            (held[path] * a[image].reshape(held[path].shape)).sum() for path, a in along.items()
        ]
        found = torch.autograd.grad(sum(terms), parameters, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "variant", [Correlated, ModuleFlow, Reused, OneScale, Mixture, discover().variants["flow"]]
)
def test_the_variance_between_images_is_that_of_every_image_s_own_gradient(variant):
    """Without any row being formed, whatever the posterior is made of: agreement to rounding."""
    model = perturbed(variant).double()
    gradient = PosteriorGradient.from_model(model, images())
    found = total_variance(gradient, "score_function", 2, seeded(), 0.0, 100)
    rows = gradients_by_hand(model, gradient, found.mean)
    expected = rows.var(0).sum() - found.value[0] / found.replicates
    torch.testing.assert_close(between_images(gradient, found).mean(), expected, rtol=1e-9, atol=0)


class TiedDecoder(discover().variants["input_dependent"]):
    """A decoder that uses a layer's weights once more, outside of the layer."""

    def decode(self, z):
        return super().decode(z) + self.decoder[-1].bias.square().sum()


@pytest.mark.parametrize("variant", [OneScale, TiedDecoder])
def test_inner_products_of_passes_are_those_of_their_gradients(variant):
    model, x = perturbed(variant).double(), images(2)
    z = torch.randn(4, 2, LATENTS, generator=seeded(3), dtype=x.dtype)
    gram = gram_matrix.gram_of_passes(model, x, z)
    for image in range(2):
        values = model.log_likelihood(x, z)[:, image]
        weights = [*model.decoder.parameters()]
        found = [torch.autograd.grad(value, weights, retain_graph=True) for value in values]
        rows = torch.stack([torch.cat([g.flatten() for g in each]) for each in found])
        torch.testing.assert_close(gram[image], rows @ rows.T, rtol=1e-9, atol=0)


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
    means, errors = [], []
    for name in (n for n in of_bound(family) if not ESTIMATORS[n].biased):
        try:
            gradient.passes(name, 2)
        except BenchError:
            continue
        g = gradient.gradients(ESTIMATORS[name], 2, 4000, seeded(5))
        along = torch.cat([*gradient.bound(g).values()], -1)[..., gradient.places]
        seen = torch.einsum("bpq,rbq->rbp", gradient.gram, along)
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


def test_a_dear_estimator_has_two_replicates_whatever_the_cap(monkeypatch):
    monkeypatch.setattr(gradient_variance, "PASSES_AT_ONCE", 1)
    model = perturbed(discover().variants["input_dependent"])
    gradient = PosteriorGradient.from_model(model, images(dtype=torch.float32))
    found = total_variance(gradient, "measure_valued", 4, seeded(), 0.01, 1)
    assert found.replicates == 2
    assert found.capped
    assert (found.per_image[0] > 0).all()


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
    for module in (decoded, gradient_variance):
        monkeypatch.setattr(module, "MOST_AT_ONCE", 5)
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
