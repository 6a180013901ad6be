"""What a gradient estimator estimates the gradient of: the ELBO's integrand for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Distribution

from bench.errors import BenchError
from bench.inference.divergence import divergence, divergence_by_latent
from vaes._shapes import Float


@dataclass(frozen=True)
class Target:
    """The ELBO's integrand for a batch.

    Attributes:
        log_likelihood: z → log p(x|z), in nats.
        prior: p(z), event shape `(L,)`.
        kl_weight: weight of the KL, 1 for the ELBO itself (less during warm-up).
        free_bits: nats of each latent's KL that cost nothing, 0 for the ELBO itself.
    """

    log_likelihood: Callable[[Float[Tensor, "S *B L"]], Float[Tensor, "S *B"]]
    prior: Distribution
    kl_weight: float | Float[Tensor, ""] = 1.0
    free_bits: float = 0.0

    def rate(self, posterior: Distribution) -> Float[Tensor, "*B"]:
        """kl_weight · KL(q || p) in closed form.

        With free bits λ it is Σ_l max(λ, KL_l), where KL_l is a mean over the batch (Kingma et al.
        2016, eq. 15). Raises NotImplementedError where torch knows no formula, BenchError where
        free bits make no sense.
        """
        if not self.free_bits:
            return self.kl_weight * divergence(posterior, self.prior)
        by_latent = divergence_by_latent(posterior, self.prior)
        free = by_latent.flatten(0, -2).mean(0) < self.free_bits
        return self.kl_weight * by_latent.where(~free, self.free_bits).sum(-1)

    def log_prior(self, z: Float[Tensor, "S *B L"]) -> Float[Tensor, "S *B"]:
        """log p(z), for a KL that is sampled; raises BenchError with free bits, which are of one in
        closed form."""
        if self.free_bits:
            raise BenchError(
                "free bits are of a KL in closed form, and here it is sampled: leave out "
                "--free-bits, or the variant or estimator"
            )
        return self.prior.log_prob(z)

    def log_weight(
        self, posterior: Distribution, z: Float[Tensor, "S *B L"]
    ) -> Float[Tensor, "S *B"]:
        """f(z) = log p(x|z) + kl_weight · (log p(z) − log q(z|x))."""
        ratio = self.log_prior(z) - posterior.log_prob(z)
        return self.log_likelihood(z) + self.kl_weight * ratio
