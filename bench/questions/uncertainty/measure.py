"""Does noise raise the encoder's uncertainty? The posterior of corrupted test images.

For each corruption and level: the posterior's entropy, its mean log σ, the rate and an IW bound;
for each image the rank correlation of entropy and level (Spearman 1904). Beside the encoder
stands the locally optimised posterior of the same images: what moves there is the model's doing,
what moves in the encoder alone is the encoder's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from bench.config import REFERENCE, Preset, Run, of_dataset
from bench.data.binarization import as_float
from bench.data.corruptions import CORRUPTIONS, LEVELS, other_images, other_source, pixels_of
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.codes import unit_variances
from bench.inference.importance import iw_bound, log_weights, samples_at_once
from bench.inference.refit import fit_posterior
from bench.inference.reparameterize import draw, standard_normal
from bench.questions.averages import NATS, image_mean
from bench.questions.headline import ACTIVE_VARIANCE
from vaes import VAE

AUGMENTATION = "bit_flips"
"""The corruption of the images that the reference variant is trained on as well."""
IMAGES = 1000
BOUND_SAMPLES = 50
ENTROPY_SAMPLES = 32
"""For posteriors whose entropy or standard deviation torch does not know."""
TIE = 1e-3
"""Entropies closer than this, in nats, count as equal: float32 rounds a flat one."""
RESAMPLES = 1000
FIT_STEPS = 150
FITTED_LEVELS = (2, 4)
"""Places among a corruption's levels where posteriors are refitted: the middle, the strongest."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """The headline run, and one trained on noisy images for as many steps.

    Posteriors are refitted for seed 0 alone: they take most of the time.
    """
    if run.likelihood != "bernoulli" or run.seed >= of_dataset(preset.secondary_seeds, run.dataset):
        return
    settings = (
        ("bound_images", preset.corrupted_images),
        ("fitted_images", 0 if run.seed else max(2, preset.corrupted_images // 5)),
        ("fit_steps", min(FIT_STEPS, preset.fit_steps)),
        ("others", other_source(run.dataset)),
    )
    yield Request(run, settings)
    if run.variant == REFERENCE:
        noisy = run.with_(augmentation=AUGMENTATION, epochs=max(1, run.epochs // 2))
        yield Request(noisy, settings)


def measure(
    subject: Subject, bound_images: int, fitted_images: int, fit_steps: int, others: str
) -> Result:
    """Rows of every corruption and level; none for a model without a posterior.

    `others` is the source of the other images.
    """
    model = subject.model()
    if not isinstance(model, VAE):
        return Result()
    clean = as_float(subject.data.test[:IMAGES])
    active = unit_variances(model, clean, subject.generator("codes")) > ACTIVE_VARIANCE
    trained_on = subject.run.augmentation or "clean"

    def describe(x: Tensor) -> Profile:
        return profile(model, x, active, bound_images, subject.generator("posterior noise"))

    before = describe(clean)
    result = Result(_level_rows(before, trained_on=trained_on, corruption="none", level=0.0))
    # an entropy that all images share stays what it is, whatever is fitted to one of them
    refit = fitted_images > 0 and before.entropy.max() - before.entropy.min() > TIE
    if refit:
        best = best_entropies(model, clean[:fitted_images], subject, fit_steps)
    for labels, levels, images in corrupted(clean, subject, others):
        labels["trained_on"] = trained_on
        profiles = [describe(x) for x in images]
        for level, after in zip(levels, profiles):
            result.rows += _level_rows(after, **labels, level=level)
        values = torch.stack([p.entropy for p in [before, *profiles]])
        result.rows += monotony(values, subject.generator("bootstrap"), **labels)
        if refit:
            for place in FITTED_LEVELS:
                after = best_entropies(model, images[place][:fitted_images], subject, fit_steps)
                result.rows += _changes(best, after, **labels, level=levels[place])
    return result


def corrupted(
    clean: Tensor, subject: Subject, others: str
) -> Iterator[tuple[dict[str, str], tuple[float, ...], list[Tensor]]]:
    """Of each corruption: what it is called, its levels, and `clean` `(N, D)` at each of them."""
    source, of_another_kind = other_images(subject.data, others, len(clean))
    x = clean.view(-1, *subject.data.image_shape)
    for name, corrupt in {**CORRUPTIONS, "other_images": pixels_of(of_another_kind)}.items():
        images = [corrupt(x, level, subject.generator(name)).flatten(1) for level in LEVELS[name]]
        labels = {"corruption": name} | ({"source": source} if name == "other_images" else {})
        yield labels, LEVELS[name], images


@dataclass(frozen=True)
class Profile:
    """A posterior's numbers by image, `(N,)`, nats; `bound` of the first images, None where none.

    A grey image has no likelihood, hence no bound.
    """

    entropy: Tensor
    log_scale: Tensor
    rate: Tensor
    bound: Tensor | None


@torch.no_grad()
def profile(
    model: VAE, x: Tensor, active: Tensor, bound_images: int, generator: torch.Generator
) -> Profile:
    """Entropy, mean log σ over the `active` units `(L,)`, rate and IW bound of x `(N, D)`."""
    noise = standard_normal(len(x), model.latent_dim, generator)
    posterior = model.posterior(x)
    z = draw(posterior, noise, ENTROPY_SAMPLES) if _needs_samples(posterior) else None
    log_scale = scale(posterior, z)[:, active].log().mean(1)
    bound = None
    if ((x == 0) | (x == 1)).all():
        few = x[:bound_images]
        noise = standard_normal(len(few), model.latent_dim, generator)
        at_once = samples_at_once(few, BOUND_SAMPLES)
        weights = log_weights(model, few, noise, BOUND_SAMPLES, at_once)
        bound = iw_bound(weights)
    return Profile(entropy(posterior, z), log_scale, _rate(model, posterior, z), bound)


def _needs_samples(posterior: Distribution) -> bool:
    try:
        posterior.entropy(), posterior.stddev
    except NotImplementedError:
        return True
    return False


def entropy(posterior: Distribution, z: Tensor | None) -> Tensor:
    """H[q] in nats, `(B,)`; −E log q over the samples z `(S, B, L)` where torch knows none."""
    try:
        return posterior.entropy()
    except NotImplementedError:
        return -posterior.log_prob(z).mean(0)


def scale(posterior: Distribution, z: Tensor | None) -> Tensor:
    """The marginal standard deviations, `(B, L)`; of the samples where torch knows none."""
    try:
        return posterior.stddev
    except NotImplementedError:
        return z.std(0)


def _rate(model: VAE, posterior: Distribution, z: Tensor | None) -> Tensor:
    try:
        return kl_divergence(posterior, model.prior)
    except NotImplementedError:
        return (posterior.log_prob(z) - model.prior.log_prob(z)).mean(0)


def rank_correlation(values: Tensor) -> Tensor:
    """Spearman's ρ of each column of values `(levels, N)` with the rank of its row, `(N,)`.

    Values closer than `TIE` share their mean rank; a constant column has ρ = 0.
    """
    higher = (values.unsqueeze(0) - values.unsqueeze(1) > TIE).double()  # [i, j]: j above i
    ranks = (higher.sum(0) - higher.sum(1)).cpu().numpy()  # twice the mean rank, centred
    level = np.arange(len(ranks), dtype=float)[:, None]
    with warnings.catch_warnings(action="ignore", category=stats.ConstantInputWarning):
        # ρ is Pearson's of the ranks; `spearmanr` would rank these again and undo what TIE makes
        rho = stats.pearsonr(ranks, level, axis=0).statistic
    return torch.from_numpy(np.nan_to_num(rho)).to(values.device)


def monotony(values: Tensor, generator: torch.Generator, **labels: object) -> list[Row]:
    """How entropies `(levels, N)`, the clean images first, follow the level.

    The mean of the images' ρ with its 95 % bootstrap interval over images (Efron 1979), the
    shares of images whose entropy is higher at the strongest level, or the same at every one.
    """
    rho = rank_correlation(values)
    # torch's generator, not scipy's `bootstrap`: the stored ends of the interval stay what they are
    size = (RESAMPLES, len(rho))
    drawn = torch.randint(len(rho), size, generator=generator, device=rho.device)
    means = rho[drawn].mean(1)
    ends = torch.tensor([0.025, 0.975], dtype=means.dtype, device=means.device)
    low, high = means.quantile(ends).tolist()
    change = values[-1] - values[0]
    numbers = {
        "entropy_spearman": rho.mean().item(),
        "entropy_spearman_low": low,
        "entropy_spearman_high": high,
        "entropy_rises": (change > TIE).double().mean().item(),
        "entropy_flat": ((values - values[0]).abs().amax(0) <= TIE).double().mean().item(),
    }
    rows = [Row(name, value, "", labels, n=len(rho)) for name, value in numbers.items()]
    largest = (values - values[0]).abs().max().item()
    rows.append(Row("entropy_largest_change", largest, "nats", labels, n=len(rho)))
    return [*rows, image_mean("entropy_change", change, NATS, labels)]


def best_entropies(model: VAE, x: Tensor, subject: Subject, steps: int) -> dict[str, Tensor]:
    """Entropies of the `encoder`'s and of the locally optimised posteriors (`fitted`) of x."""
    fitted = fit_posterior(model, x, subject.generator("fit"), steps=steps)
    noise = standard_normal(len(x), model.latent_dim, subject.generator("fitted noise"))
    values = {}
    with torch.no_grad():
        for name, posterior in {"encoder": model.posterior(x), "fitted": fitted}.items():
            z = draw(posterior, noise, ENTROPY_SAMPLES) if _needs_samples(posterior) else None
            values[name] = entropy(posterior, z)
    return values


def _changes(
    before: dict[str, Tensor], after: dict[str, Tensor], **labels: object
) -> Iterator[Row]:
    change = {name: after[name] - before[name] for name in after}
    change["fitted_minus_encoder"] = change["fitted"] - change["encoder"]
    for name, value in change.items():
        yield image_mean(f"{name}_entropy_change", value, NATS, labels)


def _level_rows(values: Profile, **labels: object) -> list[Row]:
    numbers = ("entropy", "log_scale", "rate")
    rows = [image_mean(name, getattr(values, name), NATS, labels) for name in numbers]
    if values.bound is not None:
        rows.append(image_mean("iw_bound", values.bound, NATS, {**labels, "K": BOUND_SAMPLES}))
    return rows
