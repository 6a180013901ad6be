"""The headline: ELBO, distortion, rate, IW bounds, active units and the train − test gap.

Everything is on the untouched test set at the weights of the best validation epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bench.config import Preset, Run
from bench.data.binarization import as_float, binarize
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.codes import unit_variances
from bench.inference.elbo import mean_elbo
from bench.inference.importance import (
    effective_sample_size,
    iw_bound,
    log_weight_for,
    log_weights,
    passes_at_once,
    samples_at_once,
)
from bench.inference.reparameterize import standard_normal
from bench.questions.averages import NATS, monte_carlo_mean, paired_differences
from bench.questions.headline import ACTIVE_VARIANCE
from vaes import VAE

WEIGHTS_AT_ONCE = 100_000
"""Importance weights held at once: bounds memory whatever K is."""
TRAIN_IMAGES = 10_000
TRAIN_SAMPLES = 10


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One evaluation a headline run."""
    yield Request(
        run, (("samples", preset.elbo_samples), ("importance_samples", preset.importance_samples))
    )


def measure(subject: Subject, samples: int, importance_samples: tuple[int, ...]) -> Result:
    """ELBO and its parts from `samples` noise draws an image, IW bounds for each K."""
    model = subject.model()
    test = as_float(subject.data.test)
    found = mean_elbo(
        model,
        test,
        subject.generator("test noise"),
        samples,
        max(1, passes_at_once(test.device) // samples),
    )
    train_samples = min(samples, TRAIN_SAMPLES)
    train = mean_elbo(
        model,
        _train_images(subject),
        subject.generator("train noise"),
        train_samples,
        max(1, passes_at_once(test.device) // train_samples),
    )
    result = Result(_run_rows(subject))
    for name in ("elbo", "distortion", "rate") if isinstance(model, VAE) else ("distortion",):
        result.arrays[name] = found[name][0]
        result.rows.append(monte_carlo_mean(name, *found[name]))
        if name != "rate":
            result.rows.append(monte_carlo_mean(f"train_{name}", *train[name]))
            gap = (train[name][0].mean() - found[name][0].mean()).item()
            result.rows.append(Row(f"{name}_train_minus_test", gap, NATS))
    if isinstance(model, VAE):
        bits = -result.arrays["elbo"].mean().item() / math.log(2) / test.shape[1]
        bounds = iw_bounds(model, test, subject.generator("importance noise"), importance_samples)
        result.rows += [
            Row("bits_per_dim", bits, "bits/pixel", n=len(test)),
            _active_units(model, test, subject.generator("active units")),
            *bounds.rows,
        ]
        result.arrays |= bounds.arrays
        result.notice = bounds.notice
    return result


def compare(results: Mapping[tuple[str, int], Result], reference: str) -> Iterator[tuple]:
    """Paired differences to the reference variant of every per-image value."""
    return paired_differences(results, reference)


def iw_bounds(
    model: VAE, images: Tensor, generator: torch.Generator, ks: tuple[int, ...]
) -> Result:
    """L_K of each K from one set of max(K) samples an image.

    The samples are cut into groups of K, so that every K uses all of them; bound and effective
    sample size are a group's, averaged over groups and images.
    """
    most = max(ks)
    parts = torch.split(images, max(1, WEIGHTS_AT_ONCE // most))
    at_once = samples_at_once(parts[0], most)
    weigh, notice = log_weight_for(model, parts[0], at_once, passes=len(images) * most)
    found: dict[int, list[Tensor]] = {k: [] for k in ks}
    for x in parts:
        noise = standard_normal(len(x), model.latent_dim, generator)
        w = log_weights(model, x, noise, most, at_once, weigh)
        for k in ks:
            groups = w[: most // k * k].view(-1, k, len(x)).transpose(0, 1)
            bound, size = iw_bound(groups), effective_sample_size(groups)
            # one group has no spread: the delta method's variance of a log-mean stands in
            one_group = (1 / size - 1 / k).clamp_min(0).mean(0)
            spread = bound.var(0) if len(bound) > 1 else one_group
            error = (spread / len(bound)).sqrt()
            found[k].append(torch.stack([bound.mean(0), error, size.mean(0)]).cpu())
    result = Result(notice=notice)
    for k in ks:
        bound, error, size = torch.cat(found[k], 1)
        result.arrays[f"iw_bound_{k}"] = bound
        result.rows += [
            monte_carlo_mean("iw_bound", bound, error, {"K": k}),
            Row("effective_sample_size", size.mean().item(), "samples", {"K": k}, n=len(size)),
        ]
    return result


def _active_units(model: VAE, images: Tensor, generator: torch.Generator) -> Row:
    """Latents with Var_x(E_q[z_l | x]) > 0.01 over the test set (Burda et al. 2016, sec. 5.2)."""
    active = (unit_variances(model, images, generator) > ACTIVE_VARIANCE).sum().item()
    return Row("active_units", active, "latents", n=len(images))


def _train_images(subject: Subject) -> Tensor:
    """The first training images, with one binarization drawn for the purpose."""
    images = subject.data.train[: subject.run.train_size or None][:TRAIN_IMAGES]
    if subject.data.binarization == "stochastic":
        return binarize(images, subject.generator("train binarization"))
    return as_float(images)


def _run_rows(subject: Subject) -> list[Row]:
    trained = subject.trained
    parameters = sum(w.numel() for w in trained.checkpoints["best"].values())
    return [
        Row("best_epoch", trained.best_epoch, "epochs", n=len(trained.history)),
        Row("training_seconds", trained.seconds, "s", n=len(trained.history)),
        Row("parameters", parameters, "numbers"),
    ]
