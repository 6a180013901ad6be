"""Does the gradient's noise matter? One variant trained with each estimator.

Once for an equal number of steps, once for an equal wall time: the second by giving each
estimator the steps that cost as much as pathwise's, by the cost model of `step_cost`. The seconds
that were really taken are reported beside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from bench.config import REFERENCE, Preset, Run, of_dataset
from bench.data.binarization import as_float
from bench.errors import BenchError
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.elbo import mean_elbo
from bench.inference.gradients import Passes, admit, of_bound
from bench.questions.averages import NATS, monte_carlo_mean
from vaes.base import diagonal_gaussian

SAMPLES = (1, 2, 4)
"""An estimator is trained with the least S it admits."""
DEAREST = 8
"""Cost in pathwise steps above which an estimator is left out at an equal number of steps."""
TEST_DRAWS = 10_000
EVALUATION_BATCH = 1000


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """A training for each estimator and budget, on the first seeds of one variant."""
    if run.variant != REFERENCE or run.seed >= preset.comparison_seeds:
        return
    steps = of_dataset(preset.comparison_steps, run.dataset)
    plain = step_cost(Passes(1, 0))
    for name in of_bound("elbo"):
        samples, cost_or_reason = cheapest(name, run.latent_dim)
        if samples == 0:
            yield _left_out(run, steps, name, "any", cost_or_reason)
            continue
        times = cost_or_reason / plain
        short = run.with_(estimator=name, samples=samples, steps=steps)
        if times <= DEAREST:
            yield Request(short, (("budget", "equal_steps"),))
        else:
            reason = f"a step costs {times:.0f} pathwise steps"
            yield _left_out(run, steps, name, "equal_steps", reason)
        affordable = short.with_(steps=max(1, round(steps / times)))
        yield Request(affordable, (("budget", "equal_time"),))


def _left_out(run: Run, steps: int, name: str, budget: str, reason: str) -> Request:
    told = (("budget", budget), ("left_out", name), ("reason", reason))
    return Request(run.with_(estimator="pathwise", steps=steps), told)


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


def measure(subject: Subject, budget: str, left_out: str = "", reason: str = "") -> Result:
    """Test ELBO after the last step, seconds, and the validation ELBO along the way."""
    if left_out:
        settings = {"budget": budget, "estimator": left_out}
        return Result([Row("elbo", math.nan, NATS, settings, reason=reason)])
    run, trained = subject.run, subject.trained
    settings = {"budget": budget, "estimator": run.estimator, "S": run.samples}
    whole = {**settings, "steps": run.steps}
    test = as_float(subject.data.test)
    draws = max(2, TEST_DRAWS // len(test))
    noise = subject.generator("test noise")
    found = mean_elbo(subject.model("end"), test, noise, draws, EVALUATION_BATCH)
    rows = [
        monte_carlo_mean("elbo", *found["elbo"], whole),
        Row("training_seconds", trained.seconds, "s", whole),
    ]
    images = len(subject.data.train[: run.train_size or None])
    for entry in trained.history:
        step = min(run.steps, entry["epoch"] * -(-images // run.batch_size))
        rows.append(Row("valid_elbo", entry["valid_elbo"], NATS, {**settings, "step": step}))
        rows.append(Row("elapsed", entry["seconds"], "s", {**settings, "step": step}))
    return Result(rows)
