"""The headline: ELBO, distortion, rate, IW bounds, active units and the train − test gap.

Everything is on the untouched test set at the weights of the best validation epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bench.bounds import (
    chunks,
    elbo_terms,
    log_weight_for,
    log_weights,
    passes_at_once,
    samples_at_once,
    standard_normal,
)
from bench.codes import unit_variances
from bench.config import Preset, Run
from bench.data import as_float, binarize
from bench.measure import Request, Result, Row, Subject, setting
from vaes import VAE, Autoencoder

WEIGHTS_AT_ONCE = 100_000
"""Importance weights held at once: bounds memory whatever K is."""
TRAIN_IMAGES = 10_000
TRAIN_SAMPLES = 10
ACTIVE_VARIANCE = 0.01


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One evaluation a headline run."""
    yield Request(
        run, (("samples", preset.elbo_samples), ("importance_samples", preset.importance_samples))
    )


def measure(subject: Subject, samples: int, importance_samples: tuple[int, ...]) -> Result:
    """ELBO and its parts from `samples` noise draws an image, IW bounds for each K."""
    model = subject.model()
    test = as_float(subject.data.test)
    elbo = _mean_elbo(model, test, subject.generator("test noise"), samples)
    train = _mean_elbo(
        model, _train_images(subject), subject.generator("train noise"), min(samples, TRAIN_SAMPLES)
    )
    rows = _run_rows(subject)
    rows += [_image_mean("distortion", elbo["distortion"], elbo["distortion_error"])]
    rows += [_image_mean("train_distortion", train["distortion"], train["distortion_error"])]
    rows += [_gap("distortion", train["distortion"].mean() - elbo["distortion"].mean())]
    arrays, notice = {"distortion": elbo["distortion"]}, ""
    if isinstance(model, VAE):
        rows += [
            _image_mean("elbo", elbo["elbo"], elbo["elbo_error"]),
            _image_mean("rate", elbo["rate"], elbo["rate_error"]),
            _image_mean("train_elbo", train["elbo"], train["elbo_error"]),
            _gap("elbo", train["elbo"].mean() - elbo["elbo"].mean()),
            Row("bits_per_dim", -elbo["elbo"].mean().item() / math.log(2) / test.shape[1],
                "bits/pixel", n=len(test)),
            _active_units(model, test, subject.generator("active units")),
        ]  # fmt: skip
        bounds = _iw_bounds(model, test, subject.generator("importance noise"), importance_samples)
        rows, notice = rows + bounds.rows, bounds.notice
        arrays |= {"elbo": elbo["elbo"], "rate": elbo["rate"], **bounds.arrays}
    return Result(rows, arrays, notice=notice)


def compare(results: Mapping[tuple[str, int], Result], reference: str) -> Iterator[tuple]:
    """Paired differences to the reference variant, image by image, within each seed.

    Yields `(variant, seed, Row)`; the standard error is over the per-image pairs.
    """
    for (variant, seed), result in results.items():
        other = results.get((reference, seed))
        if other is None or variant == reference:
            continue
        for name in sorted(result.arrays.keys() & other.arrays.keys()):
            difference = result.arrays[name] - other.arrays[name]
            yield (
                variant,
                seed,
                Row(
                    f"{name}_difference",
                    difference.mean().item(),
                    "nats/image",
                    setting(reference=reference),
                    (difference.std() / math.sqrt(len(difference))).item(),
                    len(difference),
                ),
            )


def _mean_elbo(
    model: Autoencoder, images: Tensor, generator: torch.Generator, samples: int
) -> dict[str, Tensor]:
    """Per-image means over noise `(N,)` of ELBO, distortion and rate, with standard errors."""
    parts = []
    for x in chunks(images, max(1, passes_at_once(images.device) // samples)):
        noise = standard_normal(len(x), model.latent_dim, generator)
        distortion, rate = elbo_terms(model, x, noise, samples)
        for_each = {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
        part = {name: value.double().mean(0) for name, value in for_each.items()}
        if len(distortion) > 1:
            error = {
                f"{k}_error": v.double().std(0) / math.sqrt(len(v)) for k, v in for_each.items()
            }
        else:
            error = {f"{k}_error": torch.zeros_like(part[k]) for k in for_each}
        parts.append(part | error)
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _iw_bounds(
    model: VAE, images: Tensor, generator: torch.Generator, ks: tuple[int, ...]
) -> Result:
    """L_K = E log (1/K) Σ_k w_k (Burda et al. 2016, eq. 8) from one set of max(K) samples.

    The samples are cut into groups of K, so that every K uses all of them; the effective sample
    size (Σw)² / Σw² is a group's, averaged over groups and images.
    """
    most = max(ks)
    parts = torch.split(images, max(1, WEIGHTS_AT_ONCE // most))
    at_once = samples_at_once(parts[0], most)
    weigh, notice = log_weight_for(model, parts[0], at_once, passes=len(images) * most)
    bounds: dict[int, list[Tensor]] = {k: [] for k in ks}
    sizes: dict[int, list[Tensor]] = {k: [] for k in ks}
    errors: dict[int, list[Tensor]] = {k: [] for k in ks}
    for x in parts:
        noise = standard_normal(len(x), model.latent_dim, generator)
        w = log_weights(model, x, noise, most, at_once, weigh)
        for k in ks:
            groups = w[: most // k * k].view(most // k, k, len(x))
            bound = groups.logsumexp(1) - math.log(k)
            bounds[k].append(bound.mean(0))
            squared = (2 * groups.logsumexp(1) - (2 * groups).logsumexp(1)).exp()
            sizes[k].append(squared.mean(0))
            # one group has no spread: the delta method's variance of a log-mean stands in
            one_group = (1 / squared - 1 / k).clamp_min(0).mean(0)
            spread = bound.var(0) if len(bound) > 1 else one_group
            errors[k].append(spread / len(bound))
    result = Result(notice=notice)
    for k in ks:
        value = torch.cat(bounds[k]).cpu()
        error = (torch.cat(errors[k]).sum().sqrt() / len(value)).item()
        size = torch.cat(sizes[k])
        result.arrays[f"iw_bound_{k}"] = value
        result.rows += [
            Row("iw_bound", value.mean().item(), "nats/image", setting(K=k), error, len(value)),
            Row("effective_sample_size", size.mean().item(), "samples", setting(K=k), n=len(size)),
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


def _image_mean(metric: str, values: Tensor, errors: Tensor) -> Row:
    """The mean over images; its Monte Carlo error combines the images' independent ones."""
    error = (errors.square().sum().sqrt() / len(values)).item()
    return Row(metric, values.mean().item(), "nats/image", standard_error=error, n=len(values))


def _gap(metric: str, value: Tensor) -> Row:
    return Row(f"{metric}_train_minus_test", value.item(), "nats/image")
