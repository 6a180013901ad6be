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
from bench.inference.gradients import BOUNDS, ESTIMATORS, admit, estimator_for, of_bound
from bench.inference.sobol import CELLS, MOST_LATENTS, cells_of, first_cells, shift_from
from bench.inference.target import Target
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


def weights_at_nodes(posterior, target, nodes=40):
    """Gauss-Hermite weights and f at the nodes, differentiable in the parameters of one row."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    points, weights = torch.tensor(points), torch.tensor(weights / math.sqrt(2 * math.pi))
    epsilon = torch.cartesian_prod(points, points).unsqueeze(1)
    z = gradients.reparameterize(posterior, epsilon)
    return torch.outer(weights, weights).flatten(), target.log_weight(posterior, z).squeeze(1)


def elbo_of(posterior, target, samples):
    """E_q f by quadrature."""
    weight, f = weights_at_nodes(posterior, target)
    return weight @ f


def iw_bound_of(posterior, target, samples):
    """L_K by quadrature in the latents and one number more, whatever K.

    log a = ∫ (exp(−eˢ) − exp(−a eˢ)) ds over the line (Frullani), so that E log Σ w_k is that
    integral of exp(−eˢ) − (E exp(−w eˢ))ᴷ.
    """
    weight, f = weights_at_nodes(posterior, target)
    s = torch.arange(-40, 60, 0.05).double()
    laplace = weight @ (-(f.unsqueeze(1) + s).exp()).exp()
    return 0.05 * ((-s.exp()).exp() - laplace**samples).sum() - math.log(samples)


TRUTHS = {"elbo": elbo_of, "iw_bound": iw_bound_of}


def test_the_quadrature_of_a_bound_is_that_of_all_its_samples():
    """Gauss-Hermite over the latents of both samples at once, and the ELBO for one sample."""
    posterior, target = diagonal(1)[0], target_of(leaf([0.1] * PIXELS, 1), 1.0)
    torch.testing.assert_close(
        iw_bound_of(posterior, target, 1), elbo_of(posterior, target, 1), rtol=0, atol=1e-6
    )
    weight, f = weights_at_nodes(posterior, target, 30)
    both = torch.logaddexp(f.unsqueeze(1), f) - math.log(2)
    exact = weight @ both @ weight
    torch.testing.assert_close(iw_bound_of(posterior, target, 2), exact, rtol=0, atol=1e-5)


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
    """Against quadrature of a Bernoulli model with two latents: posterior and decoder gradient.

    Of the bound that the estimator declares; one that says it is biased must be, for K > 1, and
    not in the decoder's gradient.
    """
    estimator = ESTIMATORS[name]
    samples = least_samples(name, POSTERIORS[kind](1)[0]) + more
    one, parameters = POSTERIORS[kind](1)
    bias = leaf([0.1] * PIXELS, 1)
    truth = TRUTHS[estimator.bound](one, target_of(bias, kl_weight), samples)
    exact = torch.autograd.grad(truth, [*parameters, bias])
    posterior, parameters = POSTERIORS[kind](DRAWS)
    bias = leaf([0.1] * PIXELS, DRAWS)
    generator = seeded(samples)

    def noise(n):
        return torch.randn((n, DRAWS, LATENTS), generator=generator, dtype=torch.float64)

    surrogate = estimator(target_of(bias, kl_weight), posterior, noise, samples)
    assert surrogate.shape == (DRAWS,)
    found = torch.autograd.grad(surrogate.sum(), [*parameters, bias])
    agrees = []
    for g, expected in zip(found, exact):
        error = g.std(0) / math.sqrt(DRAWS)
        if g.dim() == 3:  # entries above the diagonal are no parameters
            g, error, expected = g.tril(), error.tril(), expected.tril()
        agrees.append(bool(((g.mean(0) - expected[0]).abs() <= ERRORS * error + 1e-7).all()))
    if estimator.biased and samples > 1:
        assert agrees[-1]
        assert not all(agrees)
    else:
        assert all(agrees)


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
    assert [*of_bound("elbo"), *of_bound("iw_bound")] == sorted(
        ESTIMATORS, key=lambda name: BOUNDS.index(ESTIMATORS[name].bound)
    )


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
        ("pathwise_sobol", 4, 4, 0),
        ("pathwise_control_variate", 2, 6, 0),
        ("dreg", 5, 5, 0),
    ],
)
def test_decoder_passes_are_counted(name, samples, followed, others):
    passes = admit(name, diagonal(3)[0], prior(), samples)
    assert (passes.followed, passes.others) == (followed, others)
    assert passes.total == followed + others


def test_a_constant_scale_costs_measure_valued_nothing():
    assert admit("measure_valued", fixed_scale(1)[0], prior(), 1).others == 2 * LATENTS


@pytest.mark.parametrize("samples", [2, 8, 64])
def test_sobol_points_of_an_image_lie_one_in_each_stratum(samples):
    """Of S equal strata, whichever shift; the shifts of images differ."""
    shift = shift_from(torch.randn(1, 5, 3, generator=seeded(2)))
    cells = first_cells(samples, 3, torch.device("cpu")).unsqueeze(1) ^ shift
    strata = (cells // (CELLS // samples)).sort(0).values
    assert torch.equal(strata, torch.arange(samples).view(-1, 1, 1).expand(samples, 5, 3))
    assert len(cells[:, :, 0].T.unique(dim=0)) == 5


def test_extreme_numbers_have_a_shift_and_a_cell():
    shift = shift_from(torch.tensor([-40.0, 0.0, 40.0]))
    assert shift.tolist() == [0, CELLS // 2, CELLS - 1]
    assert cells_of(torch.tensor([0.0, 1.0]).double()).tolist() == [0, 0]


def test_too_many_latents_for_sobol_points_are_refused():
    wide = diagonal_gaussian(torch.zeros(1, MOST_LATENTS + 1), torch.ones(1, MOST_LATENTS + 1))
    with pytest.raises(BenchError, match=f"L = {MOST_LATENTS + 1}, only to {MOST_LATENTS}"):
        admit("pathwise_sobol", wide, wide, 4)


def of_noise(name, kind, samples, kl_weight=1.0):
    """Gradients of an estimator from one fixed noise, and what it was computed from."""
    posterior, parameters = POSTERIORS[kind](3)
    bias = leaf([0.1] * PIXELS, 3)
    normal = torch.randn((samples, 3, LATENTS), generator=seeded(8), dtype=torch.float64)
    target = target_of(bias, kl_weight)
    surrogate = ESTIMATORS[name](target, posterior, lambda n: normal[:n], samples)
    return torch.autograd.grad(surrogate.sum(), [*parameters, bias]), posterior, target, normal


@pytest.mark.parametrize("kind", POSTERIORS)
@pytest.mark.parametrize(
    ("of_bound", "of_elbo"),
    [
        ("iwae", "pathwise_sampled_kl"),
        ("dreg", "sticking_the_landing"),
        ("iwae_sticking_the_landing", "sticking_the_landing"),
    ],
)
def test_with_one_sample_a_bound_is_the_elbo(of_bound, of_elbo, kind):
    for ours, theirs in zip(of_noise(of_bound, kind, 1)[0], of_noise(of_elbo, kind, 1)[0]):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", of_bound("iw_bound"))
def test_every_estimator_of_a_bound_gives_the_decoder_the_same_gradient(name):
    torch.testing.assert_close(of_noise(name, "full", 4)[0][-1], of_noise("iwae", "full", 4)[0][-1])


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_dreg_is_its_formula(kl_weight):
    """Σ w̃ (1 − β + β w̃) ∂log w/∂z ∇z, for a diagonal Gaussian (∇z = 1, ε)."""
    found, posterior, target, normal = of_noise("dreg", "diagonal", 4, kl_weight)
    z = gradients.reparameterize(posterior, normal).detach().requires_grad_()
    log_w = target.log_weight(posterior, z)
    (along,) = torch.autograd.grad(log_w.sum(), z)
    w = log_w.softmax(0).unsqueeze(-1).detach()
    paths = w * (1 - kl_weight + kl_weight * w) * along
    torch.testing.assert_close(found[0], paths.sum(0))
    torch.testing.assert_close(found[1], (paths * normal).sum(0))


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
    assert estimator_for("auto", mixture(), prior()) is gradients.score_function_baseline
    with pytest.raises(NotImplementedError):
        kl_divergence(transformed(1)[0], prior())
