"""Networks a variant can be combined with, instead of the tanh layers of `Autoencoder`.

Mixed in behind the variant's own class, like the likelihoods.
"""

from __future__ import annotations

from torch import nn

from vaes.base import Autoencoder


class LinearDecoder(Autoencoder):
    """decode(z) = W z + b; with a Gaussian likelihood, probabilistic PCA."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.decoder = nn.Sequential(nn.Linear(self.latent_dim, self.data_dim))


DECODERS: dict[str, tuple[type[Autoencoder], ...]] = {"mlp": (), "linear": (LinearDecoder,)}


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
