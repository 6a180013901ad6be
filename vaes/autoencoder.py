"""The plain autoencoder: a deterministic code, trained on the cross-entropy alone."""

from vaes.base import Autoencoder


class PlainAutoencoder(Autoencoder):
    """z = encode(x). No posterior, so no ELBO and no uncertainty about the code."""

    rank = 0
