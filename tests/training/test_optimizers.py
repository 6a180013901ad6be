"""Each optimizer goes down, with the constants of its run; normalized Adam forgets the scale."""

from __future__ import annotations

import pytest
import torch

from bench.config import Run
from bench.data.dataset import load
from bench.training.loop import train
from bench.training.optimizers import OPTIMIZERS
from vaes import discover

RUN = Run("input_dependent", "tiny", 0, epochs=8, latent_dim=2, hidden_dim=8, learning_rate=1e-2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_helps_with_every_optimizer(name, tiny):
    run = RUN.with_(optimizer=name, learning_rate=1e-3 if name == "sgd" else 1e-2)
    history = train(run, discover().variants["input_dependent"], load(str(tiny))).history
    assert history[-1]["valid_elbo"] > history[0]["valid_elbo"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_constants_are_those_of_the_run(name):
    run = RUN.with_(optimizer=name, betas=(0.5, 0.75), epsilon=1e-3)
    group = OPTIMIZERS[name]([torch.zeros(1, requires_grad=True)], run).param_groups[0]
    assert group["lr"] == 1e-2
    assert group.get("betas", (0.5, 0.75)) == (0.5, 0.75)
    assert group.get("alpha", 0.75) == 0.75
    assert group.get("momentum", 0) in (0, 0.5)
    assert group.get("eps", 1e-3) == 1e-3


def steps_of(name: str, scales: list[float]) -> torch.Tensor:
    weight = torch.zeros(3, requires_grad=True)
    optimizer = OPTIMIZERS[name]([weight], RUN.with_(optimizer=name))
    for scale in scales:
        weight.grad = scale * torch.tensor([1.0, -2.0, 3.0])
        optimizer.step()
    return weight.detach()


def test_normalized_adam_does_not_see_how_long_a_gradient_is():
    long, short = (steps_of("adam_normalized", scales) for scales in ([1, 100], [1, 0.1]))
    torch.testing.assert_close(long, short)
    assert not torch.allclose(steps_of("adam", [1, 100]), steps_of("adam", [1, 0.1]))
