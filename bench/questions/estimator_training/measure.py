"""Does the gradient's noise matter? One variant trained with each estimator, each at its own
learning rate.

An estimator whose steps are dearer is trained for fewer steps too, so that its ELBO at the time
that pathwise takes can be read between two lengths, by the clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from bench.config import REFERENCE, Preset, Run, of_dataset
from bench.data.binarization import as_float
from bench.errors import BenchError
from bench.grid.contract import Request, Result, Row, Subject, what_was_trained
from bench.inference.elbo import mean_elbo
from bench.inference.gradients import Passes, admit, of_bound
from bench.questions.averages import NATS, monte_carlo_mean
from bench.questions.gradient_noise.step_times import step_times
from vaes.base import diagonal_gaussian

SAMPLES = (1, 2, 4)
"""An estimator is trained with the least S it admits, pathwise with every S that another has."""
DEAREST = 8
"""Cost in pathwise steps above which an estimator is left out at an equal number of steps."""
POINTS = 20
"""Validations along a training."""
TEST_DRAWS = 10_000
EVALUATION_BATCH = 1000


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """Trainings of one variant with each estimator, of some lengths, on the first seeds.

    None where the KL has no closed form, or bits for free: what is compared with needs the one and
    others cannot do the other.
    """
    if run.variant != REFERENCE or run.seed >= preset.comparison_seeds:
        return
    if run.prior != Run.prior or run.free_bits:
        return
    steps = of_dataset(preset.comparison_steps, run.dataset)
    contestants, plain = {}, step_cost(Passes(1, 0))
    for name in of_bound("elbo"):
        samples, cost_or_reason = cheapest(name, run.latent_dim)
        if samples:
            contestants[name, samples] = cost_or_reason / plain
        else:
            yield _left_out(run, name, cost_or_reason)
    for samples in {samples for _, samples in contestants}:
        contestants["pathwise", samples] = step_cost(Passes(samples, 0)) / plain
    yield Request(run, (("timed", tuple(sorted(contestants))),))
    every = max(1, steps // POINTS)
    open_run = run.apart(learning_rate=None, hyperparameters=(), validated_every=every)
    for (name, samples), times in contestants.items():
        if times > DEAREST:
            yield _left_out(run, name, f"by its passes a step costs {times:.0f} pathwise steps")
        for length in lengths(steps, times):
            its = open_run.with_(estimator=name, samples=samples, steps=length)
            yield Request(its, (("along", True),) if length == steps else ())


def lengths(steps: int, times: float) -> list[int]:
    """Steps of an estimator that costs so many pathwise steps, ascending: up to `steps`, or what
    takes twice as long as they do; and down to what takes surely less.

    >>> lengths(800, 1.0), lengths(800, 3.5), lengths(800, 20.0)
    ([400, 800], [100, 200, 400, 800], [12, 25, 50])
    """
    first = 0 if times <= DEAREST else math.floor(math.log2(times))
    last = math.ceil(math.log2(times)) + 1
    return sorted({max(1, steps >> k) for k in range(first, last + 1)})


def _left_out(run: Run, name: str, reason: str) -> Request:
    return Request(run, (("left_out", name), ("reason", reason)))


def step_cost(passes: Passes) -> float:
    """Cost of a training step, in decoder passes a gradient is followed through.

    The encoder's passes and the optimizer cost 1.5 of them, a pass without gradient half of one:
    measured on one CPU core with 784-200-200-20 networks and 100 images a step.
    """
    return 1.5 + passes.followed + 0.5 * passes.others


def cheapest(name: str, latent_dim: int) -> tuple[int, float | str]:
    """The least S the estimator admits and a step's cost; 0 and the reason where none will do."""
    zeros = torch.zeros(1, latent_dim, requires_grad=True)
    posterior = diagonal_gaussian(zeros, torch.ones_like(zeros).requires_grad_())
    prior = diagonal_gaussian(torch.zeros(latent_dim), torch.ones(latent_dim))
    reason = ""
    for samples in SAMPLES:
        try:
            return samples, step_cost(admit(name, posterior, prior, samples))
        except BenchError as error:
            reason = str(error)
    return 0, reason


def measure(
    subject: Subject,
    along: bool = False,
    timed: tuple[tuple[str, int], ...] = (),
    left_out: str = "",
    reason: str = "",
) -> Result:
    """Test ELBO after the last step, and the validation ELBO `along` the way; or the seconds of a
    step with each (estimator, S) that is `timed`, taken in turns."""
    run, trained = subject.run, subject.trained
    if timed:
        return Result([*_step_seconds(subject, timed)])
    if left_out:
        return Result([Row("elbo", math.nan, NATS, {"estimator": left_out}, reason=reason)])
    settings = what_was_trained(run)
    test = as_float(subject.data.test)
    draws = max(2, TEST_DRAWS // len(test))
    noise = subject.generator("test noise")
    found = mean_elbo(subject.model("end"), test, noise, draws, EVALUATION_BATCH)
    rows = [monte_carlo_mean("elbo", *found["elbo"], settings)]
    for entry in trained.history if along else ():
        at = {**settings, "step": min(run.steps, entry["epoch"] * run.validated_every)}
        rows.append(Row("valid_elbo", entry["valid_elbo"], NATS, at))
    return Result(rows)


def _step_seconds(subject: Subject, timed: tuple[tuple[str, int], ...]) -> Iterator[Row]:
    """A row each (estimator, S). Seconds of whole trainings would be told apart by what else the
    machine did meanwhile."""
    names, samples = (tuple(sorted(set(part))) for part in zip(*timed))
    x = as_float(subject.data.train[subject.subset(subject.run.batch_size, "train")])
    noise = subject.generator("step time")
    found = step_times(subject.model(), x, subject.run, noise, names, samples)
    for name, s in timed:
        time, settings = found[name, s], {"estimator": name, "S": s}
        seconds = 1e-6 * len(x)
        error = seconds * time.standard_error
        yield Row("step_seconds", seconds * time.value, "s", settings, error, time.rounds)
