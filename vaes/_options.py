"""What a variant can be combined with: another likelihood, another decoder.

Mixed in behind the variant's own class, so that they replace what `Autoencoder` gives to every
variant but nothing a variant defines itself.
"""

import math

import torch
from torch import Tensor, nn

from vaes.base import Autoencoder


class GaussianLikelihood(Autoencoder):
    """p(x|z) = N(x; decode(z), s² I) for real-valued x, with s one learned number."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.log_noise = nn.Parameter(torch.zeros(()))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), a log density: x `(B, D)`, z `(..., B, L)` → `(..., B)`, in nats."""
        squares = (x - self.decode(z).to(x.dtype)).square().sum(-1)
        log_normalizer = self.data_dim * (self.log_noise + 0.5 * math.log(2 * math.pi))
        return -0.5 * squares * (-2 * self.log_noise).exp() - log_normalizer

    @torch.no_grad()
    def initialise_output(self, mean: Tensor) -> None:
        """Set the output bias to the training mean; mean `(D,)`."""
        self.decoder[-1].bias.copy_(mean)


class LinearDecoder(Autoencoder):
    """decode(z) = W z + b; with a Gaussian likelihood, probabilistic PCA."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.decoder = nn.Sequential(nn.Linear(self.latent_dim, self.data_dim))


LIKELIHOODS: dict[str, tuple[type[Autoencoder], ...]] = {
    "bernoulli": (),
    "gaussian": (GaussianLikelihood,),
}
DECODERS: dict[str, tuple[type[Autoencoder], ...]] = {"mlp": (), "linear": (LinearDecoder,)}


def with_options(
    variant: type[Autoencoder], likelihood: str = "bernoulli", decoder: str = "mlp"
) -> type[Autoencoder]:
    """The variant's class with a likelihood and a decoder; the class itself for the defaults.

    Raises KeyError for a name that is not in `LIKELIHOODS` or `DECODERS`.
    """
    mixins = (*LIKELIHOODS[likelihood], *DECODERS[decoder])
    if not mixins:
        return variant
    names = {"__module__": variant.__module__, "__qualname__": variant.__qualname__}
    return type(variant)(variant.__name__, (variant, *mixins), names)
