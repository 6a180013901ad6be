"""Learned priors are densities, of the same ELBO as their draws, and train with the rest."""

from __future__ import annotations

import pytest
import torch

from bench.inference.elbo import elbo_terms
from bench.inference.reparameterize import prior_sample, standard_normal
from bench.variant_checks import CHECKS
from vaes import PRIORS, discover, mixins, with_options
from vaes.base import VAE

VARIANTS = discover().variants
LEARNED = [name for name, found in PRIORS.items() if found]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("prior", LEARNED)
def test_a_variant_with_a_learned_prior_fulfils_the_contract(prior, check):
    torch.manual_seed(0)
    check(with_options(VARIANTS["input_dependent"], prior=prior))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_integrates_to_one(prior):
    """Over a fine grid of one latent; a mixture of 50 Gaussians has tails of its widest."""
    torch.manual_seed(0)
    model = with_options(VARIANTS["input_dependent"], prior=prior)(6, 1, 4).double()
    z = torch.linspace(-60, 60, 120_001, dtype=torch.float64).unsqueeze(-1)
    with torch.no_grad():
        density = model.prior.log_prob(z).exp()
    assert torch.trapezoid(density, z[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_a_vamp_prior_is_the_mean_of_posteriors():
    torch.manual_seed(0)
    model = with_options(VARIANTS["full_covariance"], prior="vamp")(6, 2, 4)
    z = torch.randn(7, 2)
    posteriors = model.posterior(model.pseudo_inputs.sigmoid())
    expected = posteriors.log_prob(z.unsqueeze(1)).exp().mean(1).log()
    torch.testing.assert_close(model.prior.log_prob(z), expected)


def test_an_autoencoder_has_no_prior_to_choose():
    assert mixins(VARIANTS["autoencoder"], prior="vamp") == ()
    assert not issubclass(with_options(VARIANTS["autoencoder"], prior="vamp"), VAE)


@pytest.mark.parametrize("prior", PRIORS)
def test_draws_are_the_priors(prior):
    """Their mean of log p(z) and that of a second set agree within 5 standard errors (P < 1e-6)."""
    torch.manual_seed(0)
    model = with_options(VARIANTS["input_dependent"], prior=prior)(6, 2, 4)
    with torch.no_grad():
        ours = prior_sample(model, 4000, torch.Generator().manual_seed(1))
        theirs = model.prior.sample((4000,))
        values = torch.stack([model.prior.log_prob(z) for z in (ours, theirs)])
    error = (values.var(1) / 4000).sum().sqrt()
    assert (values[0].mean() - values[1].mean()).abs() < 5 * error


def test_a_mixture_of_one_place_is_its_gaussian():
    """Equal components are one: the sampled KL's mean is the closed form's, within 5 errors."""
    torch.manual_seed(0)
    learned = with_options(VARIANTS["input_dependent"], prior="mixture")(6, 2, 4)
    plain = VARIANTS["input_dependent"](6, 2, 4)
    plain.load_state_dict(learned.state_dict(), strict=False)
    with torch.no_grad():
        learned.prior_locations.zero_()
    x = torch.ones(3, 6)
    noise = standard_normal(3, 2, torch.Generator().manual_seed(0))
    _, sampled = elbo_terms(learned, x, noise, 20_000)
    _, exact = elbo_terms(plain, x, noise, 1)
    error = sampled.std(0) / 20_000**0.5
    assert ((sampled.mean(0) - exact[0]).abs() < 5 * error).all()


def test_inputs_of_a_vamp_prior_are_any_reals_where_the_data_are():
    """A table's values reach beyond (0, 1); those of pixels do not."""
    torch.manual_seed(0)
    options = {"prior": "vamp", "likelihood": "gaussian"}
    model = with_options(VARIANTS["input_dependent"], **options)(6, 2, 4)
    with torch.no_grad():
        model.pseudo_inputs.fill_(3.0)
        alone = model.posterior(torch.full((1, 6), 3.0))
        z = torch.randn(7, 2)
        torch.testing.assert_close(model.prior.log_prob(z), alone.log_prob(z))
