"""Every likelihood is a density: it sums, or integrates, to 1 over the values of a pixel."""

from __future__ import annotations

import pytest
import torch
from scipy.integrate import quad

from vaes import LIKELIHOODS, Autoencoder, discover, with_options

LOGITS = (-6.0, -1.0, 0.0, 1e-3, 2.5)


class Pixel(Autoencoder):
    """Its code is the logit of its one pixel."""

    def decode(self, z):
        return z


@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_values_of_a_pixel_have_probability_one(likelihood, logit):
    model = with_options(Pixel, likelihood)(1, 1, 2)

    @torch.no_grad()
    def density(x: float) -> float:
        return model.log_likelihood(torch.tensor([[x]]), torch.tensor([[logit]])).exp().item()

    bounds = {"continuous_bernoulli": (0, 1), "gaussian": (-20, 20)}
    if likelihood == "bernoulli":
        total = density(0.0) + density(1.0)
    else:
        total, _ = quad(density, *bounds[likelihood], epsabs=1e-5)
    assert total == pytest.approx(1, abs=1e-4)


def test_samples_and_their_batch_have_a_likelihood_each():
    for likelihood in LIKELIHOODS:
        model = with_options(discover().variants["autoencoder"], likelihood)(6, 2, 4)
        assert model.log_likelihood(torch.rand(3, 6), torch.zeros(5, 3, 2)).shape == (5, 3)
