"""G = J Jᵀ: J from a model's weights to some numbers of each image, without J itself.

For an encoder the numbers are the posterior's parameters λ, P of one image; those of λ that are
weights of the model themselves (a flow's) take no part: their Jacobian is the identity. For a
decoder they are the log p(x|z) of an image's P codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import grad, vmap

from bench.inference.tensors import substitute, tensors
from vaes import VAE
from vaes._shapes import Float

IMAGES_AT_ONCE = 16
"""Images whose Jacobians are held together: what they take beside G does not grow with more."""


def parameters_of(posterior: Distribution) -> dict[str, Tensor]:
    """λ by path: the tensors the posterior is made of that follow from weights, or are some."""
    return {path: t for path, t in tensors(posterior).items() if t.requires_grad}


def doubles(held: Mapping[str, Tensor]) -> dict[str, str]:
    """Path of a tensor that is another one's very memory → the first path to that.

    A posterior may hold its scale twice, as given and expanded; their Jacobians are the same.
    """
    first: dict[tuple, str] = {}
    found = {}
    for path, t in held.items():
        memory = first.setdefault((t.data_ptr(), t.shape, t.stride(), t.is_leaf), path)
        if memory != path and t.numel():
            found[path] = memory
    return found


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
) -> tuple[Float[Tensor, "B Q Q"], Tensor, tuple[str, ...]]:
    """G for every image, of which of the P numbers `(Q,)`, and the paths of the λ left out.

    Left out are weights of the model; of the others those that follow from no weight (half of a
    triangular matrix) have no line in G. `varying` are the paths of the λ that have a batch axis.
    """
    parts = []
    for images in x.split(IMAGES_AT_ONCE):
        gram, left_out = _gram_matrix(model, images, varying)
        free = gram.diagonal(dim1=1, dim2=2).any(0).nonzero().squeeze(1)
        parts.append((gram[:, free][..., free], free))
    places = torch.cat([free for _, free in parts]).unique()
    whole = x.new_zeros(len(x), len(places), len(places))
    for images, (gram, free) in zip(whole.split(IMAGES_AT_ONCE), parts, strict=True):
        at = torch.searchsorted(places, free)
        images[:, at[:, None], at] = gram
    return whole, places, left_out


def _gram_matrix(
    model: VAE, x: Float[Tensor, "B D"], varying: frozenset[str]
) -> tuple[Float[Tensor, "B P P"], tuple[str, ...]]:
    """`gram_matrix` of a few images at once."""
    with _calls_of_linear_layers(model) as calls:
        flat, left_out = bound_parameters(model, x, varying)
    if not flat.shape[1]:
        return x.new_zeros(len(x), 0, 0), left_out
    weights = depended_on(flat.sum(), model.parameters())
    gram = _gram_of_layers(flat, weights, calls)
    direction = _direction(flat.shape[1], x)
    exact = torch.autograd.grad(flat[0] @ direction, weights, retain_graph=True)
    expected = sum(g.square().sum() for g in exact)
    if not torch.isclose(direction @ gram[0] @ direction, expected, rtol=1e-8):
        gram = _gram_of_layers(flat, weights, [])  # a layer's weights are used in other ways too
    return gram, left_out


def bound_parameters(
    model: VAE, x: Float[Tensor, "B D"], varying: frozenset[str]
) -> tuple[Float[Tensor, "B P"], tuple[str, ...]]:
    """The numbers λ of every image that follow from weights, and the paths of those left out.

    Each number once, see `doubles`; `varying` are the paths of the λ that have a batch axis.
    """
    held = parameters_of(model.posterior(x))
    leaves = {path: t for path, t in held.items() if t.is_leaf}
    bound = [path for path in held if path not in leaves]
    if bound:
        ancestors = depended_on(sum(held[path].sum() for path in bound), leaves.values())
        bound += [path for path, t in leaves.items() if any(t is a for a in ancestors)]
    left_out, twice = tuple(path for path in held if path not in bound), doubles(held)
    parts = [
        held[p] if p in varying else held[p].expand(len(x), *held[p].shape)
        for p in held
        if p not in left_out and p not in twice
    ]
    none = x.new_zeros(len(x), 0)
    return torch.cat([none, *(part.reshape(len(x), -1) for part in parts)], 1), left_out


def norm_and_products_of_mean(
    numbers: Float[Tensor, "B P"],
    weights: Sequence[Tensor],
    along: Float[Tensor, "B P"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "B"]]:
    """‖M‖² and M · g_n, M the mean over the images of g_n = J_nᵀ a_n; no g_n is formed.

    J_n is the Jacobian of the image's numbers with respect to the weights, a_n its row of `along`.
    M is one backward pass; J_n M, the derivative of that pass by a_n, is another.
    """
    a = along.detach().requires_grad_()
    summed = torch.autograd.grad(numbers, weights, a, create_graph=True)
    mean = [g.detach() / len(numbers) for g in summed]
    (derivative,) = torch.autograd.grad(sum((g * m).sum() for g, m in zip(summed, mean)), a)
    return sum(m.square().sum() for m in mean), (derivative * along).sum(1)


def gram_of_passes(
    model: VAE, x: Float[Tensor, "B D"], z: Float[Tensor, "P B L"]
) -> Float[Tensor, "B P P"]:
    """J Jᵀ of log p(x|z), one number a code, with respect to every weight it depends on.

    A linear layer's ∂ log p(x|z)/∂W of one code is δ aᵀ with δ = ∂ log p/∂output and a its input,
    so that the product of two codes' is (a · a' + 1)(δ · δ') (Goodfellow 2015). Other weights are
    differentiated code by code. The model's weights must take gradients.
    """
    with _calls_of_linear_layers(model) as calls:
        values = model.log_likelihood(x, z)
    weights = depended_on(values.sum(), model.parameters())
    once = [c for c in calls if any(c.layer.weight is w for w in weights) and c.input.dim() == 3]
    gram = x.new_zeros(len(x), len(z), len(z))
    if once:
        outputs = [call.output for call in once]
        deltas = torch.autograd.grad(values.sum(), outputs, retain_graph=True)
        for call, delta in zip(once, deltas, strict=True):
            a, delta = call.input.detach().transpose(0, 1), delta.transpose(0, 1)
            gram += (a @ a.mT + (call.layer.bias is not None)) * (delta @ delta.mT)
    covered = {id(w) for call in once for w in call.layer.parameters()}
    gram += _gram_code_by_code(model, x, z, [w for w in weights if id(w) not in covered])
    direction = _direction(len(z), x)
    exact = torch.autograd.grad(values[:, 0] @ direction, weights)
    expected = sum(g.square().sum() for g in exact)
    if torch.isclose(direction @ gram[0] @ direction, expected, rtol=1e-3):
        return gram
    return _gram_code_by_code(model, x, z, weights)  # a layer's weights are used in other ways too


def _gram_code_by_code(
    model: VAE, x: Float[Tensor, "B D"], z: Float[Tensor, "P B L"], weights: list[Tensor]
) -> Float[Tensor, "B P P"]:
    """J Jᵀ of log p(x|z) with respect to these weights, from every code's own gradient."""
    gram = x.new_zeros(len(x), len(z), len(z))
    if not weights:
        return gram

    def log_likelihood(
        values: list[Tensor], x: Float[Tensor, "B D"], z: Float[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        return substitute(model, weights, values).log_likelihood(x, z).sum()

    of_codes = vmap(grad(log_likelihood), in_dims=(None, None, 0))
    fixed = [w.detach() for w in weights]
    for image in range(len(x)):
        for g in of_codes(fixed, x[image : image + 1], z[:, image : image + 1]):
            rows = g.detach().reshape(len(z), -1)  # a weight may be a scalar
            gram[image] += rows @ rows.T
    return gram


def _direction(numbers: int, like: Tensor) -> Float[Tensor, "P"]:
    """Along which a Gram matrix is checked against one backward pass."""
    return torch.sin(torch.arange(numbers, dtype=like.dtype, device=like.device) + 1)


@contextmanager
def _calls_of_linear_layers(model: nn.Module) -> Iterator[list[_Call]]:
    """Every use of a linear layer of the model meanwhile."""
    calls: list[_Call] = []
    hooks = [
        module.register_forward_hook(lambda m, a, out: calls.append(_Call(m, a[0], out)))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


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
        free = torch.stack([delta.flatten(1).any(1) for delta in deltas]).any(0)
        at = free.nonzero().squeeze(1)
        scaled = []
        for call, delta in zip(once, deltas, strict=True):
            length = call.input.detach().square().sum(1) + (call.layer.bias is not None)
            scaled.append(delta[at].transpose(0, 1) * length.sqrt().view(-1, 1, 1))
        rows = torch.cat(scaled, -1)
        gram[:, at[:, None], at] = rows @ rows.mT
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
