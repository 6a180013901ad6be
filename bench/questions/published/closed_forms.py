"""Variances of gradient estimators that are known in closed form: a quadratic in one dimension.

q = N(μ, σ²) and f(z) = a z² + b z + c; the gradients are of E_q f, with respect to μ and log σ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.inference.gradients import ESTIMATORS
from bench.inference.target import Target
from bench.randomness import generator
from vaes.base import diagonal_gaussian

COEFFICIENTS = 0.7, -1.1, 3.0
"""a, b and c."""
LOC, SCALE = 0.4, 0.8
SAMPLES = (1, 2)
AT_ONCE = 200_000
"""Estimates in memory at a time."""
ESTIMATED = (
    "pathwise",
    "pathwise_sampled_kl",
    "pathwise_antithetic",
    "sticking_the_landing",
    "score_function",
    "score_function_analytic_kl",
    "score_function_baseline",
    "rloo",
    "measure_valued",
    "pathwise_control_variate",
)
"""The estimators whose variances are known."""


SHOWN = tuple(
    name
    for name in ESTIMATED
    if name not in ("pathwise_sampled_kl", "sticking_the_landing", "score_function_analytic_kl")
)
"""Without a KL, which f has none of, the others are the same as one of these."""


def gradients(
    name: str, samples: int, draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Independent estimates of (∂/∂μ, ∂/∂log σ) E_q f, each `(draws,)`, float64."""
    loc = torch.full((draws, 1), LOC, dtype=torch.float64, requires_grad=True)
    log_scale = torch.full_like(loc, math.log(SCALE)).detach().requires_grad_()
    prior = diagonal_gaussian(torch.zeros(1).double(), torch.ones(1).double())
    a, b, c = COEFFICIENTS
    target = Target(lambda z: (a * z**2 + b * z + c).sum(-1), prior, kl_weight=0.0)

    def noise(n: int) -> Tensor:
        return torch.randn((n, draws, 1), generator=generator, dtype=torch.float64)

    posterior = diagonal_gaussian(loc, log_scale.exp())
    surrogate = ESTIMATORS[name](target, posterior, noise, samples)
    of_loc, of_scale = torch.autograd.grad(surrogate.sum(), [loc, log_scale])
    return of_loc.squeeze(1), of_scale.squeeze(1)


def means() -> tuple[float, float]:
    """(∂/∂μ, ∂/∂log σ) E_q f = (2aμ + b, 2aσ²)."""
    a, b, _ = COEFFICIENTS
    return 2 * a * LOC + b, 2 * a * SCALE**2


