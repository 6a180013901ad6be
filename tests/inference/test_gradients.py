"""What every gradient estimator owes, found by itself, and what estimators refuse.

Statistical comparisons allow 4 standard errors: a correct estimator fails one with probability
under 1e-4. Seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    kl_divergence,
)
from torch.distributions.transforms import AffineTransform

from bench.errors import BenchError
from bench.inference import gradients
from bench.inference.gradients import ESTIMATORS, Target, admit, estimator_for
from vaes._ops import bernoulli_log_likelihood
from vaes.base import diagonal_gaussian

ERRORS = 4
DRAWS = 20_000
PIXELS, LATENTS = 5, 2
LOC, SCALE = (0.3, -0.6), (0.7, 1.2)
TRIL = ((0.7, 0.0), (0.5, 1.2))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def prior():
    return diagonal_gaussian(torch.zeros(LATENTS).double(), torch.ones(LATENTS).double())


def decoder_and_image():
    generator = seeded(11)
    weight = torch.randn(PIXELS, LATENTS, generator=generator, dtype=torch.float64)
    x = torch.bernoulli(torch.full((PIXELS,), 0.5).double(), generator=generator)
    return weight, x


def leaf(values, rows):
    return (
        torch.tensor(values, dtype=torch.float64)
        .repeat(rows, *[1] * np.ndim(values))
        .requires_grad_()
    )


def diagonal(rows):
    loc, scale = leaf(LOC, rows), leaf(SCALE, rows)
    return diagonal_gaussian(loc, scale), [loc, scale]


def fixed_scale(rows):
    loc, scale = leaf(LOC, rows), leaf(SCALE, rows).detach()
    return diagonal_gaussian(loc, scale), [loc]


def full(rows):
    loc, tril = leaf(LOC, rows), leaf(TRIL, rows)
    return MultivariateNormal(loc, scale_tril=tril, validate_args=False), [loc, tril]


def transformed(rows):
    """A diagonal Gaussian moved and stretched by a transform that carries tensors."""
    loc, scale = leaf(LOC, rows), leaf(SCALE, rows)
    move, stretch = leaf((0.2, 0.1), rows), leaf((1.1, 0.8), rows)
    base = diagonal_gaussian(loc, scale)
    transform = AffineTransform(move, stretch, event_dim=1)
    return TransformedDistribution(base, [transform], validate_args=False), [
        loc,
        scale,
        move,
        stretch,
    ]


POSTERIORS = {f.__name__: f for f in (diagonal, fixed_scale, full, transformed)}


def quadrature(posterior, target, nodes=40):
    """E_q f by Gauss-Hermite nodes, a differentiable function of the parameters of one row."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    points, weights = torch.tensor(points), torch.tensor(weights / math.sqrt(2 * math.pi))
    epsilon = torch.cartesian_prod(points, points).unsqueeze(1)
    weight = torch.outer(weights, weights).flatten()
    z = gradients.reparameterize(posterior, epsilon)
    return weight @ target.log_weight(posterior, z).squeeze(1)


def target_of(bias, kl_weight):
    """A Bernoulli model's integrand; bias `(rows, D)` stands for the decoder's parameters."""
    weight, x = decoder_and_image()
    return Target(lambda z: bernoulli_log_likelihood(x, z @ weight.T + bias), prior(), kl_weight)


def least_samples(name, posterior):
    for samples in (1, 2, 3, 4):
        try:
            admit(name, posterior, prior(), samples)
        except BenchError as error:
            reason = error
        else:
            return samples
    pytest.skip(str(reason))


CASES = [(kind, more, 1.0) for kind in POSTERIORS for more in (0, 2)] + [("diagonal", 0, 0.3)]


