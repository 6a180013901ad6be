"""What decodes is a part of the model: its own function, whatever the posterior is made of."""

from __future__ import annotations

import pytest
import torch

from bench.inference.decoded import what_decodes
from bench.inference.tensors import tensors
from vaes import discover

VARIANTS = discover().variants
STOCHASTIC = ("fixed_variance", "learned_diagonal", "input_dependent", "full_covariance", "flow")


def made(variant):
    torch.manual_seed(0)
    return variant(data_dim=12, latent_dim=3, hidden_dim=5).requires_grad_(False)


def images() -> torch.Tensor:
    return torch.bernoulli(torch.full((4, 12), 0.5), generator=torch.Generator().manual_seed(0))


def codes() -> torch.Tensor:
    return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_variants_that_differ_in_their_posteriors_decode_with_the_same_tensors(name):
    model = made(VARIANTS[name])
    part = what_decodes(model, images())
    assert list(tensors(part)) == list(tensors(what_decodes(made(VARIANTS["flow"]), images())))
    assert {id(tensor) for tensor in tensors(part).values()} == {
        id(weight) for weight in model.decoder.parameters()
    }
    assert torch.equal(
        part.log_likelihood(images(), codes()), model.log_likelihood(images(), codes())
    )
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_whose_likelihood_needs_more_stays_whole():
    class Scaled(VARIANTS["input_dependent"]):
        """Its likelihood reads a parameter of its own, and the prior's."""

        def __init__(self, *given, **named) -> None:
            super().__init__(*given, **named)
            self.sharpness = torch.nn.Parameter(torch.tensor(2.0))

        def log_likelihood(self, x, z):
            return super().log_likelihood(x, self.sharpness * z + self.prior_loc)

    class Tied(VARIANTS["input_dependent"]):
        """Its likelihood reads a layer that it does not call."""

        def log_likelihood(self, x, z):
            return super().log_likelihood(x, z) + self.encoder[0].bias.sum()

    for variant in (Scaled, Tied):
        model = made(variant)
        assert what_decodes(model, images()) is model


def test_a_likelihood_that_does_without_what_it_finds_missing_stays_whole():
    class Optional(VARIANTS["input_dependent"]):
        def log_likelihood(self, x, z):
            return super().log_likelihood(x, z + getattr(self, "prior_scale", 0.0))

    model = made(Optional)
    assert what_decodes(model, images()) is model
