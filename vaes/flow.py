"""q(z|x): a diagonal Gaussian bent by a few affine coupling layers that see the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, TransformedDistribution, constraints

from vaes._shapes import Float
from vaes.base import INITIAL_LOG_SCALE, VAE, diagonal_gaussian


class Flow(VAE):
    """A RealNVP posterior (Rezende & Mohamed 2015; Dinh et al. 2017).

    Coupling layers invert at the price of a forward pass, so log q(z|x) is known at any z. Each
    layer's network adds a context computed from the image to its hidden units.

    Arguments:
        layers: coupling layers; they transform the two halves of z in turn.
        width: hidden units of a layer's network.
    """

    rank = 5

    def __init__(self, *args, layers: int = 4, width: int = 32, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Linear(self.hidden_dim, self.latent_dim)
        nn.init.constant_(self.log_scale.bias, INITIAL_LOG_SCALE)
        self.context = nn.Linear(self.hidden_dim, layers * width)
        first = self.latent_dim // 2
        second = self.latent_dim - first
        sizes = [(first, second) if i % 2 == 0 else (second, first) for i in range(layers)]
        self.into = nn.ModuleList(nn.Linear(kept, width, bias=False) for kept, _ in sizes)
        self.out = nn.ModuleList(nn.Linear(width, 2 * moved) for _, moved in sizes)
        # the identity is where training starts
        for layer in self.out:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def posterior(self, x: Float[Tensor, "B D"]) -> Distribution:
        features = self.encoder(x)
        loc, log_scale = self.location(features), self.log_scale(features)
        context = self.context(features).to(x.dtype)
        into = tuple(layer.weight for layer in self.into)
        out = tuple((layer.weight, layer.bias) for layer in self.out)
        base = diagonal_gaussian(loc.to(x.dtype), log_scale.to(x.dtype).exp())
        return CouplingFlow(base, [_Couplings(context, into, out)], validate_args=False)


class _Couplings(Transform):
    """Affine coupling layers: b ← b · exp s(a) + t(a) for z = (a, b), then a and b swap roles.

    A layer's (t, s) come from a network of one hidden layer on a.

    Arguments:
        context: hidden biases of all layers.
        into, out: each layer's weight to, and weight and bias from, its hidden units.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(
        self,
        context: Float[Tensor, "B layers_width"],
        into: tuple[Float[Tensor, "width _"], ...],
        out: tuple[tuple[Float[Tensor, "_ width"], Float[Tensor, "_"]], ...],
    ) -> None:
        super().__init__()
        self.context, self.into, self.out = context, into, out

    def _networks(
        self,
    ) -> list[
        tuple[
            Float[Tensor, "B width"],
            Float[Tensor, "width _"],
            Float[Tensor, "_ width"],
            Float[Tensor, "_"],
        ]
    ]:
        """(context, weight in, weight out, bias out) of each layer, first to last."""
        contexts = self.context.chunk(len(self.into), -1)
        return [(c, i, *o) for c, i, o in zip(contexts, self.into, self.out)]

    def _halves(
        self, z: Float[Tensor, "*B L"]
    ) -> tuple[Float[Tensor, "*B first"], Float[Tensor, "*B second"]]:
        return z.split([z.shape[-1] // 2, z.shape[-1] - z.shape[-1] // 2], -1)

    def _call(self, x: Float[Tensor, "*B L"]) -> Float[Tensor, "*B L"]:
        kept, moved = self._halves(x)
        for network in self._networks():
            shift, log_scale = _shift_and_log_scale(kept, *network)
            kept, moved = torch.addcmul(shift, moved, log_scale.exp()), kept
        return torch.cat([moved, kept] if len(self.into) % 2 else [kept, moved], -1)

    def _inverse(self, y: Float[Tensor, "*B L"]) -> Float[Tensor, "*B L"]:
        return self.inverse_and_log_det(y)[0]

    def log_abs_det_jacobian(
        self, x: Float[Tensor, "*B L"], y: Float[Tensor, "*B L"]
    ) -> Float[Tensor, "*B"]:
        return self.inverse_and_log_det(y)[1]

    def inverse_and_log_det(
        self, y: Float[Tensor, "*B L"]
    ) -> tuple[Float[Tensor, "*B L"], Float[Tensor, "*B"]]:
        """x with y = call(x), and log |det dy/dx|, from one pass of the networks."""
        kept, moved = self._halves(y)
        if len(self.into) % 2:
            kept, moved = moved, kept
        log_scales = []
        for network in reversed(self._networks()):
            shift, log_scale = _shift_and_log_scale(moved, *network)
            kept, moved = moved, (kept - shift) * (-log_scale).exp()
            log_scales.append(log_scale)
        return torch.cat([kept, moved], -1), torch.cat(log_scales, -1).sum(-1)


def _shift_and_log_scale(
    kept: Float[Tensor, "*S B kept"],
    context: Float[Tensor, "B width"],
    into: Float[Tensor, "width kept"],
    out: Float[Tensor, "both width"],
    bias: Float[Tensor, "both"],
) -> tuple[Float[Tensor, "*S B moved"], Float[Tensor, "*S B moved"]]:
    hidden = torch.tanh(F.linear(kept, into) + context)
    shift, log_scale = F.linear(hidden, out, bias).chunk(2, -1)
    # bounded, so that no step can make the posterior overflow
    return shift, torch.tanh(log_scale)


class CouplingFlow(TransformedDistribution):
    """A transformed distribution whose `log_prob` runs the layers' networks once, not twice."""

    def log_prob(self, value: Float[Tensor, "*B L"]) -> Float[Tensor, "*B"]:
        (couplings,) = self.transforms
        noise, log_det = couplings.inverse_and_log_det(value)
        return self.base_dist.log_prob(noise) - log_det
