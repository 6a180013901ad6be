"""The tensors of a posterior: found by path, exchanged, detached."""

from __future__ import annotations

import torch
from torch.distributions import TransformedDistribution
from torch.distributions.transforms import AffineTransform

from bench.inference.tensors import detached, substitute, tensors
from vaes.base import diagonal_gaussian

LATENTS = 2


def transformed(rows):
    """A diagonal Gaussian moved and stretched by a transform that carries tensors."""
    loc, scale, move, stretch = (
        torch.tensor([values] * rows, dtype=torch.float64).requires_grad_()
        for values in ((0.3, -0.6), (0.7, 1.2), (0.2, 0.1), (1.1, 0.8))
    )
    transform = AffineTransform(move, stretch, event_dim=1)
    return TransformedDistribution(diagonal_gaussian(loc, scale), [transform], validate_args=False)


def test_tensors_are_found_by_path_and_exchanged():
    posterior = transformed(2)
    found = tensors(posterior)
    assert {id(t) for t in found.values() if t.requires_grad} == {
        id(found[path]) for path in found if path.endswith(("loc", "scale"))
    }
    doubled = substitute(posterior, found.values(), [2 * t for t in found.values()])
    assert doubled is not posterior
    for path, tensor in tensors(doubled).items():
        torch.testing.assert_close(tensor, 2 * found[path])
    assert all(torch.equal(found[path], t) for path, t in tensors(posterior).items())
    assert not any(t.requires_grad for t in tensors(detached(posterior)).values())
    assert torch.equal(
        detached(posterior).log_prob(torch.zeros(2, LATENTS).double()),
        posterior.log_prob(torch.zeros(2, LATENTS).double()),
    )
