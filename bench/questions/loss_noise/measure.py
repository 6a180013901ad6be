"""How noisy the loss is: variance of ELBO estimators, and bias and variance of the IW bound.

The parameters and the image x are fixed; the only randomness is the noise of q(z|x), as each of
`bench.inference.elbo` uses it. Every variance is averaged over test images. Images are the
independent batches behind every standard error: a jackknife over them, so an error of a ratio or
a slope keeps what its parts share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bench.config import Preset, Run
from bench.data.binarization import as_float
from bench.errors import BenchError
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.elbo import KLS, SAMPLINGS, elbo_estimate, integrands
from bench.inference.importance import effective_sample_size, iw_bound
from bench.questions.averages import NATS, jackknife, log_log_slope
from bench.questions.loss_noise import STAGES
from vaes import VAE

SAMPLES = (1, 4, 16, 64, 256)
REPLICATES = 16
"""Estimates at the largest S behind each image's variance; smaller S have more."""
TIMING_ROUNDS = 3


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement a training stage, for the first seed of every variant."""
    if run.seed == 0:
        for stage in STAGES:
            yield Request(run, (("stage", stage), ("images", preset.variance_images)))


def measure(
    subject: Subject,
    stage: str,
    images: int,
    samples: tuple[int, ...] = SAMPLES,
    replicates: int = REPLICATES,
) -> Result:
    """Variances of every ELBO estimator for each S, and of IW bounds, over random test images.

    The decoder passes are made once a sampling scheme, for `replicates` times the largest S
    samples an image; both KLs and all S are views of them, and so is the IW bound.
    """
    model = subject.model(stage)
    if not isinstance(model, VAE):
        return Result()
    x = as_float(subject.data.test[subject.subset(images)])
    pools = {
        (kl, sampling): pool
        for sampling in SAMPLINGS
        for kl, pool in integrands(
            model, x, sampling, max(samples), replicates, subject.generator("mc", sampling)
        ).items()
    }
    rows = [
        row
        for (kl, sampling), pool in pools.items()
        for row in _elbo_rows(pool, stage, kl, sampling, samples)
    ]
    rows += _comparisons(pools, stage, samples)
    rows += _iw_rows(pools["sampled", "independent"], stage)
    if stage == "best":
        rows += _times(model, x, pools, samples, subject.generator("mc", "time"))
    return Result(rows)


def variance_over_noise(pool: Tensor, samples: int) -> Tensor:
    """Each image's variance `(B,)` of the mean of S samples, from integrands `(R, S_max, B)`.

    Every replicate is cut into blocks of S; a block's variance is taken over the R replicates
    and averaged over blocks, since only replicates are independent for every sampling scheme.
    """
    replicates, most, batch = pool.shape
    blocks = most // samples
    means = pool[:, : blocks * samples].reshape(replicates, blocks, samples, batch).mean(2)
    return means.var(0).mean(0)


def _objection(pool: Tensor | str, sampling: str, samples: int) -> str:
    """Why there is no such estimator: the pool's own reason or the scheme's against S; or ''."""
    if isinstance(pool, str):
        return pool
    try:
        SAMPLINGS[sampling](1, 1, torch.Generator())(samples)
    except BenchError as error:
        return str(error)
    return ""


def _cause(pool: Tensor) -> str:
    """Why a statistic of these integrands is not a finite number."""
    for name, bad in (("NaN", pool.isnan()), ("infinite", pool.isinf())):
        if bad.any():
            images = bad.flatten(0, 1).any(0).sum().item()
            return f"{bad.sum().item()} of {pool.numel()} integrands are {name} ({images} images)"
    if not variance_over_noise(pool, 1).mean().isfinite():
        return f"the square of an integrand of {pool.abs().max().item():.2g} nats overflows"
    return "a variance is exactly zero"


def _row(metric: str, unit: str, found: tuple[float, float], pool: Tensor, **settings) -> Row:
    """A row of a value and its error; one that is not finite carries its cause."""
    reason = "" if math.isfinite(found[0]) else _cause(pool)
    return Row(metric, found[0], unit, settings, found[1], pool.shape[-1], reason)


def _absent(metric: str, unit: str, reason: str, **settings) -> Row:
    return Row(metric, math.nan, unit, settings, reason=reason)


def _elbo_rows(
    pool: Tensor | str, stage: str, kl: str, sampling: str, samples: tuple[int, ...]
) -> Iterator[Row]:
    """The estimator's variance at each S and the slope of its logarithm."""
    name = dict(stage=stage, kl=kl, sampling=sampling)
    admitted = {}
    for s in samples:
        reason = _objection(pool, sampling, s)
        if reason:
            yield _absent("elbo_variance", "nats²", reason, **name, S=s)
            continue
        admitted[s] = variance_over_noise(pool, s)
        found = jackknife(lambda v: v[0], admitted[s][None])
        yield _row("elbo_variance", "nats²", found, pool, **name, S=s)
    if isinstance(pool, str):
        yield _absent("elbo_variance_slope", "exponent", pool, **name)
    elif len(admitted) > 1:
        variances = torch.stack(list(admitted.values()))
        found = jackknife(partial(log_log_slope, tuple(admitted)), variances)
        yield _row("elbo_variance_slope", "exponent", found, pool, **name)


