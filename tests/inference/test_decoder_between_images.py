"""The decoder's data part against every estimate's own gradient: agreement to rounding."""

import pytest
import torch

from bench.inference.decoder_variance import DecoderGradient
from tests.posteriors import OneScale, perturbed
from vaes import discover


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def estimates_by_hand(found):
    """g of each image and replicate `(B, R, W)`, one backward each."""
    weights = [*found.model.decoder.parameters()]
    replicates, count = found.weights.shape[1:]
    rows = []
    for n in range(count):
        for r in range(replicates):
            value = found.model.log_likelihood(found.x[n : n + 1], found.z[:, r, n : n + 1])[:, 0]
            g = torch.autograd.grad(value @ found.weights[:, r, n], weights, allow_unused=True)
            rows.append(torch.cat([p.flatten() for p in g if p is not None]))
    return torch.stack(rows).unflatten(0, (count, replicates))


@pytest.mark.parametrize("name", ["pathwise", "score_function_baseline", "iwae"])
@pytest.mark.parametrize("variant", [OneScale, discover().variants["input_dependent"]])
def test_the_parts_of_the_decoder_s_variance_are_those_of_every_estimate_s_gradient(variant, name):
    """With R = 2 the noise left in an image's mean is as large as it can be: agreement to rounding.

    A wrong sign of it would move the result by more than a thousandth.
    """
    model = perturbed(variant).double()
    x = torch.bernoulli(torch.full((3, model.data_dim), 0.4).double(), generator=seeded(1))
    found = DecoderGradient.of_estimator(model, x, name, 2, 2, seeded())
    g = estimates_by_hand(found)
    noise = g.var(1).sum(-1)
    torch.testing.assert_close(found.variances(), noise, rtol=1e-9, atol=0)
    spread, left = g.mean(1).var(0).sum(), noise.mean() / 2
    assert left > 1e-3 * spread
    torch.testing.assert_close(found.between_images().mean(), spread - left, rtol=1e-9, atol=0)
