"""The headline: ELBO, distortion, rate, IW bounds, latents in use and the train − test gap.

Everything is on the test set, by which nothing is chosen, at the weights of the best validation
epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bench.config import Preset, Run
from bench.data.binarization import as_float, binarize
from bench.grid.contract import Request, Result, Row, Subject, what_was_trained
from bench.inference.codes import direction_variances, has_axes, unit_variances
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
from bench.statistics import mean_over_images
from vaes import VAE

WEIGHTS_AT_ONCE = 100_000
"""Importance weights held at once: bounds memory whatever K is."""
REPEATED = 200
"""Random images with a second set of weights, for the error of an L_K that takes a whole set."""
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
        noise = subject.generator("importance noise")
        ks, again = importance_samples, subject.subset(REPEATED)
        bounds, result.notice = iw_bounds(model, test, noise, ks, again)
        result.rows += _bound_rows(bounds)
        elbo, error = found["elbo"]
        most = max(ks)
        bound, its_error, _ = bounds[most]
        result.arrays |= {"iw_bound": bound, "inference_gap": bound - elbo}
        bits = -elbo.mean().item() / math.log(2) / test.shape[1]
        result.rows += [
            monte_carlo_mean("inference_gap", bound - elbo, error.hypot(its_error), {"K": most}),
            Row("bits_per_dim", bits, "bits/pixel", n=len(test)),
            Row("elbo_test_sample_error", mean_over_images(elbo)[1], NATS, n=len(test)),
            *_latents_in_use(model, test, subject.generator("active units")),
        ]
    return result


def compare(results: Mapping[tuple[str, int], Result], reference: str) -> Iterator[tuple]:
    """Paired differences to the reference variant of every per-image value.

    Those of the IW bound and of the gap to it are of the largest K: that of the ELBO is the first
    less the second.
    """
    for variant, seed, row in paired_differences(results, reference):
        if row.metric == "iw_bound_difference":
            (most,) = (
                r.settings["K"] for r in results[variant, seed].rows if r.metric == "inference_gap"
            )
            row = replace(row, settings={**row.settings, "K": most})
        yield variant, seed, row


def iw_bounds(
    model: VAE, images: Tensor, generator: torch.Generator, ks: tuple[int, ...], again: Tensor
) -> tuple[dict[int, Tensor], str]:
    """L_K of each K from one set of max(K) samples an image, and why they were found slowly.

    By K: bound, its standard error and the effective sample size, `(3, N)` in float64. The samples
    are cut into groups of K, so that every K uses all of them, and all three are a group's,
    averaged over groups. Where a set is one group, the error is the same for all images: it is
    found from a second set of the images at the places `again`.
    """
    most = max(ks)
    parts = torch.split(images, max(1, WEIGHTS_AT_ONCE // most))
    at_once = samples_at_once(parts[0], most)
    passes = (len(images) + len(again)) * most
    weigh, notice = log_weight_for(model, parts[0], at_once, passes)

    def weights(x: Tensor) -> Tensor:
        noise = standard_normal(len(x), model.latent_dim, generator)
        return log_weights(model, x, noise, most, at_once, weigh)

    found: dict[int, list[Tensor]] = {k: [] for k in ks}
    for x in parts:
        for k, groups in _in_groups(weights(x), ks):
            bound, size = iw_bound(groups), effective_sample_size(groups)
            # of one group, found below
            variance = bound.var(0) if len(bound) > 1 else torch.full_like(bound[0], torch.nan)
            error = (variance / len(bound)).sqrt()
            found[k].append(torch.stack([bound.mean(0), error, size.mean(0)]).cpu())
    bounds = {k: torch.cat(parts, 1) for k, parts in found.items()}
    second: dict[int, list[Tensor]] = {k: [] for k in ks if most < 2 * k}
    for x in torch.split(images[again], len(parts[0])):
        for k, groups in _in_groups(weights(x), tuple(second)):
            second[k].append(iw_bound(groups)[0].cpu())
    for k, its in second.items():
        difference = bounds[k][0, again] - torch.cat(its)
        bounds[k][1] = (difference.square().mean() / 2).sqrt()
    return bounds, notice


def _in_groups(weights: Tensor, ks: tuple[int, ...]) -> Iterator[tuple[int, Tensor]]:
    """Of each K the weights `(S, B)` in as many whole groups as there are, `(K, S // K, B)`."""
    for k in ks:
        whole = weights[: len(weights) // k * k]
        yield k, whole.unflatten(0, (-1, k)).transpose(0, 1)


def _bound_rows(bounds: Mapping[int, Tensor]) -> Iterator[Row]:
    for k, (bound, error, size) in bounds.items():
        yield monte_carlo_mean("iw_bound", bound, error, {"K": k})
        mean = size.mean().item()
        yield Row("effective_sample_size", mean, "samples", {"K": k}, n=len(size))


def _latents_in_use(model: VAE, images: Tensor, generator: torch.Generator) -> Iterator[Row]:
    """Directions along which codes differ between images, whatever the latents' axes are.

    For posteriors that have axes also the latents with Var_x(E_q[z_l | x]) > 0.01, the active
    units of Burda et al. (2016, sec. 5.2).
    """
    variances = {"active_directions": direction_variances(model, images, generator)}
    if has_axes(model.posterior(images[:1])):
        variances["active_units"] = unit_variances(model, images, generator)
    for name, its in variances.items():
        active = (its > ACTIVE_VARIANCE).sum().item()
        yield Row(name, active, "latents", n=len(images))


def _train_images(subject: Subject) -> Tensor:
    """Random training images, with one binarization drawn for the purpose."""
    images = subject.data.train[subject.subset(TRAIN_IMAGES, "train")]
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
        Row("epochs", len(trained.history), "epochs", what_was_trained(trained.run)),
        Row("learning_rate", trained.run.learning_rate, ""),
    ]
