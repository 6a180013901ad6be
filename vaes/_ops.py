"""Kernels of the training step, faster than what torch composes by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaes._shapes import Float


def _value(
    x: Float[Tensor, "*#B D"], logits: Float[Tensor, "*B D"]
) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B D"]]:
    """Σ_d [x_d l_d − softplus(l_d)], and sigmoid(|l|).

    softplus(l) = (l + |l|)/2 − log sigmoid(|l|). The logarithm is the dearest function here, so it
    is taken of products of some factors; none is below ½, hence no product underflows.
    """
    if torch.compiler.is_compiling():
        return _value_in_one_pass(x, logits)
    magnitudes = logits.abs()
    linear = torch.linalg.vecdot(x - 0.5, logits) - 0.5 * magnitudes.sum(-1)
    sigmoids = magnitudes.sigmoid_()
    together = next(n for n in range(64, 0, -1) if logits.shape[-1] % n == 0)
    products = sigmoids.unflatten(-1, (-1, together)).prod(-1)
    return linear + products.log_().sum(-1), sigmoids


def _value_in_one_pass(
    x: Float[Tensor, "*#B D"], logits: Float[Tensor, "*B D"]
) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B D"]]:
    """`_value` element by element, for a compiler that makes one loop of it.

    With t = exp(−|l|), sigmoid(|l|) = 1/(1 + t) and −log sigmoid(|l|) = log(1 + t), which is
    2 artanh(s) for s = t/(2 + t) ≤ ⅓: a short series, where a logarithm would take longer than
    all else. One division serves both.
    """
    magnitudes = logits.abs()
    t = (-magnitudes).exp()
    once = 1 / ((1 + t) * (2 + t))
    sigmoids = (2 + t) * once
    s = t * (1 + t) * once
    square = s * s
    series = torch.full_like(s, 2 / ARTANH[0])
    for odd in ARTANH[1:]:
        series = series * square + 2 / odd
    terms = (x - 0.5) * logits - 0.5 * magnitudes - s * series
    return terms.sum(-1), sigmoids


ARTANH = (13, 11, 9, 7, 5, 3, 1)
"""Divisors of the series of artanh; at ⅓ what is left out is below float32's rounding."""


class _BernoulliLogLikelihood(torch.autograd.Function):
    """`_value`, keeping only its derivative x − sigmoid(l) for backward.

    sigmoid(l) is ½ + sign(l) (sigmoid(|l|) − ½), so that each pixel takes one exponential.

    Autograd's own version keeps the logits and recomputes the sigmoid in several passes over
    the largest array of the training step.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Float[Tensor, "*B D"], x: Float[Tensor, "*#B D"]
    ) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B D"]]:
        value, sigmoids = _value(x, logits)
        return value, x - 0.5 - (sigmoids - 0.5).copysign(logits)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        residual = output[1]
        ctx.mark_non_differentiable(residual)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(residual)

    @staticmethod
    def backward(
        ctx, grad: Float[Tensor, "*B"], _: Tensor | None
    ) -> tuple[Float[Tensor, "*B D"], None]:
        (residual,) = ctx.saved_tensors
        return residual * grad.unsqueeze(-1), None


def bernoulli_log_likelihood(
    x: Float[Tensor, "*#B D"], logits: Float[Tensor, "*B D"]
) -> Float[Tensor, "*B"]:
    """log p(x|z) = Σ_d log Bernoulli(x_d; sigmoid(logits_d)), in nats, for x in [0, 1].

    For grey x this is minus the cross-entropy, not a density of x (Loaiza-Ganem & Cunningham,
    2019).
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        return _BernoulliLogLikelihood.apply(logits, x)[0]
    if torch.compiler.is_compiling():
        return _value_alone(x, logits)
    return _value(x, logits)[0]


def _value_alone(x: Float[Tensor, "*#B D"], logits: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
    """`_value` without its derivative, for a compiler: no division, and a logarithm a lane.

    Pixels are dealt to some lanes, and log Σ (1 + exp(−|l|)) taken of each lane's product, which
    is below 2 to the power of its pixels.
    """
    lanes = _lanes(logits.shape[-1])
    x, logits = (a.unflatten(-1, (-1, lanes)) for a in (x, logits))
    magnitudes = logits.abs()
    linear = ((x - 0.5) * logits - 0.5 * magnitudes).sum(-2)
    # no more than −|l|, but over the same axes as the sum: one loop then does both
    return (linear - (1 + (x - x - magnitudes).exp()).prod(-2).log()).sum(-1)


def _lanes(pixels: int) -> int:
    """The fewest lanes with at most 64 pixels each, a whole number of a processor's vectors of 16
    where that divides."""
    found = [n for n in range(1, pixels + 1) if pixels % n == 0 and pixels // n <= 64]
    return next((n for n in found if n % 16 == 0), found[0])


class Tanh(nn.Tanh):
    """tanh x; where no gradient is asked for as 2 sigmoid(2x) − 1, which takes half the time."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if torch.is_grad_enabled():
            return super().forward(x)
        return (2 * x).sigmoid_().mul_(2).sub_(1)
