"""What a more flexible posterior buys: the inference gap, split, and what a step costs.

With the decoder fixed, log p(x) − ELBO has two parts (Cremer, Li & Duvenaud 2018, eq. 6):

    approximation gap: log p(x) − L[q*], q* the best member of the variant's family for this x
    amortization gap:  L[q*] − L[q], what the encoder misses of it

with q* from `bench.inference.refit`. Images are independent, each with its own noise, so the
standard errors over images contain the Monte Carlo error.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution

from bench.config import REFERENCE, Preset, Run
from bench.data.binarization import as_float
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.gradients import estimator_for
from bench.inference.importance import effective_sample_size, iw_bound
from bench.inference.refit import fit_posterior
from bench.inference.reparameterize import draw, standard_normal
from bench.questions.averages import NATS, image_mean
from bench.training.step import EagerStep
from vaes import VAE, Autoencoder, discover, with_options

DRAWS = 500
"""Samples an image from each of q and q*."""
DECODED_AT_ONCE = 10_000
TIMED_STEPS = 60
WARM_UP_STEPS = 10


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement a variant, of its first seed: the spread is over images."""
    if run.seed == 0:
        yield Request(run, (("images", preset.flexibility_images), ("steps", preset.fit_steps)))


def measure(subject: Subject, images: int, steps: int) -> Result:
    """Gaps over the first `images` test images, q* after `steps` steps; time of a training step."""
    model = subject.model()
    if not isinstance(model, VAE):
        return Result([*_step_times(subject)])
    x = as_float(subject.data.test[:images])
    fitted = fit_posterior(model, x, subject.generator("fit"), steps)
    settings = {"steps": steps, "proposals": 2 * DRAWS}
    rows = [
        image_mean(name, values, unit, settings)
        for name, (values, unit) in gaps(model, x, fitted, subject.generator("gaps")).items()
    ]
    return Result([*rows, *_step_times(subject)])


@torch.no_grad()
def gaps(
    model: VAE, x: Tensor, fitted: Distribution, generator: torch.Generator, draws: int = DRAWS
) -> dict[str, tuple[Tensor, str]]:
    """Per-image values `(B,)` in float64 and their unit, by metric; x `(B, D)`.

    log p(x) is an IW bound whose proposals are `draws` samples of q and as many of q*, weighted
    by their mixture (the balance heuristic, Veach & Guibas 1995): never worse by more than log 2
    than the better of the two, and a lower bound like any other.
    """
    amortized = model.posterior(x)
    noise = standard_normal(len(x), model.latent_dim, generator)
    weights, elbos = [], []
    for posterior, other in ((amortized, fitted), (fitted, amortized)):
        z = draw(posterior, lambda n: noise(n).to(x.dtype), draws)
        joint = model.prior.log_prob(z) + _log_likelihood(model, x, z)
        log_q, log_other = posterior.log_prob(z), other.log_prob(z)
        elbos.append((joint - log_q).double().mean(0))
        weights.append((joint - torch.logaddexp(log_q, log_other) + math.log(2)).double())
    w = torch.cat(weights)
    log_likelihood = iw_bound(w)
    elbo, local = elbos
    return {
        "log_likelihood": (log_likelihood, NATS),
        "elbo": (elbo, NATS),
        "local_elbo": (local, NATS),
        "inference_gap": (log_likelihood - elbo, NATS),
        "approximation_gap": (log_likelihood - local, NATS),
        "amortization_gap": (local - elbo, NATS),
        "effective_sample_size": (effective_sample_size(w), "samples"),
    }


def _log_likelihood(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z), `(S, B)`, a bounded number of decoder passes at once."""
    parts = z.split(max(1, DECODED_AT_ONCE // len(x)))
    return torch.cat([model.log_likelihood(x, part) for part in parts])


def _step_times(subject: Subject) -> Iterator[Row]:
    """Time of a training step, and its ratio to that of an untrained model of the reference.

    The two take turns, and the shortest step of each counts: what the machine adds is never
    negative. On a CPU, this process's own time, since other workers share the machine.
    """
    run = subject.run
    variant = with_options(discover().variants[REFERENCE], run.likelihood, run.decoder)
    x = as_float(subject.data.train[: run.batch_size])
    plain = variant(x.shape[1], run.latent_dim, run.hidden_dim).to(x.device)
    steps = (_step(subject.model(), subject, x), _step(plain, subject, x))
    clock = time.process_time if x.device.type == "cpu" else time.perf_counter
    seconds: tuple[list[float], ...] = ([], [])
    for _ in range(WARM_UP_STEPS + TIMED_STEPS):
        for (_, action), taken in zip(steps, seconds):
            started = clock()
            action()
            taken.append(clock() - started)
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
