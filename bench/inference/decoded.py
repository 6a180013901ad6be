"""log p(x|z) of very many codes z, with its gradient, as one native function.

What the variance of a gradient costs is decoder passes; see `bench.inference.gradient_variance`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.inference.compiled import Compiled, where_it_pays
from vaes import VAE
from vaes._shapes import Float

LogLikelihood = Callable[[Float[Tensor, "B D"], Float[Tensor, "S B L"]], Float[Tensor, "S B"]]
"""(x, z) → log p(x|z), in nats."""


WORTHWHILE = 1e11
"""Decoder passes × weights from which compiling them pays: that takes some 3 s for the first of all
runs with that decoder and 1 s, from the disk, for the others, and saves almost half of the time."""
AT_ONCE = 1024
"""Decoder passes in one call: their activations stay in a processor's cache."""
MOST_AT_ONCE = 5120
"""Decoder passes in one call of `in_parts`: the decoder's activations grow neither with S nor with
the number of images."""


class CompiledLogLikelihood:
    """`model.log_likelihood(x, z)` for given images, differentiable by z alone.

    Each log p(x_b|z_sb) depends on one code, so that its derivative is found with it and kept in
    the place of all activations. Codes that need no gradient, and what is left over of multiples of
    `samples`, take the model's own function. Arguments:
        model: float32, on a CPU; its weights take no gradient.
        x: the images.
        samples: codes an image in one call.

    Raises NotCompiled with the reason where it cannot be had.
    """

    def __init__(self, model: VAE, x: Float[Tensor, "B D"], samples: int) -> None:
        self.model, self.samples, self.images = model, samples, len(x)
        self._decoder = what_decodes(model, x)
        example = self._decoder, x, x.new_zeros(samples, len(x), model.latent_dim)
        self._compiled = Compiled(_with_derivative, example)

    def __call__(self, x: Float[Tensor, "B D"], z: Float[Tensor, "S B L"]) -> Float[Tensor, "S B"]:
        if len(x) != self.images or not (torch.is_grad_enabled() and z.requires_grad):
            return self.model.log_likelihood(x, z)
        parts = [
            Known.apply(part, *self._compiled(self._decoder, x, part.detach()))
            if len(part) == self.samples
            else self.model.log_likelihood(x, part)
            for part in z.split(self.samples)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.no_grad()
def what_decodes(model: VAE, x: Float[Tensor, "B D"]) -> VAE:
    """The model without what its log p(x|z) makes no use of, so that models that differ in their
    posteriors alone share what was compiled; or as it is, where that cannot be told."""
    z = torch.linspace(-1, 1, model.latent_dim, dtype=x.dtype, device=x.device).expand(1, 1, -1)
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *given, name=name: called.add(name))
        for name, module in model.named_children()
    ]
    try:
        whole = model.log_likelihood(x[:1], z)
    finally:
        for hook in hooks:
            hook.remove()
    part = copy.copy(model)
    part.__dict__["_modules"] = {name: model._modules[name] for name in sorted(called)}
    part.__dict__["_parameters"], part.__dict__["_buffers"] = {}, {}
    with suppress(Exception):  # it may reach for what it does not call
        if torch.equal(part.log_likelihood(x[:1], z), whole):
            return part
    return model


def log_likelihood_for(
    model: VAE, x: Float[Tensor, "B D"], passes: int
) -> tuple[LogLikelihood, str]:
    """`model.log_likelihood`, compiled where that pays; and why not where it would have paid.

    `passes` of the decoder are to come.
    """
    compiled = partial(CompiledLogLikelihood, model, x, max(1, AT_ONCE // len(x)))
    own = model.log_likelihood
    return where_it_pays(own, compiled, "log p(x|z)", model, x, passes, WORTHWHILE)


def _with_derivative(model: VAE, x: Tensor, z: Tensor) -> list[Tensor]:
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        value = model.log_likelihood(x, leaf)
        (derivative,) = torch.autograd.grad(value.sum(), leaf)
    return [value.detach(), derivative]


class Known(torch.autograd.Function):
    """log p(x|z) whose value and derivative at z were found before."""

    @staticmethod
    def forward(ctx, z: Tensor, value: Tensor, derivative: Tensor) -> Tensor:
        ctx.save_for_backward(derivative)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, along: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        return derivative * along.unsqueeze(-1), None, None


def in_parts(
    decoded: LogLikelihood, x: Float[Tensor, "B D"], z: Float[Tensor, "S B L"]
) -> Float[Tensor, "S B"]:
    """`decoded(x, z)` of any number of codes, by at most `MOST_AT_ONCE` decoder passes at once.

    Differentiable by z alone.
    """
    if z.shape[:-1].numel() <= MOST_AT_ONCE:
        return decoded(x, z)
    return _InParts.apply(z, decoded, x)


class _InParts(torch.autograd.Function):
    """log p(x|z), part by part; backward each part is decoded again, so that none is kept."""

    @staticmethod
    def forward(ctx, z: Tensor, decoded: LogLikelihood, x: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        ctx.decoded, ctx.x = decoded, x
        found = torch.empty(z.shape[:-1], dtype=x.dtype, device=x.device)
        for images, place in _parts(x, z):
            found[place] = decoded(images, z[place])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, along: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        found = torch.empty_like(z)
        for images, place in _parts(ctx.x, z):
            with torch.enable_grad():
                codes = z[place].detach().requires_grad_()
                value = ctx.decoded(images, codes)
            (found[place],) = torch.autograd.grad(value, codes, along[place])
        return found, None, None


def _parts(
    x: Float[Tensor, "B D"], z: Float[Tensor, "S B L"]
) -> Iterator[tuple[Float[Tensor, "b D"], tuple[slice, slice]]]:
    """A few images, and where their codes stand in z, of at most `MOST_AT_ONCE` passes a part."""
    images = min(len(x), MOST_AT_ONCE)
    samples = max(1, MOST_AT_ONCE // images)
    for first in range(0, len(x), images):
        for start in range(0, len(z), samples):
            yield (
                x[first : first + images],
                (slice(start, start + samples), slice(first, first + images)),
            )
