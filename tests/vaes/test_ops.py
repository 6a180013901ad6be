"""Kernels against what they compute, in float64, as they run eagerly and as they are compiled."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vaes._ops import Tanh, _lanes, bernoulli_log_likelihood


@pytest.fixture(params=["eager", "compiled"])
def form(request, monkeypatch):
    """What a compiler is given is run operation by operation."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param == "compiled")


def given(pixels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Grey and binary x, logits from −60 to 60 among them 0, and log p(x|z) in float64."""
    generator = torch.Generator().manual_seed(pixels)
    x = torch.rand(5, pixels, generator=generator)
    x[:3] = x[:3].round()
    logits = 8 * torch.randn(4, 5, pixels, generator=generator)
    logits[0, 0] = torch.linspace(-60, 60, pixels)
    logits[1] = 0
    exact = x.double() * logits.double() - F.softplus(logits.double())
    return x, logits, exact.sum(-1)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("pixels", [1, 13, 64, 784, 1024])
@pytest.mark.parametrize("differentiated", [False, True])
def test_the_likelihood_is_exact_to_float32(pixels, differentiated):
    x, logits, exact = given(pixels)
    found = bernoulli_log_likelihood(x, logits.requires_grad_(differentiated)).detach()
    size = logits.detach().abs().double().sum(-1) + pixels
    assert ((found - exact).abs() <= 3e-7 * size).all()


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("pixels", [1, 13, 784])
def test_its_gradient_is_x_minus_the_mean(pixels):
    x, logits, _ = given(pixels)
    (found,) = torch.autograd.grad(
        bernoulli_log_likelihood(x, logits.requires_grad_()).sum(), logits
    )
    exact = x.double() - logits.detach().double().sigmoid()
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("pixels", [1, 13, 64, 784, 997, 1024, 20_000])
def test_no_lane_overflows(pixels):
    lanes = _lanes(pixels)
    assert pixels % lanes == 0
    assert pixels // lanes <= 64


def test_tanh_without_a_gradient_is_tanh():
    x = torch.linspace(-12, 12, 1001)
    with torch.no_grad():
        torch.testing.assert_close(Tanh()(x), x.double().tanh().float(), rtol=0, atol=2e-7)
