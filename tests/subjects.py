"""Subjects of measurements: untrained models of small random images."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from bench.config import Run
from bench.data.dataset import Dataset, load
from bench.grid.contract import Row, Subject
from bench.training.loop import STAGES, Trained, build
from vaes import Autoencoder, discover

SHAPE = (6, 4)


def small_data(train: int = 120, test: int = 60) -> Dataset:
    """Grey training images and binary validation and test images of 6 × 4 pixels."""
    draws = torch.Generator().manual_seed(1)
    grey = torch.randint(0, 256, (train, 24), generator=draws, dtype=torch.uint8)
    binary = (torch.rand((test + 20, 24), generator=draws) < 0.4).to(torch.uint8) * 255
    return Dataset("small", grey, binary[:20], binary[20:], "stochastic", SHAPE, "print")


def small_run(variant: str, **changes) -> Run:
    """A run of that variant with three latents."""
    return Run(variant, "small", 0, epochs=2, latent_dim=3, hidden_dim=8).with_(**changes)


def subject(variant: str, change=lambda model: None, data: Dataset | None = None, **run) -> Subject:
    """The variant's model at initialisation, after `change(model)`, at every stage."""
    data, run, kind = data or small_data(), small_run(variant, **run), discover().variants[variant]
    model = build(run, kind, data.train.float().mean(0) / 255)
    with torch.no_grad():
        change(model)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    entry = {
        f"{split}_{name}": 1.0
        for split in ("valid", "seen", "test")
        for name in ("elbo", "distortion", "rate")
    }
    trained = Trained(run, dict.fromkeys(STAGES, weights), [entry] * run.epochs, best_epoch=1)
    return Subject(trained, kind, data)


def ignore_the_code(model) -> None:
    """A decoder that says the same whatever z is."""
    model.decoder[0].weight.zero_()


def of_digits(model: Autoencoder) -> Subject:
    """A model of the digits, with the same weights at every stage."""
    run = Run("variant", "digits", 0, 1, model.latent_dim, model.hidden_dim)
    trained = Trained(run, dict.fromkeys(STAGES, model.state_dict()))
    return Subject(trained, type(model), load("digits"))


def find(rows: Iterable[Row], metric: str, **settings: object) -> list[Row]:
    """The rows of a metric that state these settings; at least one."""
    found = [r for r in rows if r.metric == metric and settings.items() <= r.settings.items()]
    assert found, (metric, settings)
    return found