def _comparisons(
    pools: dict[tuple[str, str], Tensor | str], stage: str, samples: tuple[int, ...]
) -> Iterator[Row]:
    """Variance ratios at an equal number of decoder passes.

    `elbo_variance_reduction`: independent samples over the scheme, the same KL. A ratio above 1
    is a gain. `sampled_to_analytic_variance`: sampled over analytic KL, the same scheme.
    """
    pairs = [
        ("elbo_variance_reduction", dict(kl=kl, sampling=s), (kl, "independent"), (kl, s))
        for kl in KLS
        for s in SAMPLINGS
        if s != "independent"
    ]
    pairs += [
        ("sampled_to_analytic_variance", dict(sampling=s), ("sampled", s), ("analytic", s))
        for s in SAMPLINGS
    ]
    for metric, name, above, below in pairs:
        for s in samples:
            reason = next(filter(None, (_objection(pools[k], k[1], s) for k in (below, above))), "")
            if reason:
                yield _absent(metric, "ratio", reason, stage=stage, **name, S=s)
                continue
            variances = torch.stack([variance_over_noise(pools[k], s) for k in (above, below)])
            found = jackknife(lambda v: v[0] / v[1], variances)
            worse = next((k for k in (above, below) if not pools[k].isfinite().all()), below)
            yield _row(metric, "ratio", found, pools[worse], stage=stage, **name, S=s)


def _iw_rows(pool: Tensor | str, stage: str) -> Iterator[Row]:
    """L_K's bias to the largest-K estimate, its variance, and the effective sample size.

    K runs over powers of four; the largest is the whole pool, one estimate an image, from the
    same samples, so that the bias is a paired difference. (Burda et al. 2016, eq. 8.)
    """
    if isinstance(pool, str):
        for metric, unit in (("iw_bias", NATS), ("iw_variance", "nats²")):
            yield _absent(metric, unit, pool, stage=stage)
        return
    w = pool.flatten(0, 1)
    largest = len(w)
    reference = iw_bound(w)
    for k in (4**i for i in range(math.ceil(math.log(largest, 4)))):
        groups = w[: largest // k * k].view(-1, k, w.shape[1]).transpose(0, 1)
        bound = iw_bound(groups)
        settings = dict(stage=stage, K=k)
        bias = jackknife(lambda v: v[0], (bound.mean(0) - reference)[None])
        yield _row("iw_bias", NATS, bias, pool, **settings, reference_K=largest)
        if len(bound) > 1:
            variance = jackknife(lambda v: v[0], bound.var(0)[None])
            yield _row("iw_variance", "nats²", variance, pool, **settings)
        size = jackknife(lambda v: v[0], effective_sample_size(groups).mean(0)[None])
        yield _row("iw_effective_sample_size", "samples", size, pool, **settings)


def _times(
    model: VAE,
    x: Tensor,
    pools: dict[tuple[str, str], Tensor | str],
    samples: tuple[int, ...],
    generator: torch.Generator,
) -> Iterator[Row]:
    """Shortest timing of each estimate of a batch, per image; noise, encoder and all.

    Rounds of all estimators alternate, so that a busy moment of the machine hits all alike.
    """
    seconds: dict[tuple[str, str, int], list[float]] = {}
    for (kl, sampling), pool in pools.items():
        for s in samples:
            if reason := _objection(pool, sampling, s):
                settings = dict(kl=kl, sampling=sampling, S=s)
                yield _absent("elbo_estimate_time", "µs/image", reason, **settings)
            else:
                seconds[kl, sampling, s] = []
    for _ in range(TIMING_ROUNDS):
        for (kl, sampling, s), timings in seconds.items():
            for _ in range(max(1, 16 // s)):
                started = time.perf_counter()
                elbo_estimate(model, x, kl, sampling, s, generator).cpu()  # waits for the device
                timings.append(time.perf_counter() - started)
    for (kl, sampling, s), timings in seconds.items():
        settings = dict(kl=kl, sampling=sampling, S=s)
        microseconds = 1e6 * min(timings) / len(x)
        yield Row("elbo_estimate_time", microseconds, "µs/image", settings, n=len(timings))
