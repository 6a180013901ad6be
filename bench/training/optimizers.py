"""Optimizers a run can name: torch's own, and Adam on normalized gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Adamax, AdamW, Optimizer, RMSprop

from bench.config import Run


class NormalizedAdam(Adam):
    """Adam on each tensor's gradient divided by its norm (Yu et al. 2017, "Block-normalized
    gradient method"; Norouzi et al. 2020)."""

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.div_(weight.grad.norm() + self.defaults["eps"])
        super().step(closure)


OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], Run], Optimizer]] = {
    "adam": lambda weights, run: Adam(weights, fused=True, **_moments(run)),
    "adam_normalized": lambda weights, run: NormalizedAdam(weights, fused=True, **_moments(run)),
    "adamw": lambda weights, run: AdamW(weights, fused=True, **_moments(run)),
    "adamax": lambda weights, run: Adamax(weights, **_moments(run)),
    "rmsprop": lambda weights, run: RMSprop(
        weights, lr=run.learning_rate, alpha=run.betas[1], eps=run.epsilon
    ),
    "sgd": lambda weights, run: SGD(weights, lr=run.learning_rate, momentum=run.betas[0]),
}
"""Name → the optimizer of some weights, with the run's learning rate, betas and epsilon.

RMSprop averages squares with the second beta; SGD has the first as its momentum.
"""


def _moments(run: Run) -> dict[str, object]:
    return {"lr": run.learning_rate, "betas": run.betas, "eps": run.epsilon}
