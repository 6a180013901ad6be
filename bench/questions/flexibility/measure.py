"""What a more flexible posterior buys: the inference gap, split, and what a step costs.

With the decoder fixed, log p(x) − ELBO has two parts (Cremer, Li & Duvenaud 2018, eq. 6):

    approximation gap: log p(x) − L[q*], q* the best member of the variant's family for this x
    amortization gap:  L[q*] − L[q], what the encoder misses of it

with q* from `bench.inference.refit`. Images are independent, each with its own noise, so the
standard errors over images contain the Monte Carlo error. That log p(x) is not too low is checked
twice: between two bounds on images simulated from the model, and by annealed importance sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution

from bench.config import REFERENCE, Preset, Run
from bench.data.binarization import as_float
from bench.errors import BenchError
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.annealed_importance import annealed_importance, evaluations
from bench.inference.decoded import log_likelihood_for
from bench.inference.gradients import estimator_for
from bench.inference.importance import effective_sample_size, iw_bound
from bench.inference.marginal_likelihood import (
    SPREADS,
    around,
    sandwich,
    weighed,
)
from bench.inference.observations import observations
from bench.inference.refit import fit_posterior
from bench.inference.reparameterize import draw, prior_sample, standard_normal
from bench.questions.averages import NATS, image_mean, paired_differences
from bench.questions.flexibility import COMPARED
from bench.training.step import EagerStep, now
from vaes import VAE, Autoencoder, discover, with_options

DRAWS = 1000
"""Samples an image from each proposal."""
PROPOSALS = 2 + len(SPREADS)
FIT = {"vector_rate": 0.1, "decay": 2.0}
"""Of q*: after 400 steps L[q*] is 0.01 nats below that of four times as many at a quarter of the
rate, of the flow 0.07 (`mnist5k`, 50 images)."""
CHAINS = 10
"""Of annealed importance sampling, an image."""
TEMPERATURES = 150
STEP_SIZE = 0.3
"""Of their leapfrog steps, in σ of q*."""
TIMED_STEPS = 30
WARM_UP_STEPS = 10


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement a variant and seed; log p(x) is checked in the first seed, annealed for the
    images of the gaps: the interval is then still at most a fifth of that of the inference gap. The
    reference has more."""
    if run.seed >= preset.flexibility_seeds:
        return
    first, is_reference = run.seed == 0, run.variant == REFERENCE
    annealed = preset.annealed_images if is_reference else preset.flexibility_images
    settings = {
        "images": preset.flexibility_images,
        "steps": preset.fit_steps,
        "simulated_images": preset.flexibility_images if first else 0,
        "annealed_images": annealed if first else 0,
    }
    yield Request(run, tuple(settings.items()))


def measure(
    subject: Subject, images: int, steps: int, simulated_images: int = 0, annealed_images: int = 0
) -> Result:
    """Gaps over random test images, q* after `steps` steps; log p(x) checked over simulated images
    and, annealed, over test images (in seed 0 those of the gaps come first); time of a training
    step."""
    model = subject.model().requires_grad_(False)
    if not isinstance(model, VAE):
        return Result([*_step_times(subject)])
    x = as_float(subject.data.test[subject.subset(images)])
    fitted = fit_posterior(model, x, subject.generator("fit"), steps, **FIT)
    found = gaps(model, x, fitted, subject.generator("gaps"))
    settings = {"steps": steps, "proposals": DRAWS * PROPOSALS}
    result = Result([image_mean(n, v, unit, settings) for n, (v, unit) in found.items()])
    result.arrays = {name: found[name][0] for name in COMPARED}
    if simulated_images:
        result.rows += _between_bounds(subject, model, simulated_images, steps)
    if annealed_images:
        rows, result.notice = _annealed(subject, model, annealed_images, steps)
        result.rows += rows
    result.rows += _step_times(subject)
    return result


def compare(results: Mapping[tuple[str, int], Result], reference: str) -> Iterator[tuple]:
    """Paired differences of log p(x) and of the gaps to the reference variant."""
    return paired_differences(results, reference)


@torch.no_grad()
def gaps(
    model: VAE, x: Tensor, fitted: Distribution, generator: torch.Generator, draws: int = DRAWS
) -> dict[str, tuple[Tensor, str]]:
    """Per-image values `(B,)` in float64 and their unit, by metric; x `(B, D)`.

    log p(x) is an IW bound with `draws` samples of each of the `proposals_for` x.
    """
    found = weighed(model, x, proposals_for(model, x, fitted, generator), generator, draws)
    weights = found.log_weights().flatten(0, 1)
    log_likelihood, elbo, local = iw_bound(weights), found.elbo(0), found.elbo(1)
    return {
        "log_likelihood": (log_likelihood, NATS),
        "elbo": (elbo, NATS),
        "local_elbo": (local, NATS),
        "inference_gap": (log_likelihood - elbo, NATS),
        "approximation_gap": (log_likelihood - local, NATS),
        "amortization_gap": (local - elbo, NATS),
        "effective_sample_size": (effective_sample_size(weights), "samples"),
    }