def variances(name: str, samples: int) -> tuple[float, float]:
    """Exact variances of the estimates of ∂/∂μ and ∂/∂log σ.

    With z = μ + σε, f = A ε² + B ε + C where A = aσ², B = (2aμ + b)σ, C = f(μ); ∂f/∂z · σ is
    2Aε + B. The scores are s = ε/σ and ε² − 1, of variance 1/σ² and 2. E ε², ε⁴, ε⁶, ε⁸ are
    1, 3, 15, 105 and Var f = 2A² + B².

    - Pathwise: (2Aε + B)/σ and (2Aε + B)ε, variances 4A²/σ² and B² + 8A². A pair ±ε leaves the
      first constant and makes the second 2Aε².
    - Score function with f shifted so that its constant is K (raw: K = C): the second moments
      E[(Aε² + Bε + K)² s²] are (15A² + 3B² + K² + 6AK)/σ² and 78A² + 10B² + 2K² + 20AK, less the
      squared means B²/σ² and 4A².
    - Baseline E f: K = −A. Estimated from 16 samples apart, K varies by Var f / 16, which adds
      Var f / 16 · Var s.
    - Leave-one-out: a U-statistic of the kernel h = ½(f − f')(s − s') whose projection is
      ½((f − E f)s + m), m the mean. With V the variance under the baseline E f, Var E[h|ε] = V/4
      and Var h = (V + m² + Var f · Var s)/2, so (Hoeffding) the variance is
      V/S + (m² + Var f · Var s)/(S(S − 1)).
    - Measure-valued: Bw√(2/π)/σ with w Rayleigh, Var w = 2 − π/2: B²(4 − π)/(πσ²). For the scale,
      A(|v|² − v₁²) + B(±|v| − v₁) with v normal in three dimensions: |v|² − v₁² is χ² with two
      degrees of freedom, and E(|v| − |v₁|)² = 3 − 3 + 1: 4A² + B².
    - Control variate: what is linear in ε vanishes, 2Aε in the first and Bε in the second: 0 and
      8A².
    """
    a, b, c = COEFFICIENTS
    A, B, C = a * SCALE**2, (2 * a * LOC + b) * SCALE, a * LOC**2 + b * LOC + c
    spread = 2 * A**2 + B**2
    scores = 1 / SCALE**2, 2.0

    def score(k):
        to_loc = 15 * A**2 + 2 * B**2 + k**2 + 6 * A * k
        return to_loc / SCALE**2, 74 * A**2 + 10 * B**2 + 2 * k**2 + 20 * A * k

    if name == "pathwise_antithetic":
        return 0.0, 8 * A**2 / (samples / 2)
    if name == "score_function_baseline":
        extra = [spread / 16 * s for s in scores]
        # the same baseline serves all S samples, but multiplies scores of mean zero
        return tuple((v + e) / samples for v, e in zip(score(-A), extra))
    if name == "rloo":
        pairs = samples * (samples - 1)
        return tuple(
            v / samples + (m**2 + spread * s) / pairs for v, m, s in zip(score(-A), means(), scores)
        )
    one = {
        "pathwise": (4 * A**2 / SCALE**2, B**2 + 8 * A**2),
        "score_function": score(C),
        "measure_valued": (B**2 * (4 - math.pi) / (math.pi * SCALE**2), 4 * A**2 + B**2),
        "pathwise_control_variate": (0.0, 8 * A**2),
    }
    one |= dict.fromkeys(("pathwise_sampled_kl", "sticking_the_landing"), one["pathwise"])
    one["score_function_analytic_kl"] = one["score_function"]
    return tuple(v / samples for v in one[name])


def measured(
    name: str, samples: int, draws: int, relative_error: float = math.inf
) -> list[tuple[float, float]]:
    """Variance and its standard error for μ and log σ, of estimates about their known means.

    Of at least so many draws, and of more until the errors are this small beside what is exact.
    Raises BenchError where the estimator does not admit S = `samples`.
    """
    draws_of = generator("cpu", "closed forms", name, samples)
    at_once = min(draws, AT_ONCE)
    sums, drawn = torch.zeros(2, 2, dtype=torch.float64), 0
    while True:
        for place, (g, mean) in enumerate(
            zip(gradients(name, samples, at_once, draws_of), means())
        ):
            squares = (g - mean).square()
            sums[place] += torch.stack([squares.sum(), squares.square().sum()])
        drawn += at_once
        mean, square = (sums / drawn).unbind(1)
        errors = ((square - mean.square()).clamp(min=0) / drawn).sqrt().tolist()
        # of a variance of 0 there is rounding alone
        precise = [
            not exact or error <= relative_error * exact
            for exact, error in zip(variances(name, samples), errors)
        ]
        if drawn >= draws and all(precise):
            return list(zip(mean.tolist(), errors))


def lines(name: str, draws: int, relative_error: float = math.inf) -> list[dict[str, object]]:
    """A line each S and parameter: the variance by theory, and as `measured`."""
    found = []
    for samples in SAMPLES:
        try:
            ours = measured(name, samples, draws, relative_error)
        except BenchError:  # it does not admit this S
            continue
        for parameter, exact, (value, error) in zip(("μ", "log σ"), variances(name, samples), ours):
            numbers = {"exact": exact, "value": value, "standard_error": error}
            found.append({"estimator": name, "S": samples, "parameter": parameter, **numbers})
    return found
