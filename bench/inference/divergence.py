"""KL(q(z|x) || p(z)) in closed form, of an image or of each of its latents."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from bench.errors import BenchError
from vaes._shapes import Float


def divergence(posterior: Distribution, prior: Distribution) -> Float[Tensor, "*B"]:
    """KL(q || p) of each image, in nats.

    Raises NotImplementedError where torch knows no formula.
    """
    # some of torch's formulas want both of one shape
    return kl_divergence(posterior, prior.expand(posterior.batch_shape))


def divergence_by_latent(posterior: Distribution, prior: Distribution) -> Float[Tensor, "*B L"]:
    """KL(q || p) of each latent, in nats, where latents are independent in both.

    Raises BenchError where they are not, NotImplementedError where torch knows no formula.
    """
    shared = prior.expand(posterior.batch_shape)
    for what in (posterior, shared):
        if not isinstance(what, Independent) or what.reinterpreted_batch_ndims != 1:
            raise BenchError(
                f"free bits are of each latent's KL, and the latents of {type(what).__name__} are "
                "not independent: leave out --free-bits, or the variant"
            )
    return kl_divergence(posterior.base_dist, shared.base_dist)