def proposals_for(
    model: VAE, x: Tensor, fitted: Distribution, generator: torch.Generator
) -> list[Distribution]:
    """q, q*, and Gaussians around q* that are alike for every family."""
    return [model.posterior(x), fitted, *around(model, x, fitted, generator)]


def _between_bounds(subject: Subject, model: VAE, images: int, steps: int) -> Iterator[Row]:
    """L_K ≤ log p(x) ≤ U_K on average over images simulated from the model: what is left between
    the two is more than L_K lacks."""
    draws = subject.generator("simulated")
    code = prior_sample(model, images, draws)
    try:
        _, x = observations(model, code, draws)
    except BenchError as error:
        yield Row("simulated_slack", math.nan, NATS, reason=str(error))
        return
    fitted = fit_posterior(model, x, draws, steps, **FIT)
    proposals = proposals_for(model, x, fitted, draws)
    lower, upper = sandwich(model, x, code, proposals, draws, DRAWS)
    settings = {"steps": steps, "proposals": DRAWS * PROPOSALS}
    found = {"lower_bound": lower, "upper_bound": upper, "slack": upper - lower}
    for name, values in found.items():
        yield image_mean(f"simulated_{name}", values, NATS, settings)


def _annealed(subject: Subject, model: VAE, images: int, steps: int) -> tuple[list[Row], str]:
    """log p(x) by annealed importance sampling from q*, and how much that is above the other; why
    it was slow."""
    draws = subject.generator("annealed")
    x = as_float(subject.data.test[subject.subset(images)])
    fitted = fit_posterior(model, x, draws, steps, **FIT)
    quoted, _ = gaps(model, x, fitted, draws)["log_likelihood"]
    passes = len(x) * evaluations(CHAINS, TEMPERATURES)
    log_likelihood, notice = log_likelihood_for(model, x, passes)
    noise = standard_normal(len(x), model.latent_dim, draws)
    found = annealed_importance(
        lambda z: log_likelihood(x, z) + model.prior.log_prob(z),
        fitted,
        draws,
        CHAINS,
        TEMPERATURES,
        draw(fitted, noise, DRAWS).std(0),
        STEP_SIZE,
    )
    annealed, sizes = iw_bound(found.log_weights), effective_sample_size(found.log_weights)
    settings = {"steps": steps, "chains": CHAINS, "temperatures": TEMPERATURES}
    rows = [
        image_mean("annealed_log_likelihood", annealed, NATS, settings),
        image_mean("annealed_difference", annealed - quoted, NATS, settings),
        image_mean("annealed_effective_sample_size", sizes, "chains", settings),
        image_mean("annealed_acceptance", found.acceptance, "share", settings),
    ]
    return rows, notice


def _step_times(subject: Subject) -> Iterator[Row]:
    """Time of a training step, and its ratio to that of an untrained model of the reference.

    The two take turns, and the shortest step of each counts: what the machine adds is never
    negative.
    """
    run = subject.run
    variant = with_options(discover().variants[REFERENCE], **run.networks)
    x = as_float(subject.data.train[: run.batch_size])
    plain = variant(x.shape[1], run.latent_dim, run.hidden_dim).to(x.device)
    steps = (_step(subject.model(), subject, x), _step(plain, subject, x))
    seconds: tuple[list[float], ...] = ([], [])
    for _ in range(WARM_UP_STEPS + TIMED_STEPS):
        for (_, action), taken in zip(steps, seconds):
            started = now(x.device)
            action()
            taken.append(now(x.device) - started)
    shortest, reference = (min(taken[WARM_UP_STEPS:]) for taken in seconds)
    settings = {"batch_size": len(x), "S": run.samples, "estimator": steps[0][0]}
    yield Row("step_time", 1e6 * shortest, "µs", settings, n=TIMED_STEPS)
    settings = {**settings, "reference": REFERENCE}
    yield Row("step_time_ratio", shortest / reference, "ratio", settings, n=TIMED_STEPS)


def _step(model: Autoencoder, subject: Subject, x: Tensor) -> tuple[str, Callable[[], object]]:
    """The name of the gradient estimator, and an action: one training step of the batch x."""
    run = subject.run
    estimator, name = None, "none"
    if isinstance(model, VAE):
        estimator = estimator_for(run.estimator, model.posterior(x), model.prior)
        name = estimator.__name__
    noise = standard_normal(len(x), run.latent_dim, subject.generator("step time"))
    move = EagerStep(model, estimator, run)
    # .item() waits for the device
    return name, lambda: move(x, noise, 1.0, run.learning_rate).item()
