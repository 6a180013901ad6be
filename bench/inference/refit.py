"""The locally optimised posterior: what an encoder would return for an image if it were perfect.

Cremer, Li & Duvenaud (2018), "Inference suboptimality in variational autoencoders": with the
decoder fixed, the parameters of q(z) are optimised for each image's ELBO on their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution, transform_to
from torch.distributions.constraints import Constraint, real

from bench.errors import BenchError
from bench.inference.gradients import estimator_for, sticking_the_landing
from bench.inference.reparameterize import standard_normal
from bench.inference.target import Target
from bench.inference.tensors import detached
from vaes import VAE
from vaes._shapes import Float

LEARNING_RATE = 0.03

Map = Callable[[Tensor, Constraint], Tensor]


def fit_posterior(
    model: VAE,
    x: Float[Tensor, "B D"],
    generator: torch.Generator,
    steps: int = 200,
    samples: int = 4,
    vector_rate: float = LEARNING_RATE,
    decay: float = 1.0,
) -> Distribution:
    """The posterior of the model's own family that maximises each image's ELBO, decoder fixed.

    Gradient ascent (Adam, its rate falling to 0 as (1 − step/steps)^decay) from the encoder's
    answer, for all images of x at once; `samples` noise samples an image and step. Images that are
    far from what the model knows need a larger `vector_rate`, that of parameters which are vectors
    (a location, a log scale): their best code lies far from the encoder's. Returns a distribution
    of batch shape `(B,)` and event shape `(L,)`, without gradient.

    Free are those parameters of q(z|x) that depend on x, each in unconstrained coordinates
    (a scale through its logarithm, a Cholesky factor through its lower triangle and log
    diagonal). What a variant shares between images stays as trained: a fixed or learned common
    scale, the weights of a flow's networks.

    Raises BenchError where the optimisation leaves the finite numbers, or nothing depends on x.
    """
    model = copy.deepcopy(model).requires_grad_(False)
    with torch.enable_grad():
        amortized = model.posterior(x.detach().requires_grad_())
        free = free_parameters(amortized)
        if not free:
            raise BenchError(
                f"{type(model).__name__}: no parameter of q(z|x) depends on x, so there is "
                "nothing to fit to an image"
            )
        # its noise vanishes as q nears the true posterior, where the others' would move q away
        estimator = (
            sticking_the_landing
            if amortized.has_rsample
            else estimator_for("auto", amortized, model.prior)
        )
        # a matrix's entries lie on the scale of σ, however far the location has to go
        rates = [vector_rate if value.dim() <= 2 else LEARNING_RATE for value in free]
        optimizer = torch.optim.Adam([{"params": [value]} for value in free])
        noise = standard_normal(len(x), model.latent_dim, generator)
        target = Target(lambda z: model.log_likelihood(x, z), model.prior)
        for step in range(steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - step / steps) ** decay
            posterior = with_parameters(amortized, free)
            elbo = estimator(target, posterior, lambda n: noise(n).to(x.dtype), samples)
            optimizer.zero_grad(set_to_none=True)
            (-elbo.sum()).backward()
            optimizer.step()
    if not all(value.isfinite().all() for value in free):
        raise BenchError(
            f"{type(model).__name__}: the locally optimised posterior is not finite after "
            f"{steps} steps; try fewer steps or more samples"
        )
    return detached(with_parameters(amortized, free))


def free_parameters(posterior: Distribution) -> list[Tensor]:
    """The parameters that require a gradient, as new unconstrained leaves."""
    free: list[Tensor] = []

    def collect(value: Tensor, constraint: Constraint) -> Tensor:
        if value.requires_grad:
            # a copy: an expanded or shared tensor cannot be stepped in place
            leaf = transform_to(constraint).inv(value.detach()).clone()
            free.append(leaf.requires_grad_())
        return value

    map_parameters(posterior, collect)
    return free


def with_parameters(posterior: Distribution, free: list[Tensor]) -> Distribution:
    """The same posterior with `free` (unconstrained) where `free_parameters` found values."""
    values = iter(free)

    def place(value: Tensor, constraint: Constraint) -> Tensor:
        return transform_to(constraint)(next(values)) if value.requires_grad else value

    return map_parameters(posterior, place)


@singledispatch
def map_parameters(posterior: Distribution, function: Map) -> Distribution:
    """The posterior with every parameter tensor p replaced by function(p, its constraint).

    A distribution made of others (a mixture, say) registers how to reach its parts.
    """
    names = [name for name in type(posterior).arg_constraints if name in vars(posterior)]
    # a multivariate Gaussian may have derived its other two parametrisations
    if "scale_tril" in names:
        names = [n for n in names if n not in ("covariance_matrix", "precision_matrix")]
    values = {n: function(vars(posterior)[n], posterior.arg_constraints[n]) for n in names}
    return type(posterior)(**values, validate_args=False)


@map_parameters.register
def _(posterior: Independent, function: Map) -> Distribution:
    base = map_parameters(posterior.base_dist, function)
    return Independent(base, posterior.reinterpreted_batch_ndims, validate_args=False)


@map_parameters.register
def _(posterior: TransformedDistribution, function: Map) -> Distribution:
    base = map_parameters(posterior.base_dist, function)
    transforms = [_map_transform(transform, function) for transform in posterior.transforms]
    return type(posterior)(base, transforms, validate_args=False)


def _map_transform(transform: torch.distributions.Transform, function: Map):
    """A copy whose tensors, all unconstrained, are replaced."""
    mapped = copy.copy(transform)
    for name, value in vars(transform).items():
        if isinstance(value, Tensor):
            setattr(mapped, name, function(value, real))
    return mapped
