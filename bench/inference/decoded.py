"""log p(x|z) of very many codes z, with its gradient, as one native function.

What the variance of a gradient costs is decoder passes; see `bench.inference.gradient_variance`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.inference.compiled import Compiled
from vaes import VAE
from vaes._shapes import Float

LogLikelihood = Callable[[Float[Tensor, "B D"], Float[Tensor, "S B L"]], Float[Tensor, "S B"]]


class CompiledLogLikelihood:
    """`model.log_likelihood(x, z)`, differentiable by z alone, for one number of codes at once.

    Each log p(x_b|z_sb) depends on one code, so that its derivative is found with it and kept in
    the place of all activations. Others take the model's own function. Arguments:
        model: float32, on a CPU; its weights take no gradient.
        x: images, an example.
        samples: codes an image, S.

    Raises NotCompiled with the reason where it cannot be had.
    """

    def __init__(self, model: VAE, x: Float[Tensor, "B D"], samples: int) -> None:
        self.model, self.shape = model, (samples, len(x), model.latent_dim)
        example = model, x, x.new_zeros(self.shape)
        self._compiled = Compiled(_with_derivative, example)

    def __call__(
        self, x: Float[Tensor, "B D"], z: Float[Tensor, "S B L"]
    ) -> Float[Tensor, "S B"]:
        if z.shape != self.shape or not (torch.is_grad_enabled() and z.requires_grad):
            return self.model.log_likelihood(x, z)
        return _Decoded.apply(z, x, self.model, self._compiled)


def _with_derivative(model: VAE, x: Tensor, z: Tensor) -> list[Tensor]:
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        value = model.log_likelihood(x, leaf)
        (derivative,) = torch.autograd.grad(value.sum(), leaf)
    return [value.detach(), derivative]


class _Decoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, x: Tensor, model: VAE, compiled: Compiled) -> Tensor:
        value, derivative = compiled(model, x, z.detach())
        ctx.save_for_backward(derivative)
        return value

    @staticmethod
    def backward(ctx, along: Tensor) -> tuple[Tensor, None, None, None]:
        (derivative,) = ctx.saved_tensors
        return derivative * along.unsqueeze(-1), None, None, None
