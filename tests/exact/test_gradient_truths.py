"""Gradient estimators and their variances against closed forms and brute force.

A statistical comparison allows 4 standard errors, so that a correct estimator fails one with
probability under 1e-4; seeds are fixed.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from bench.errors import BenchError
from bench.inference.decoder_variance import DecoderGradient
from bench.inference.gradient_variance import (
    PosteriorGradient,
    between_images,
    signal,
    total_variance,
)
from bench.inference.gradients import ESTIMATORS
from bench.inference.target import Target
from bench.inference.tensors import tensors
from bench.questions.published import closed_forms
from bench.training.step import objective
from vaes import VAE, discover, with_options
from vaes.base import diagonal_gaussian

ERRORS = 4
T_OF_EIGHT = 7.1
"""Standard errors from eight values that a correct mean exceeds with probability 2e-4."""
DRAWS = 200_000
VARIANTS = [name for name, variant in discover().variants.items() if issubclass(variant, VAE)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("name", closed_forms.ESTIMATED)
def test_means_and_variances_of_a_quadratic(name, samples):
    if samples == 1 and name in ("rloo", "pathwise_antithetic"):
        pytest.skip("needs two samples")
    found = closed_forms.gradients(name, samples, DRAWS, seeded(samples))
    exact = zip(closed_forms.means(), closed_forms.variances(name, samples))
    for g, (mean, variance) in zip(found, exact):
        centred = g - mean
        assert abs(centred.mean()) <= ERRORS * math.sqrt(variance / DRAWS) + 1e-12
        squares = centred.square()
        error = squares.std().item() / math.sqrt(DRAWS)
        assert abs(squares.mean() - variance) <= ERRORS * error + 1e-12


def linear_gaussian():
    """x = Wz + N(0, τ²) with its exact posterior N(m, T Tᵀ); target and parameters, float64."""
    generator = seeded(3)
    images, pixels, latents, noise = 4, 6, 3, 0.7
    w = torch.randn(pixels, latents, generator=generator, dtype=torch.float64)
    x = torch.randn(images, pixels, generator=generator, dtype=torch.float64)
    precision = torch.eye(latents).double() + w.T @ w / noise**2
    scale_tril = torch.linalg.cholesky(torch.linalg.inv(precision))
    loc = x @ w @ torch.linalg.inv(precision) / noise**2
    prior = diagonal_gaussian(torch.zeros(latents).double(), torch.ones(latents).double())
    target = Target(lambda z: -(x - z @ w.T).square().sum(-1) / (2 * noise**2), prior)
    return target, loc.requires_grad_(), scale_tril.expand(images, -1, -1).clone().requires_grad_()


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize(
    ("quiet", "noisy"),
    [
        ("sticking_the_landing", "pathwise_sampled_kl"),
        ("dreg", "iwae"),
        ("iwae_sticking_the_landing", "iwae"),
    ],
)
def test_sticking_the_landing_is_noiseless_at_the_exact_posterior(quiet, noisy, samples):
    """log p(x, z) − log q(z|x) is then log p(x) for every z, so its derivative in z vanishes."""
    target, loc, scale_tril = linear_gaussian()
    posterior = MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)
    generator = seeded()

    def noise(n):
        return torch.randn((n, *loc.shape), generator=generator, dtype=torch.float64)

    def gradients(name):
        surrogate = ESTIMATORS[name](target, posterior, noise, samples)
        return torch.autograd.grad(surrogate.sum(), [loc, scale_tril])

    assert max(g.abs().max() for g in gradients(quiet)) < 1e-12
    assert max(g.abs().max() for g in gradients(noisy)) > 0.1


def test_pathwise_variance_at_the_exact_posterior():
    """∂/∂m of log p(x|z) is Wᵀ(x − Wz)/τ²: linear in ε, of covariance MTTᵀM, M = WᵀW/τ²."""
    target, loc, scale_tril = linear_gaussian()
    draws, m = 50_000, torch.linalg.inv((scale_tril @ scale_tril.mT)[0]) - torch.eye(3).double()
    z_loc = loc[:1].detach().expand(draws, -1).clone().requires_grad_()
    row = Target(
        lambda z: target.log_likelihood(z.unsqueeze(-2).expand(-1, -1, 4, -1))[..., 0], target.prior
    )
    posterior = MultivariateNormal(z_loc, scale_tril=scale_tril[0].detach(), validate_args=False)
    generator = seeded(5)

    def noise(n):
        return torch.randn((n, draws, 3), generator=generator, dtype=torch.float64)

    z = posterior.loc + noise(1) @ scale_tril[0].detach().T
    (g,) = torch.autograd.grad(row.log_likelihood(z).sum(), [z_loc])
    squares = (g - g.mean(0)).square().sum(1)
    exact = torch.trace(m @ scale_tril[0] @ scale_tril[0].T @ m).item()
    assert abs(squares.mean() - exact) < ERRORS * squares.std() / math.sqrt(draws)


def small_model(name, likelihood="bernoulli", seed=0, decoder="mlp"):
    """A variant with D = 12, H = 6, L = 3 and no parameter left at a special value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = with_options(discover().variants[name], likelihood, decoder)(12, 3, 6).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.15 * torch.randn_like(parameter)
    return model


