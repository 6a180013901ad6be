"""Networks a variant can be combined with, instead of the tanh layers of `Autoencoder`.

Mixed in behind the variant's own class, like the likelihoods.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import nn

from vaes.base import Autoencoder


class LinearDecoder(Autoencoder):
    """decode(z) = W z + b; with a Gaussian likelihood, probabilistic PCA."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.decoder = nn.Sequential(nn.Linear(self.latent_dim, self.data_dim))


DECODERS: dict[str, tuple[type[Autoencoder], ...]] = {"mlp": (), "linear": (LinearDecoder,)}


class GatedLayers(Autoencoder):
    """Hidden layers (W x + b) · sigmoid(V x + c), without another activation (Dauphin et al. 2017;
    Tomczak & Welling 2018)."""

    def hidden_layers(self, *widths: int) -> Iterator[nn.Module]:
        for inputs, outputs in pairwise(widths):
            yield nn.Linear(inputs, 2 * outputs)
            yield nn.GLU()


def _with(unit: type[nn.Module]) -> tuple[type[Autoencoder], ...]:
    return (type(f"With{unit.__name__}", (Autoencoder,), {"activation": unit}),)


ACTIVATIONS: dict[str, tuple[type[Autoencoder], ...]] = {
    "tanh": (),
    "relu": _with(nn.ReLU),
    "leaky_relu": _with(nn.LeakyReLU),
    "elu": _with(nn.ELU),
    "gelu": _with(nn.GELU),
    "silu": _with(nn.SiLU),
    "softplus": _with(nn.Softplus),
}
