"""Variance of one-sample gradients of E f(x), x ~ N(1, 1), for cost functions f of one number.

Once from samples, once by quadrature; both put through the very estimators that train a model, with
f in the place of log p(x|z) and without the KL. No trained model takes part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.config import REFERENCE, Preset, Run
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.gradients import ESTIMATORS
from bench.inference.reparameterize import Noise
from bench.inference.target import Target
from bench.questions.cost_functions import PARAMETERS
from vaes.base import diagonal_gaussian

ESTIMATED = ("pathwise", "score_function", "measure_valued")
FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "quadratic": lambda x, k: (x - k).square(),
    "exponential": lambda x, k: (-k * x.square()).exp(),
    "cosine": lambda x, k: (k * x).cos(),
}
KS = {
    "quadratic": tuple(k / 2 for k in range(-6, 7)),
    "exponential": (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0),
    "cosine": (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0),
}
DRAWS = 100_000
FURTHEST, NODES = 10.0, 200
"""Quadrature reaches so many standard deviations, with so many Gauss-Legendre nodes a side."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement, with one run of the reference."""
    if run.variant == REFERENCE and run.seed == 0:
        yield Request(run, (("estimators", ESTIMATED),))


def measure(subject: Subject, estimators: tuple[str, ...] = ESTIMATED) -> Result:
    """Both variances of every estimator, cost function and k."""
    nodes, weights = quadrature()
    rows = []
    for function, k, name in ((f, k, n) for f, ks in KS.items() for k in ks for n in estimators):
        cost = partial(FUNCTIONS[function], k=k)
        draws = normals(subject.generator("cost functions", function, k, name))
        sampled = gradients(name, cost, draws, DRAWS)
        exact = gradients(name, cost, nodes, len(weights))
        for parameter, g, at_nodes in zip(PARAMETERS, sampled, exact, strict=True):
            settings = {"cost_function": function, "k": k, "estimator": name}
            settings |= {"parameter": parameter}
            rows.append(_sampled(g, settings))
            away = at_nodes - weights @ at_nodes
            variance = _chopped(weights @ away.square())
            rows.append(Row("exact_variance", variance, "1", settings))
    return Result(rows)


def gradients(name: str, cost: Callable[[Tensor], Tensor], noise: Noise, rows: int) -> list[Tensor]:
    """One-sample estimates of ∂/∂μ and ∂/∂σ of E f at μ = σ = 1, `(rows,)` each, one a row of the
    noise."""
    parameters = [torch.ones(rows, 1, dtype=torch.float64, requires_grad=True) for _ in PARAMETERS]
    prior = diagonal_gaussian(torch.zeros(1).double(), torch.ones(1).double())
    target = Target(lambda z: cost(z.squeeze(-1)), prior, kl_weight=0.0)
    surrogate = ESTIMATORS[name](target, diagonal_gaussian(*parameters), noise, 1)
    return [g.squeeze(1) for g in torch.autograd.grad(surrogate.sum(), parameters)]


def normals(generator: torch.Generator) -> Noise:
    """Noise for `DRAWS` rows."""
    device = generator.device
    return lambda n: torch.randn(
        (n, DRAWS, 1), generator=generator, dtype=torch.float64, device=device
    ).cpu()


def quadrature() -> tuple[Noise, Tensor]:
    """Noise whose rows are nodes, and the rows' weights `(rows,)`.

    Nodes are of a normal number and of the Rayleigh length of two others: of a single normal number
    an estimator gets the first, of two some with that length, of three both. The measure-valued one
    makes no more of two than their length and of three than the first and the length of all.
    """
    points, weight = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(NODES))
    length, of_length = (points + 1) * FURTHEST / 2, weight * FURTHEST / 2
    # a Maxwell number has the sign of the normal one: a jump where that is 0
    normal, of_normal = torch.cat([-length, length]), torch.cat([of_length, of_length])
    of_normal = of_normal * (-normal.square() / 2).exp() / math.sqrt(2 * math.pi)
    of_length = of_length * length * (-length.square() / 2).exp()
    first, second = torch.cartesian_prod(normal, length).unbind(1)
    nothing = torch.zeros_like(first)
    given = {
        1: [first],
        2: [second, nothing],
        3: [first, second, nothing],
    }
    weights = torch.outer(of_normal, of_length).flatten()
    return lambda n: torch.stack(given[n]).unsqueeze(-1), weights


def _sampled(g: Tensor, settings: dict[str, object]) -> Row:
    squares = (g - g.mean()).square()
    count = len(g)
    value, error = _chopped(g.var()), _chopped(squares.std() / math.sqrt(count))
    return Row("sampled_variance", value, "1", settings, error, count)


def _chopped(value: Tensor) -> float:
    """Zero where only rounding keeps it from that."""
    return value.item() if value > 1e-24 else 0.0