def small_images(count=3):
    return torch.bernoulli(torch.full((count, 12), 0.4).double(), generator=seeded(1))


def encoder_side(model, x):
    """Parameters the posterior depends on."""
    q = model.posterior(x)
    z = q.rsample() if q.has_rsample else q.sample()
    value = (q.log_prob(z.detach()) + z.sum(-1)).sum()
    parameters = list(model.parameters())
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [p for p, g in zip(parameters, found) if g is not None]


def brute_force(model, x, name, samples, draws, parameters, generator=None):
    """Gradients of the minibatch's mean ELBO by one backward a draw, `(draws, |parameters|)`."""
    generator = generator or seeded(17)

    def noise(n):
        return torch.randn((n, len(x), model.latent_dim), generator=generator, dtype=x.dtype)

    rows = []
    for _ in range(draws):
        loss = -objective(model, x, noise, ESTIMATORS[name], samples)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(rows)


def spread(gradients):
    """Total variance and its standard error."""
    squares = (gradients - gradients.mean(0)).square().sum(1) * len(gradients)
    squares /= len(gradients) - 1
    return squares.mean().item(), squares.std().item() / math.sqrt(len(gradients))


@pytest.mark.parametrize("variant", VARIANTS)
def test_quadratic_form_is_the_norm_of_the_full_gradient(variant):
    """g_λᵀ G g_λ = ‖Jᵀ g_λ‖² for any vector, whole and in parts: agreement to rounding."""
    model, x = small_model(variant), small_images()
    gradient, generator = PosteriorGradient.from_model(model, x), seeded(2)
    direction = {
        path: torch.randn(
            (len(x), *(value.shape[1:] if path in gradient.varying else value.shape)),
            generator=generator,
            dtype=torch.float64,
        )
        for path, value in gradient.parameters.items()
    }
    norms = gradient.squared_norms({p: v.reshape(1, len(x), -1) for p, v in direction.items()})
    parameters = list(model.parameters())
    for image in range(len(x)):
        held = tensors(model.posterior(x[image : image + 1]))
        terms = {path: (held[path] * direction[path][image]).sum() for path in gradient.parameters}
        locations = [path for path in terms if path.endswith("loc")]
        for part, paths in enumerate([terms, locations, terms.keys() - locations]):
            if not paths:
                continue
            along = sum(terms[path] for path in paths)
            found = torch.autograd.grad(along, parameters, retain_graph=True, allow_unused=True)
            expected = sum(g.square().sum() for g in found if g is not None)
            torch.testing.assert_close(norms[part, 0, image], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_norm_is_that_of_one_backward_for_every_estimator(variant, name):
    """With the same noise, ‖Jᵀ g_λ‖ from λ alone is the norm of one whole backward."""
    model, x = small_model(variant), small_images(1)
    gradient, parameters, draws = (
        PosteriorGradient.from_model(model, x),
        encoder_side(model, x),
        seeded(4),
    )
    try:
        gradient.passes(name, 2)
    except BenchError:
        pytest.skip("the posterior does not admit the estimator")
    state = draws.get_state()

    def noise(n):
        return torch.randn((n, 1, model.latent_dim), generator=draws, dtype=x.dtype)

    free = {path: value.clone().requires_grad_() for path, value in gradient.parameters.items()}
    target = Target(lambda z: model.log_likelihood(x, z), model.prior)
    surrogate = ESTIMATORS[name](target, gradient.posterior(free), noise, 2).sum()
    g = dict(zip(free, torch.autograd.grad(surrogate, list(free.values()), materialize_grads=True)))
    draws.set_state(state)
    loss = objective(model, x, noise, ESTIMATORS[name], 2)
    whole = torch.autograd.grad(loss, parameters, allow_unused=True)
    expected = sum(part.square().sum() for part in whole if part is not None)
    found = gradient.squared_norms({path: v.reshape(1, 1, -1) for path, v in g.items()})[0, 0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trace_is_the_variance_of_brute_force_backpropagation(variant):
    """tr(C G) against one backward a draw, for a single image; 4 errors are under a third."""
    model, x = small_model(variant), small_images(1)
    name = "pathwise_sampled_kl"
    gradients = brute_force(model, x, name, 2, 1500, encoder_side(model, x))
    expected, error = spread(gradients)
    found = total_variance(PosteriorGradient.from_model(model, x), name, 2, seeded(), 0.02, 40_000)
    leeway = ERRORS * math.hypot(error, found.standard_error[0])
    assert leeway < expected / 3
    assert abs(found.value[0] - expected) < leeway


@pytest.mark.parametrize("variant", ["learned_diagonal", "input_dependent"])
def test_variance_of_a_minibatch_is_the_sum_of_its_images_over_the_square(variant):
    """Independent noise: tr Cov of the mean over B images is (1/B²) Σ tr(C_n G_n)."""
    model, x = small_model(variant), small_images(4)
    gradients = brute_force(model, x, "pathwise", 1, 1000, encoder_side(model, x))
    expected, error = spread(gradients)
    found = total_variance(
        PosteriorGradient.from_model(model, x), "pathwise", 1, seeded(), 0.02, 40_000
    )
    value, own = found.value[0] / len(x), found.standard_error[0] / len(x)
    leeway = ERRORS * math.hypot(error, own)
    assert leeway < expected / 4
    assert abs(value - expected) < leeway


def test_the_signal_is_the_squared_norm_of_the_mean_gradient():
    """‖E g‖² from the mean over draws, less what the mean's own noise adds."""
    model, x = small_model("input_dependent"), small_images(1)
    gradients = brute_force(model, x, "pathwise", 1, 500, encoder_side(model, x))
    gradient = PosteriorGradient.from_model(model, x)
    found = total_variance(gradient, "pathwise", 1, seeded(), 0.01, 40_000)
    total, _ = spread(gradients)
    expected = gradients.mean(0).square().sum().item() - total / len(gradients)
    # along the mean the error of a norm is at most that of the whole vector
    error = 2 * math.sqrt(expected * total * (1 / len(gradients) + 1 / found.replicates))
    assert abs(signal(gradient, found).mean() - expected) < ERRORS * error
    assert error < expected


@pytest.mark.parametrize("name", ESTIMATORS)
def test_decoder_variance_is_that_of_brute_force_backpropagation(name):
    """Of one image, with the S that admits all; a copy of the image is another estimate."""
    model, x = small_model("input_dependent"), small_images(1)
    gradients = brute_force(model, x, name, 2, 600, [*model.decoder.parameters()])
    expected, error = spread(gradients)
    copies = x.expand(60, -1).contiguous()
    found = DecoderGradient.of_estimator(model, copies, name, 2, 20, seeded()).variances()
    leeway = ERRORS * math.hypot(error, found.std() / math.sqrt(len(found)))
    assert leeway < expected / 2
    assert abs(found.mean() - expected) < leeway


def test_pairs_of_noise_leave_less_variance_in_the_decoder():
    """What is even in the noise alone: the estimators' decoder gradients are not all alike."""
    model, x = small_model("input_dependent"), small_images(40)
    plain, pairs = (
        DecoderGradient.of_estimator(model, x, name, 2, 20, seeded()).variances().mean()
        for name in ("pathwise", "pathwise_antithetic")
    )
    assert pairs < plain / 3


@pytest.mark.parametrize("variant", ["learned_diagonal", "input_dependent"])
def test_a_minibatch_gradient_varies_by_noise_and_by_data(variant):
    """Var = (Monte Carlo + data) / B, of minibatches of B = 3 drawn from 5 images, by brute force.

    Encoder and decoder. Drawn with replacement, so that the images are all there are: their
    variance has no Bessel's correction.
    """
    model, x, size, draws = small_model(variant), small_images(5), 3, seeded(9)
    name = "pathwise_antithetic"
    gradients = torch.cat(
        [
            brute_force(model, batch, name, 2, 1, [*model.parameters()], draws)
            for batch in x[torch.randint(5, (600, size), generator=draws)]
        ]
    )
    expected, error = spread(gradients)
    gradient = PosteriorGradient.from_model(model, x)
    encoder = total_variance(gradient, name, 2, seeded(), 0.01, 40_000)
    decoder = DecoderGradient.of_estimator(model, x, name, 2, 400, seeded())
    noise = encoder.value[0] + decoder.variances().mean()
    data = between_images(gradient, encoder).mean() + decoder.between_images().mean()
    found = (noise + 4 / 5 * data) / size
    leeway = ERRORS * error + 0.02 * expected
    assert leeway < min(data / size, expected / 4)
    assert abs(found - expected) < leeway


def exact_mean_gradients(model, x):
    """∂ELBO/∂weights of each image `(B, W)`, for x = Wz + b + N(0, s²) and a diagonal posterior.

    The ELBO is then known: E‖x − Wz − b‖² = ‖x − Wm − b‖² + Σ_l σ_l² ‖w_l‖².
    """
    layer, rows = model.decoder[0], []
    for image in x:
        precision = (-2 * model.log_noise).exp()
        q = model.posterior(image[None]).base_dist
        square = (image - layer(q.loc)).square().sum()
        square = square + (q.scale.square() * layer.weight.square().sum(0)).sum()
        likelihood = -0.5 * square * precision - len(image) * model.log_noise
        rate = 0.5 * (q.loc.square() + q.scale.square() - 1 - 2 * q.scale.log()).sum()
        found = torch.autograd.grad(likelihood - rate, [*model.parameters()])
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize("variant", ["learned_diagonal", "input_dependent"])
def test_the_data_part_is_that_of_the_known_elbo(variant):
    """Encoder and decoder, its noise level included, of a linear Gaussian model."""
    model, x = small_model(variant, "gaussian", decoder="linear"), small_images(6)
    names = [name for name, p in model.named_parameters() for _ in range(p.numel())]
    of_decoder = torch.tensor([n.startswith("decoder") or n == "log_noise" for n in names])
    mean = exact_mean_gradients(model, x)
    gradient = PosteriorGradient.from_model(model, x)
    found: dict[str, list] = {"encoder": [], "decoder": []}
    for seed in range(8):
        encoder = total_variance(gradient, "pathwise", 1, seeded(seed), 0.0, 12_000)
        found["encoder"].append(between_images(gradient, encoder).mean())
        decoder = DecoderGradient.of_estimator(model, x, "pathwise", 1, 300, seeded(seed))
        found["decoder"].append(decoder.between_images().mean())
    for side, places in (("encoder", ~of_decoder), ("decoder", of_decoder)):
        expected, values = mean[:, places].var(0).sum(), torch.stack(found[side])
        leeway = T_OF_EIGHT * values.std() / math.sqrt(len(values))
        assert leeway < expected / 4
        assert abs(values.mean() - expected) < leeway
