"""G = J Jᵀ of a posterior: J = ∂λ/∂φ from the model's weights φ to the posterior's parameters λ.

λ of one image has P numbers in all. Those of λ that are weights of the model themselves (a
flow's) take no part: their Jacobian is the identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bench.inference.tensors import tensors
from vaes import VAE
from vaes._shapes import Float

IMAGES_AT_ONCE = 16
"""Images whose Jacobians are held together: what they take beside G does not grow with more."""


def parameters_of(posterior: Distribution) -> dict[str, Tensor]:
    """λ by path: the tensors the posterior is made of that follow from weights, or are some."""
    return {path: t for path, t in tensors(posterior).items() if t.requires_grad}


def depended_on(value: Float[Tensor, ""], candidates: Iterable[Tensor]) -> list[Tensor]:
    """Those of the candidates on which a scalar depends."""
    candidates = list(candidates)
    if not candidates:
        return []
    found = torch.autograd.grad(value, candidates, retain_graph=True, allow_unused=True)
    return [c for c, g in zip(candidates, found, strict=True) if g is not None]


def varying_paths(model: VAE, x: Float[Tensor, "B D"]) -> frozenset[str]:
    """Paths of the λ that have a batch axis."""
    one, two = (parameters_of(model.posterior(x[:1].expand(n, -1))) for n in (1, 2))
    return frozenset(path for path in one if one[path].shape != two[path].shape)


def gram_matrix(
    model: VAE, x: Float[Tensor, "B D"], varying: frozenset[str]
) -> tuple[Float[Tensor, "B P P"], tuple[str, ...]]:
    """G for every image, and the paths of the λ it leaves out, which are weights of the model.

    `varying` are the paths of the λ that have a batch axis.
    """
    first, left_out = _gram_matrix(model, x[:IMAGES_AT_ONCE], varying)
    gram = first.new_empty(len(x), *first.shape[1:])
    gram[:IMAGES_AT_ONCE] = first
    for start in range(IMAGES_AT_ONCE, len(x), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        gram[part], _ = _gram_matrix(model, x[part], varying)
    return gram, left_out


def _gram_matrix(
    model: VAE, x: Float[Tensor, "B D"], varying: frozenset[str]
) -> tuple[Float[Tensor, "B P P"], tuple[str, ...]]:
    """`gram_matrix` of a few images at once."""
    calls: list[_Call] = []
    hooks = [
        module.register_forward_hook(lambda m, a, out: calls.append(_Call(m, a[0], out)))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    held = parameters_of(model.posterior(x))
    for hook in hooks:
        hook.remove()
    leaves = {path: t for path, t in held.items() if t.is_leaf}
    bound = [path for path in held if path not in leaves]
    if bound:
        ancestors = depended_on(sum(held[path].sum() for path in bound), leaves.values())
        bound += [path for path, t in leaves.items() if any(t is a for a in ancestors)]
    left_out = tuple(path for path in held if path not in bound)
    parts = [
        held[p] if p in varying else held[p].expand(len(x), *held[p].shape)
        for p in held
        if p not in left_out
    ]
    if not parts:
        return x.new_zeros(len(x), 0, 0), left_out
    flat = torch.cat([part.reshape(len(x), -1) for part in parts], 1)
    weights = depended_on(flat.sum(), model.parameters())
    gram = _gram_of_layers(flat, weights, calls)
    direction = torch.sin(torch.arange(flat.shape[1], dtype=x.dtype, device=x.device) + 1)
    exact = torch.autograd.grad(flat[0] @ direction, weights, retain_graph=True)
    expected = sum(g.square().sum() for g in exact)
    if not torch.isclose(direction @ gram[0] @ direction, expected, rtol=1e-8):
        gram = _gram_of_layers(flat, weights, [])  # a layer's weights are used in other ways too
    return gram, left_out


@dataclass(frozen=True)
class _Call:
    """One use of a linear layer."""

    layer: nn.Linear
    input: Float[Tensor, "*B inputs"]
    output: Float[Tensor, "*B outputs"]


def _gram_of_layers(
    flat: Float[Tensor, "B P"], weights: list[Tensor], calls: list[_Call]
) -> Float[Tensor, "B P P"]:
    """J Jᵀ of λ with respect to the weights.

    An image's ∂λ/∂W of a linear layer is δ aᵀ with δ = ∂λ/∂output and a its input, so that its
    share is (‖a‖² + 1) δ δᵀ (Goodfellow 2015) and ∂λ/∂W is never formed. Weights outside
    of such layers are differentiated image by image.
    """
    images, p = flat.shape
    unit = torch.eye(p, dtype=flat.dtype, device=flat.device)
    once = [c for c in calls if any(c.layer.weight is w for w in weights) and c.input.dim() == 2]
    gram = flat.new_zeros(images, p, p)
    if once:
        along = unit.unsqueeze(1).expand(p, images, p)
        deltas = torch.autograd.grad(
            flat, [c.output for c in once], along, retain_graph=True, is_grads_batched=True
        )
        for call, delta in zip(once, deltas, strict=True):
            length = call.input.detach().square().sum(1) + (call.layer.bias is not None)
            gram += torch.einsum("pbo,qbo->bpq", delta, delta) * length.view(-1, 1, 1)
    covered = {id(w) for call in once for w in call.layer.parameters()}
    rest = [w for w in weights if id(w) not in covered]
    for image in range(images if rest else 0):
        rows = torch.autograd.grad(
            flat[image], rest, unit, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
        for row in rows:
            if row is not None:
                row = row.reshape(p, -1)  # a weight may be a scalar
                gram[image] += row @ row.T
    return gram
