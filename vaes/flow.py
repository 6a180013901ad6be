"""q(z|x): a diagonal Gaussian bent by a few affine coupling layers that see the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, TransformedDistribution, constraints

from vaes.base import VAE, diagonal_gaussian


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

    def posterior(self, x: Tensor) -> Distribution:
        features = self.encoder(x)
        loc, log_scale = self.location(features), self.log_scale(features)
        contexts = self.context(features).to(x.dtype).chunk(len(self.into), -1)
        transforms = [
            _AffineCoupling(i % 2 == 1, context, into.weight, out.weight, out.bias)
            for i, (context, into, out) in enumerate(zip(contexts, self.into, self.out))
        ]
        base = diagonal_gaussian(loc.to(x.dtype), log_scale.to(x.dtype).exp())
        return _FlowPosterior(base, transforms, validate_args=False)


class _AffineCoupling(Transform):
    """y = (a, b · exp s(a) + t(a)) for z = (a, b), halves swapped where `swapped`.

    (t, s) come from a network of one hidden layer on a; context `(B, width)` is its hidden bias.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(
        self, swapped: bool, context: Tensor, into: Tensor, out: Tensor, out_bias: Tensor
    ) -> None:
        super().__init__()
        self.swapped, self.context = swapped, context
        self.into, self.out, self.out_bias = into, out, out_bias

    def _halves(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The half that is kept and the one that is moved."""
        first, second = z.split([z.shape[-1] // 2, z.shape[-1] - z.shape[-1] // 2], -1)
        return (second, first) if self.swapped else (first, second)

    def _joined(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([moved, kept] if self.swapped else [kept, moved], -1)

    def _shift_and_log_scale(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(F.linear(kept, self.into) + self.context)
        shift, log_scale = F.linear(hidden, self.out, self.out_bias).chunk(2, -1)
        # bounded, so that no step can make the posterior overflow
        return shift, torch.tanh(log_scale)

    def _call(self, x: Tensor) -> Tensor:
        kept, moved = self._halves(x)
        shift, log_scale = self._shift_and_log_scale(kept)
        return self._joined(kept, moved * log_scale.exp() + shift)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_log_det(y)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._shift_and_log_scale(self._halves(x)[0])[1].sum(-1)

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x with y = call(x), and log |det dy/dx|, from one pass of the network."""
        kept, moved = self._halves(y)
        shift, log_scale = self._shift_and_log_scale(kept)
        return self._joined(kept, (moved - shift) * (-log_scale).exp()), log_scale.sum(-1)


class _FlowPosterior(TransformedDistribution):
    """A transformed distribution whose `log_prob` runs every layer's network once, not twice."""

    def log_prob(self, value: Tensor) -> Tensor:
        log_det = 0.0
        for transform in reversed(self.transforms):
            value, change = transform.inverse_and_log_det(value)
            log_det = log_det + change
        return self.base_dist.log_prob(value) - log_det
