"""The latents in use: by axis, and by direction, which no rotation changes."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Laplace, MultivariateNormal

from bench.inference.codes import direction_variances, has_axes, unit_variances
from vaes import VAE
from vaes.base import diagonal_gaussian

L, USED = 6, 2


class Rotated(VAE):
    """Codes that differ between images in `USED` directions alone, turned by a rotation."""

    turn = torch.eye(L)

    def posterior(self, x):
        loc = torch.cat([x[:, :USED], torch.zeros(len(x), L - USED)], 1) @ self.turn.mT
        return diagonal_gaussian(loc, torch.full_like(loc, 0.5))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(500, 8, generator=torch.Generator().manual_seed(0))


def rotation() -> torch.Tensor:
    noise = torch.randn(L, L, generator=torch.Generator().manual_seed(1))
    return torch.linalg.qr(noise)[0]


def test_a_rotation_moves_variances_between_axes_but_not_directions(images):
    model, draws = Rotated(8, L, 4), torch.Generator()
    exact = torch.linalg.eigvalsh(torch.cov(images[:, :USED].double().mT)).flip(0)
    for turn, axes in ((torch.eye(L), USED), (rotation(), L)):
        model.turn = turn
        found = direction_variances(model, images, draws)
        torch.testing.assert_close(found[:USED], exact, rtol=1e-5, atol=1e-6)
        assert (found[USED:] < 1e-6).all()
        assert (unit_variances(model, images, draws) > 0.01).sum() == axes


def test_one_latent_has_one_direction(images):
    class One(VAE):
        def posterior(self, x):
            return diagonal_gaussian(x[:, :1], torch.ones(len(x), 1))

    found = direction_variances(One(8, 1, 4), images, torch.Generator())
    torch.testing.assert_close(found, images[:, :1].double().var(0))


def test_axes_are_those_of_diagonal_gaussians_that_are_not_round():
    loc, scale = torch.zeros(3, 2), torch.tensor([[0.5, 0.5], [0.2, 0.2], [0.5, 0.4]])
    assert has_axes(diagonal_gaussian(loc, scale))
    assert not has_axes(diagonal_gaussian(loc[:2], scale[:2]))
    assert not has_axes(diagonal_gaussian(loc[:, :1], scale[:, :1]))
    assert not has_axes(MultivariateNormal(loc, torch.eye(2)))
    assert not has_axes(Independent(Laplace(loc, scale), 1))
