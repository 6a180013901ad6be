"""The signal-to-noise ratio of the encoder's gradient of L_K, by K and estimator.

For one example, ‖E g‖ / √tr Cov[g] of everything the posterior depends on (Rainforth et al. 2018,
for the whole gradient in place of each of its entries), with both squares averaged over
training images, whose gradient a step takes. Every K and estimator is made of the same samples. A
standard error is a jackknife over images, which holds the noise of q too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from bench.config import REFERENCE as VARIANT
from bench.config import Preset, Run
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.gradient_variance import Moments, PosteriorGradient, signal
from bench.inference.gradients import ESTIMATORS, of_bound
from bench.inference.importance import effective_sample_size
from bench.inference.pool import Pool
from bench.questions.averages import image_mean, jackknife, log_log_slope
from bench.questions.gradient_noise.measure import training_images
from bench.questions.multi_sample import REFERENCE, STAGES, UNBIASED

KS = tuple(2**power for power in range(9))
BEYOND = 16
"""From this K on a second exponent is fitted: theory's is that of K → ∞."""
POOL = 256
"""Samples an image that are held at once."""
EVERY = of_bound("iw_bound")
Key = tuple[str, int]
"""An estimator and K."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement of one variant, of its first seed: the spread is over images and noise."""
    if run.variant == VARIANT and run.seed == 0:
        amounts = ("images", preset.bound_images), ("samples", preset.bound_samples)
        yield Request(run, (*amounts, ("estimators", EVERY)))


def measure(
    subject: Subject, images: int, samples: int, estimators: tuple[str, ...] = EVERY
) -> Result:
    """These estimators at every stage, from `samples` of every image's posterior."""
    x = training_images(subject, images)
    rows, notice = [], ""
    for stage in STAGES:
        gradient = PosteriorGradient.from_model(subject.model(stage), x, len(x) * samples)
        noise = subject.generator("multi-sample gradients", stage)
        rows += _of_stage(gradient, samples, estimators, noise, {"stage": stage})
        notice = gradient.notice
    return Result(rows, notice=notice)


def _of_stage(
    gradient: PosteriorGradient,
    samples: int,
    estimators: tuple[str, ...],
    generator: torch.Generator,
    settings: Mapping[str, object],
) -> Iterator[Row]:
    every = dict.fromkeys((*estimators, UNBIASED))
    found = {(name, K): Moments(gradient) for name in every for K in KS}
    # of a biased estimator's gradient less the unbiased one's, from the same samples
    biases = {key: Moments(gradient) for key in found if ESTIMATORS[key[0]].biased}
    sizes: dict[int, list[Tensor]] = {K: [] for K in KS}
    pool = Pool(gradient, POOL)
    for _ in range(-(-samples // POOL)):
        pool.draw(generator)
        for K in KS:
            groups = pool.log_weights.double().unflatten(0, (K, -1))
            sizes[K].append(effective_sample_size(groups).mean(0))
            plain = pool.gradients(ESTIMATORS[UNBIASED], K)
            found[UNBIASED, K].add(plain)
            for name in (name for name in estimators if name != UNBIASED):
                g = pool.gradients(ESTIMATORS[name], K)
                found[name, K].add(g)
                if ESTIMATORS[name].biased:
                    biases[name, K].add({path: g[path] - plain[path] for path in g})
    variances = {key: of.variance() for key, of in found.items()}
    signals = {key: signal(gradient, of) for key, of in variances.items()}
    # E g is the same for all unbiased ones: one estimate of it serves all
    squares = {
        (name, K): torch.stack(
            [signals[name if ESTIMATORS[name].biased else UNBIASED, K], of.per_image[0]]
        )
        for (name, K), of in variances.items()
        if name in estimators
    }
    for name, K in squares:
        yield from _comparisons(squares, name, K, {**settings, "estimator": name, "K": K})
        if (name, K) in biases:
            parts = torch.stack(
                [signal(gradient, biases[name, K].variance()), signals[UNBIASED, K]]
            )
            here = {**settings, "estimator": name, "K": K, "reference": UNBIASED}
            yield _over_images("relative_bias", parts, _ratio, here)
    for name in estimators:
        yield from _exponents(squares, name, {**settings, "estimator": name})
    for K in KS:
        size = torch.stack(sizes[K]).mean(0)
        yield image_mean("effective_sample_size", size, "samples", {**settings, "K": K})


def _comparisons(
    squares: Mapping[Key, Tensor], name: str, K: int, here: Mapping[str, object]
) -> Iterator[Row]:
    """The ratio, and that over the reference's and over its own at the fewest samples."""
    own = squares[name, K]
    yield _over_images("signal_to_noise", own, _ratio, here)
    if name != REFERENCE and (REFERENCE, K) in squares:
        both = torch.cat([own, squares[REFERENCE, K]])
        compared = {**here, "reference": REFERENCE}
        yield _over_images("signal_to_noise_ratio", both, _ratio_of_ratios, compared)
    if KS[0] < K:
        both = torch.cat([own, squares[name, KS[0]]])
        compared = {**here, "reference_K": KS[0]}
        yield _over_images("signal_to_noise_change", both, _ratio_of_ratios, compared)


def _exponents(
    squares: Mapping[Key, Tensor], name: str, here: Mapping[str, object]
) -> Iterator[Row]:
    """The exponents of K, from the first on and from `BEYOND` on, which the setting K states."""
    for least in (KS[0], BEYOND):
        at = tuple(K for K in KS if least <= K)
        every = torch.stack([squares[name, K] for K in at], 1).flatten(0, 1)

        def exponent(means: Tensor, at: tuple[int, ...] = at) -> Tensor:
            return log_log_slope(at, _ratio(means.unflatten(0, (2, len(at)))))

        yield _over_images("exponent", every, exponent, {**here, "K": least})


def _over_images(
    metric: str,
    per_image: Tensor,
    statistic: Callable[[Tensor], Tensor],
    settings: Mapping[str, object],
) -> Row:
    value, error = jackknife(statistic, per_image)
    count = per_image.shape[1]
    if math.isfinite(value) and math.isfinite(error):
        return Row(metric, value, "1", settings, error, count)
    reason = "a mean square is not significantly above zero"
    return Row(metric, math.nan, "1", settings, n=count, reason=reason)


def _ratio(squares: Tensor) -> Tensor:
    """From a signal and a noise, `(2, ...)`; NaN where the signal's unbiased square is negative."""
    return (squares[0] / squares[1]).sqrt()


def _ratio_of_ratios(squares: Tensor) -> Tensor:
    return _ratio(squares[:2]) / _ratio(squares[2:])
