"""Variance of an estimator of the decoder's gradient, without any gradient.

An estimate is g = Σ_p c_p ∇ log p(x|z_p) over the decoder passes p it follows a gradient through,
with c_p the derivative of its surrogate by log p(x|z_p). The inner products of all ∇ log p(x|z_p)
of an image are a Gram matrix of its passes, those of estimates follow from it, and so does their
variance. Monte Carlo and data part are those of `bench.inference.gradient_variance`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bench.inference.gradient_variance import seeded
from bench.inference.gradients import ESTIMATORS
from bench.inference.gram_matrix import depended_on, gram_of_passes, norm_and_products_of_mean
from bench.inference.target import Target
from vaes import VAE
from vaes._shapes import Float


@dataclass(frozen=True)
class DecoderGradient:
    """R estimates of the decoder's gradient for each of B images, by the P passes behind them.

    Attributes:
        model: its weights take gradients.
        x, z: the images and every code that was decoded for them.
        weights: c of each pass, in the estimate it belongs to.
    """

    model: VAE
    x: Float[Tensor, "B D"]
    z: Float[Tensor, "P R B L"]
    weights: Float[Tensor, "P R B"]

    @classmethod
    def of_estimator(
        cls,
        model: VAE,
        x: Float[Tensor, "B D"],
        name: str,
        samples: int,
        replicates: int,
        generator: torch.Generator,
    ) -> DecoderGradient:
        """That of an estimator with S = `samples`; the model is copied.

        Passes that no gradient is followed through only scale scores, the encoder's business: they
        are not made. Raises BenchError where the posterior does not admit the estimator.
        """
        model = copy.deepcopy(model)
        repeated, codes, values = x.repeat(replicates, 1), [], []
        shape = (len(repeated), model.latent_dim)

        def noise(n: int) -> Float[Tensor, "S rows L"]:
            return torch.randn((n, *shape), generator=generator, dtype=x.dtype, device=x.device)

        def log_likelihood(z: Float[Tensor, "*S rows L"]) -> Float[Tensor, "*S rows"]:
            if not torch.is_grad_enabled():
                return z.new_zeros(z.shape[:-1])
            with torch.no_grad():
                value = model.log_likelihood(repeated, z)
            codes.append(z.detach())
            values.append(value.requires_grad_())
            return values[-1]

        with seeded(generator):
            # a posterior without gradient may be taken for one of constant parameters
            posterior = model.requires_grad_(True).posterior(repeated)
            target = Target(log_likelihood, model.prior)
            surrogate = ESTIMATORS[name](target, posterior, noise, samples)
        found = torch.autograd.grad(surrogate.sum(), values)
        weights = torch.cat([c.unflatten(-1, (replicates, len(x))) for c in found])
        z = torch.cat([z.unflatten(-2, (replicates, len(x))) for z in codes])
        return cls(model, x, z, weights)

    @cached_property
    def inner_products(self) -> Float[Tensor, "B R R"]:
        """Of every two estimates of an image; summed in float64 over what its passes give."""
        passes, replicates = self.weights.shape[:2]
        gram = gram_of_passes(self.model, self.x, self.z.flatten(0, 1)).double()
        gram = gram.unflatten(1, (passes, replicates)).unflatten(3, (passes, replicates))
        c = self.weights.double()
        return torch.einsum("prb,bprqs,qsb->brs", c, gram, c)

    def variances(self) -> Float[Tensor, "B"]:
        """tr Cov[g] of every image, nats², unbiased: the Monte Carlo part."""
        replicates = self.weights.shape[1]
        squares = self.inner_products.diagonal(dim1=1, dim2=2).sum(1)
        return (squares - replicates * self.inner_products.mean((1, 2))) / (replicates - 1)

    def between_images(self) -> Float[Tensor, "B"]:
        """Numbers of the images, nats², whose mean is tr Cov of E[g|x] over images, unbiased.

        The data part, as in `bench.inference.gradient_variance.between_images`.
        """
        replicates, count = self.weights.shape[1:]
        values = self.model.log_likelihood(self.x, self.z.flatten(0, 1)).T
        weights = depended_on(values.sum(), self.model.parameters())
        along = self.weights.flatten(0, 1).T / replicates
        norm, products = norm_and_products_of_mean(values, weights, along)
        away = self.inner_products.mean((1, 2)) - 2 * products.double() + norm.double()
        return count / (count - 1) * away - self.variances() / replicates
