"""Does noise raise the encoder's uncertainty? The posterior of corrupted test images.

For each corruption and level: the posterior's entropy, that of its active units where these have a
meaning, the rate and an IW bound.
Beside the encoder stands the locally optimised posterior of the same images: what that does is the
model's doing, what the encoder does otherwise is the encoder's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bench.config import REFERENCE, Preset, Run
from bench.data.binarization import as_float
from bench.data.corruptions import CORRUPTIONS, LEVELS, other_images, other_source, pixels_of
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.codes import has_axes, unit_variances
from bench.inference.divergence import divergence
from bench.inference.importance import iw_bound, log_weights, samples_at_once
from bench.inference.refit import fit_posterior
from bench.inference.reparameterize import draw, standard_normal
from bench.questions.averages import NATS, image_mean
from bench.questions.headline import ACTIVE_VARIANCE
from bench.questions.uncertainty import TIE
from vaes import VAE

AUGMENTATION = "bit_flips"
"""The corruption of the images that the reference variant is trained on as well."""
SHARE = 4
"""The headline takes so many times the steps of that training, and of the one on clean images that
it is compared with: one of the budget question's lengths."""
IMAGES = 1000
"""Of a seed, at most."""
BOUND_SAMPLES = 50
ENTROPY_SAMPLES = 32
"""For posteriors whose entropy or KL torch does not know."""
FIT_STEPS = 300
FIT_SAMPLES = 2
FIT_RATE = 0.3
"""Of vectors; at a tenth, entropies at the strongest corruptions are still moving by nats."""
FITTED_LEVELS = (2, 4)
"""Places among a corruption's levels where posteriors are refitted: the middle, the strongest."""


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """The headline run, and of the reference one trained on noisy images beside one of as many
    steps on clean images, at the learning rate chosen for the latter."""
    if run.likelihood != "bernoulli":
        return
    settings = (
        ("seeds", preset.seeds),
        ("bound_images", preset.corrupted_images),
        ("fitted_images", preset.refitted_images),
        ("fit_steps", min(FIT_STEPS, preset.fit_steps)),
        ("others", other_source(run.dataset)),
    )
    yield Request(run, settings)
    if run.variant == REFERENCE:
        # every image is followed by a noisy copy, so that an epoch has twice the steps
        epochs = max(1, run.epochs // (2 * SHARE))
        shorter = run.apart(epochs=2 * epochs, learning_rate=None, hyperparameters=())
        yield Request(shorter, settings)
        yield Request(shorter.with_(augmentation=AUGMENTATION, epochs=epochs), settings)


def measure(
    subject: Subject,
    seeds: int,
    bound_images: int,
    fitted_images: int,
    fit_steps: int,
    others: str,
) -> Result:
    """Rows of every corruption and level; none for a model without a posterior.

    The test images are shared out among `seeds` seeds: an interval over seeds is one over both.
    `others` is the source of other images.
    """
    model, run = subject.model(), subject.run
    if not isinstance(model, VAE):
        return Result()
    test = as_float(subject.data.test)
    places = subject.subset(min(IMAGES, max(2, len(test) // seeds)))
    clean, active = test[places], active_units(model, test, subject.generator("codes"))
    # as long as so many epochs of clean images
    length = run.epochs * (2 if run.augmentation else 1)
    trained = {"trained_on": run.augmentation or "clean", "epochs": length}

    def describe(x: Tensor) -> Profile:
        return profile(model, x, active, bound_images, subject.generator("posterior noise"))

    before = describe(clean)
    result = Result(_level_rows(before, **trained, corruption="none", level=0.0))
    where, fitted = [], [clean[:fitted_images]]
    for labels, levels, images in corrupted(clean, subject, places, others):
        labels |= trained
        profiles = [describe(x) for x in images]
        for level, after in zip(levels, profiles, strict=True):
            result.rows += _level_rows(after, **labels, level=level)
        largest = max((after.entropy - before.entropy).abs().max() for after in profiles).item()
        moves = Row("entropy_largest_change", largest, "nats", labels, n=len(clean))
        result.rows.append(moves)
        for place in FITTED_LEVELS:
            if is_binary(images[place]):
                where.append({**labels, "level": levels[place]})
                fitted.append(images[place][:fitted_images])
    # an entropy that all images share stays what it is, whatever is fitted to one of them
    if before.entropy.max() - before.entropy.min() > TIE and is_binary(clean):
        best = best_entropies(model, torch.stack(fitted), subject, fit_steps)
        result.rows += _changes(best, where)
    return result


@torch.no_grad()
def active_units(model: VAE, images: Tensor, draws: torch.Generator) -> Tensor | None:
    """Whether each latent's mean moves between images, `(L,)`; None of a posterior without axes,
    whose units would be others after a rotation of the latents."""
    if not has_axes(model.posterior(images[:1])):
        return None
    return unit_variances(model, images, draws) > ACTIVE_VARIANCE


def is_binary(x: Tensor) -> bool:
    """Whether x are images that a Bernoulli decoder has a likelihood of."""
    return bool(((x == 0) | (x == 1)).all())


def corrupted(
    clean: Tensor, subject: Subject, places: Tensor, others: str
) -> Iterator[tuple[dict[str, object], tuple[float, ...], list[Tensor]]]:
    """Of each corruption: what it is called, its levels, and `clean` `(N, D)` at each of them.

    `places` `(N,)` are those of the images among all test images.
    """
    source, of_another_kind = other_images(subject.data, others, len(subject.data.test))
    of_another_kind = of_another_kind[places]
    x = clean.view(-1, *subject.data.image_shape)
    for name, corrupt in {**CORRUPTIONS, "other_images": pixels_of(of_another_kind)}.items():
        images = [corrupt(x, level, subject.generator(name)).flatten(1) for level in LEVELS[name]]
        labels = {"corruption": name} | ({"source": source} if name == "other_images" else {})
        yield labels, LEVELS[name], images


@dataclass(frozen=True)
class Profile:
    """A posterior's numbers by image, `(N,)`, nats; `bound` of the first images.

    A grey image has no likelihood, hence no bound; a posterior without axes no active units: None.
    """

    entropy: Tensor
    active_entropy: Tensor | None
    rate: Tensor
    bound: Tensor | None


@torch.no_grad()
def profile(
    model: VAE, x: Tensor, active: Tensor | None, bound_images: int, draws: torch.Generator
) -> Profile:
    """Entropy, that of the `active` units `(L,)` alone, rate and IW bound of x `(N, D)`."""
    noise = standard_normal(len(x), model.latent_dim, draws)
    posterior = model.posterior(x)
    z = draw(posterior, noise, ENTROPY_SAMPLES) if _needs_samples(posterior, model.prior) else None
    units = None if active is None else active_entropy(posterior, active)
    bound = None
    if is_binary(x):
        few = x[:bound_images]
        noise = standard_normal(len(few), model.latent_dim, draws)
        at_once = samples_at_once(few, BOUND_SAMPLES)
        weights = log_weights(model, few, noise, BOUND_SAMPLES, at_once)
        bound = iw_bound(weights)
    return Profile(entropy(posterior, z), units, _rate(model, posterior, z), bound)


def _needs_samples(posterior: Distribution, prior: Distribution) -> bool:
    """Whether torch does not know its entropy, or its KL to the prior."""
    try:
        posterior.entropy()
        divergence(posterior, prior)
    except NotImplementedError:
        return True
    return False


def entropy(posterior: Distribution, z: Tensor | None) -> Tensor:
    """H[q] in nats, `(B,)`; −E log q over the samples z `(S, B, L)` where torch knows none."""
    try:
        return posterior.entropy()
    except NotImplementedError:
        return -posterior.log_prob(z).mean(0)


def active_entropy(posterior: Distribution, active: Tensor) -> Tensor:
    """Entropy in nats, `(B,)`, of the `active` `(L,)` latents of a diagonal Gaussian: what
    Σ log σ + ½ log 2πe over them is, the other latents' part being the rest of H[q]."""
    return Normal(posterior.mean[:, active], posterior.stddev[:, active]).entropy().sum(1)


def _rate(model: VAE, posterior: Distribution, z: Tensor | None) -> Tensor:
    try:
        return divergence(posterior, model.prior)
    except NotImplementedError:
        return (posterior.log_prob(z) - model.prior.log_prob(z)).mean(0)


def best_entropies(model: VAE, x: Tensor, subject: Subject, steps: int) -> dict[str, Tensor]:
    """Entropies `(C, N)` of images x `(C, N, D)`, N images in C ways corrupted or clean.

    Of the `encoder`'s posteriors and of the locally optimised ones (`fitted`). Where an entropy
    is sampled, an image has the same noise in all its ways.
    """
    ways, count, _ = x.shape
    x = x.flatten(0, 1)

    draws = subject.generator("fit")
    fitted = fit_posterior(model, x, draws, steps, FIT_SAMPLES, vector_rate=FIT_RATE)
    own = standard_normal(count, model.latent_dim, subject.generator("fitted noise"))
    drawn = own(ENTROPY_SAMPLES).repeat(1, ways, 1)
    values = {}
    with torch.no_grad():
        for name, posterior in {"encoder": model.posterior(x), "fitted": fitted}.items():
            few = _needs_samples(posterior, model.prior)
            z = draw(posterior, lambda n: drawn, ENTROPY_SAMPLES) if few else None
            values[name] = entropy(posterior, z).view(ways, count)
    return values


def _changes(entropies: dict[str, Tensor], where: list[dict[str, object]]) -> Iterator[Row]:
    """Changes from the clean images, which come first, to those of each corruption and level."""
    change = {name: values[1:] - values[0] for name, values in entropies.items()}
    change["fitted_minus_encoder"] = change["fitted"] - change["encoder"]
    for name, values in change.items():
        for labels, value in zip(where, values, strict=True):
            yield image_mean(f"{name}_entropy_change", value, NATS, labels)


def _level_rows(values: Profile, **labels: object) -> list[Row]:
    names = ("entropy", "active_entropy", "rate")
    found = {name: getattr(values, name) for name in names}
    rows = [image_mean(name, its, NATS, labels) for name, its in found.items() if its is not None]
    if values.bound is not None:
        rows.append(image_mean("iw_bound", values.bound, NATS, {**labels, "K": BOUND_SAMPLES}))
    return rows
