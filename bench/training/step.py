"""One step of training: batch, noise, KL weight and learning rate in; the loss out, weights moved.

`EagerStep` calls torch's kernels one by one, whatever the model. `bench.training.compiled` makes
one native function of the very same objective, for long trainings on a CPU; on a GPU see
`bench.training.stacked`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.config import Run
from bench.inference.gradients import Surrogate
from bench.inference.reparameterize import Noise
from bench.inference.target import Target
from bench.training.optimizers import OPTIMIZERS
from vaes import VAE, Autoencoder

DIFFERS_IN_TRAINING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
"""Layers that draw by themselves, or keep statistics, in training alone."""


def differs_in_training(model: nn.Module) -> str:
    """A kind of layer that makes a step more than a function of its arguments; "" for none."""
    kinds = (type(m).__name__ for m in model.modules() if isinstance(m, DIFFERS_IN_TRAINING))
    return next(kinds, "")


def now(device: torch.device) -> float:
    """Seconds: on a CPU of this thread's own work, which other processes do not prolong; of the
    clock where a GPU works, once it has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.thread_time()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Layers that differ in training as they are evaluated, and afterwards as they were."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


class Step(Protocol):
    """Moves the weights of a model, and remembers what its optimizer must."""

    def __call__(self, x: Tensor, noise: Noise, kl_weight: float, rate: float) -> Tensor:
        """x `(B, D)`, `noise(n)` → `(n, B, L)`, learning rate → the loss, nats an image."""

    def state(self) -> object:
        """A copy of what the optimizer remembers."""

    def restore(self, state: object) -> None:
        """Go back to where `state` was taken."""


def objective(
    model: Autoencoder,
    x: Tensor,
    noise: Noise,
    estimator: Surrogate | None,
    samples: int = 1,
    kl_weight: float | Tensor = 1.0,
    free_bits: float = 0.0,
) -> Tensor:
    """The scalar whose gradient a step follows: −ELBO surrogate (or cross-entropy), nats an image.

    x `(B, D)`; `noise(n)` gives `(n, B, L)`; the estimator is None for a plain autoencoder.
    """
    if not isinstance(model, VAE):
        return -model.log_likelihood(x, model.encode(x)).mean()
    target = Target(lambda z: model.log_likelihood(x, z), model.prior, kl_weight, free_bits)
    return -estimator(target, model.posterior(x), noise, samples).mean()


class Objective(nn.Module):
    """A model called with everything its loss depends on, noise included: a pure function."""

    def __init__(self, model: Autoencoder, estimator: Surrogate | None, run: Run) -> None:
        super().__init__()
        self.model, self.estimator = model, estimator
        self.samples, self.free_bits = run.samples, run.free_bits

    def forward(self, x: Tensor, noise: Sequence[Tensor], kl_weight: Tensor) -> Tensor:
        drawn = iter(noise)
        settings = self.estimator, self.samples, kl_weight, self.free_bits
        return objective(self.model, x, lambda n: next(drawn), *settings)


def draws_of(
    model: Autoencoder, x: Tensor, estimator: Surrogate | None, samples: int
) -> tuple[int, ...]:
    """How many noise samples an estimator asks for, call by call; x `(B, D)` is an example."""
    asked: list[int] = []

    def noise(n: int) -> Tensor:
        asked.append(n)
        return x.new_ones(n, len(x), model.latent_dim)

    objective(model, x, noise, estimator, samples)
    return tuple(asked)


class EagerStep:
    """The step as torch runs it, by the run's optimizer; bf16 by autocast where it asks for it."""

    def __init__(self, model: Autoencoder, estimator: Surrogate | None, run: Run) -> None:
        self.model, self.estimator, self.run = model, estimator, run
        self.optimizer = OPTIMIZERS[run.optimizer](model.parameters(), run)

    def __call__(self, x: Tensor, noise: Noise, kl_weight: float, rate: float) -> Tensor:
        self.optimizer.param_groups[0]["lr"] = rate
        bf16 = self.run.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            settings = self.estimator, self.run.samples, kl_weight, self.run.free_bits
            loss = objective(self.model, x, noise, *settings)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def state(self) -> dict:
        """A copy of what the optimizer remembers."""
        return deepcopy(self.optimizer.state_dict())

    def restore(self, state: dict) -> None:
        """Go back to where `state` was taken."""
        self.optimizer.load_state_dict(state)
