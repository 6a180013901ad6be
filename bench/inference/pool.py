"""Gradients for many numbers of samples K at the cost of one decoding.

Estimates of K samples each are made of a pool of N, whose log p(x|z) is found once for every K and
estimator. What is compared between these shares its samples, hence is precise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from bench.inference.decoded import Known
from bench.inference.gradient_variance import PASSES_AT_ONCE, PosteriorGradient, gradients_of
from bench.inference.gradients import Estimator
from bench.inference.reparameterize import reparameterize
from bench.inference.target import Target
from vaes._shapes import Float


class Pool:
    """N samples of each image's posterior, with log p(x|z) and its derivative there.

    Arguments:
        gradient: the images' posteriors, which may share no λ.
        samples: N.

    Attributes:
        log_weights: log p(x, z) − log q(z|x) of what was drawn last, in nats.
    """

    log_weights: Float[Tensor, "N B"]

    def __init__(self, gradient: PosteriorGradient, samples: int) -> None:
        self.gradient, self.samples = gradient, samples
        self._posteriors: dict[int, tuple[Distribution, dict[str, Tensor]]] = {}

    def draw(self, generator: torch.Generator) -> Pool:
        """Exchange the samples for new ones; itself.

        Raises BenchError where the posterior is not a map of noise.
        """
        x, model = self.gradient.x, self.gradient.model
        shape = (self.samples, len(x), model.latent_dim)
        self._noise = torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)
        posterior, _ = self._repeated_posterior(1)
        with torch.no_grad():
            z = reparameterize(posterior, self._noise)
        parts = [
            _with_derivative(self.gradient, part)
            for part in z.detach().split(max(1, PASSES_AT_ONCE // len(x)))
        ]
        self._value, self._derivative = (torch.cat(part) for part in zip(*parts, strict=True))
        with torch.no_grad():
            self.log_weights = self._value + model.prior.log_prob(z) - posterior.log_prob(z)
        return self

    def gradients(self, estimator: Estimator, samples: int) -> dict[str, Float[Tensor, "R B _"]]:
        """R = N / `samples` independent estimates of every image's gradient, by path, in float64.

        `samples` divides N, and the estimator asks for that much noise, once.
        """
        images, replicates = len(self.gradient.x), self.samples // samples

        def grouped(pooled: Float[Tensor, "N B *rest"]) -> Float[Tensor, "S rows *rest"]:
            return pooled.reshape(samples, replicates * images, *pooled.shape[2:])

        posterior, repeated = self._repeated_posterior(replicates)
        known = grouped(self._value), grouped(self._derivative)
        target = Target(lambda z: Known.apply(z, *known), self.gradient.model.prior)
        surrogate = estimator(target, posterior, lambda n: grouped(self._noise), samples)
        return {
            path: g.double().reshape(replicates, images, -1)
            for path, g in gradients_of(surrogate, repeated).items()
        }

    def _repeated_posterior(self, replicates: int) -> tuple[Distribution, dict[str, Tensor]]:
        if replicates not in self._posteriors:
            self._posteriors[replicates] = self.gradient.repeated_posterior(replicates)
        return self._posteriors[replicates]


def _with_derivative(
    gradient: PosteriorGradient, z: Float[Tensor, "S B L"]
) -> tuple[Float[Tensor, "S B"], Float[Tensor, "S B L"]]:
    codes = z.clone().requires_grad_()
    value = gradient.decoded(gradient.x, codes)
    (derivative,) = torch.autograd.grad(value.sum(), codes)
    return value.detach(), derivative