@pytest.mark.parametrize(("kind", "more", "kl_weight"), CASES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_unbiased(name, kind, more, kl_weight):
    """Against quadrature of a Bernoulli model with two latents: posterior and decoder gradient."""
    samples = least_samples(name, POSTERIORS[kind](1)[0]) + more
    one, parameters = POSTERIORS[kind](1)
    bias = leaf([0.1] * PIXELS, 1)
    exact = torch.autograd.grad(quadrature(one, target_of(bias, kl_weight)), [*parameters, bias])
    posterior, parameters = POSTERIORS[kind](DRAWS)
    bias = leaf([0.1] * PIXELS, DRAWS)
    generator = seeded(samples)

    def noise(n):
        return torch.randn((n, DRAWS, LATENTS), generator=generator, dtype=torch.float64)

    surrogate = ESTIMATORS[name](target_of(bias, kl_weight), posterior, noise, samples)
    assert surrogate.shape == (DRAWS,)
    found = torch.autograd.grad(surrogate.sum(), [*parameters, bias])
    for g, expected in zip(found, exact):
        error = g.std(0) / math.sqrt(DRAWS)
        if g.dim() == 3:  # entries above the diagonal are no parameters
            g, error, expected = g.tril(), error.tril(), expected.tril()
        assert ((g.mean(0) - expected[0]).abs() <= ERRORS * error + 1e-9).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_is_described_and_follows_its_noise(name):
    assert ESTIMATORS[name].function.__doc__
    posterior, parameters = diagonal(3)

    def once():
        generator = seeded(1)
        bias = torch.zeros(3, PIXELS).double()

        def noise(n):
            return torch.randn((n, 3, LATENTS), generator=generator, dtype=torch.float64)

        surrogate = ESTIMATORS[name](target_of(bias, 1.0), posterior, noise, 4)
        return torch.cat(torch.autograd.grad(surrogate.sum(), parameters))

    assert torch.equal(once(), once())


def test_a_new_estimator_is_one_registered_function(monkeypatch):
    monkeypatch.setattr(gradients, "ESTIMATORS", dict(ESTIMATORS))

    @gradients.registered("newcomer", "#123456", "dashed", "somebody 2030")
    def newcomer(target, posterior, noise, samples):
        return gradients.pathwise(target, posterior, noise, samples)

    assert gradients.ESTIMATORS["newcomer"].function is newcomer
    assert estimator_for("newcomer", diagonal(1)[0], prior()) is newcomer
    assert admit("newcomer", diagonal(1)[0], prior(), 3).total == 3


def test_no_two_estimators_look_alike():
    for attribute in ("label", "colour"):
        values = [getattr(estimator, attribute) for estimator in ESTIMATORS.values()]
        assert len(set(values)) == len(values)
    assert {estimator.line for estimator in ESTIMATORS.values()} == {"solid", "dashed", "dotted"}
    assert all(estimator.citation for estimator in ESTIMATORS.values())


def mixture():
    """Two Gaussians: can be sampled and has a density, but no `rsample`."""
    loc = torch.tensor([[[0.0, 1.0], [1.0, -1.0]]]).requires_grad_()
    weights = Categorical(torch.tensor([[0.4, 0.6]]))
    return MixtureSameFamily(weights, Independent(Normal(loc, torch.ones_like(loc)), 1))


class Shapeless(Distribution):
    """Can only be sampled."""

    arg_constraints = {}

    def __init__(self):
        super().__init__((1,), (LATENTS,), validate_args=False)

    def sample(self, shape=()):
        return torch.zeros(*shape, 1, LATENTS)


@pytest.mark.parametrize(
    ("name", "posterior", "samples", "words"),
    [
        ("rloo", lambda: diagonal(1)[0], 1, ("S = 1", "S ≥ 2")),
        ("pathwise_antithetic", lambda: diagonal(1)[0], 3, ("S = 3", "even")),
        ("score_function", Shapeless, 4, ("S = 4", "Shapeless has no log_prob")),
        ("rloo", Shapeless, 4, ("S = 4", "Shapeless has no log_prob")),
        ("pathwise", mixture, 1, ("S = 1", "MixtureSameFamily is not a map")),
        ("sticking_the_landing", mixture, 2, ("S = 2", "MixtureSameFamily is not a map")),
        ("score_function_analytic_kl", mixture, 2, ("S = 2", "No KL")),
        ("measure_valued", lambda: full(1)[0], 1, ("independent Gaussian", "MultivariateNormal")),
    ],
)
def test_what_a_posterior_does_not_admit_is_one_line(name, posterior, samples, words):
    with pytest.raises(BenchError) as caught:
        admit(name, posterior(), prior(), samples)
    message = str(caught.value)
    assert message.startswith(name)
    assert "\n" not in message
    assert all(word in message for word in words)


def test_an_unknown_estimator_names_the_nearest():
    with pytest.raises(BenchError, match="did you mean 'pathwise'"):
        estimator_for("pathwsie", diagonal(1)[0], prior())


@pytest.mark.parametrize(
    ("name", "samples", "followed", "others"),
    [
        ("pathwise", 1, 1, 0),
        ("pathwise_antithetic", 4, 4, 0),
        ("rloo", 4, 4, 0),
        ("score_function_baseline", 2, 2, 16),
        ("measure_valued", 3, 3, 3 * 4 * LATENTS),
    ],
)
def test_decoder_passes_are_counted(name, samples, followed, others):
    passes = admit(name, diagonal(3)[0], prior(), samples)
    assert (passes.followed, passes.others) == (followed, others)
    assert passes.total == followed + others


def test_a_constant_scale_costs_measure_valued_nothing():
    assert admit("measure_valued", fixed_scale(1)[0], prior(), 1).others == 2 * LATENTS


def test_the_baseline_is_independent_of_the_samples_it_is_subtracted_from():
    """Its noise is drawn apart, before theirs."""
    asked = []

    def noise(n):
        asked.append(n)
        return torch.randn((n, 1, LATENTS), generator=seeded(len(asked)), dtype=torch.float64)

    bias = torch.zeros(1, PIXELS).double()
    gradients.score_function_baseline(target_of(bias, 1.0), diagonal(1)[0], noise, 3)
    assert asked == [16, 3]


def test_auto_takes_what_the_posterior_admits():
    assert estimator_for("auto", diagonal(1)[0], prior()) is gradients.pathwise
    assert estimator_for("auto", transformed(1)[0], prior()) is gradients.pathwise_sampled_kl
    assert estimator_for("auto", mixture(), prior()) is gradients.score_function
    with pytest.raises(NotImplementedError):
        kl_divergence(transformed(1)[0], prior())
