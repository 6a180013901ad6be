"""What a published row says of a training, measured on ours: ELBO, and log p(x) by the IW bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.config import Preset, Run
from bench.data.binarization import as_float, binarize
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.elbo import mean_elbo
from bench.inference.importance import passes_at_once
from bench.inference.probabilistic_pca import marginal
from bench.questions.averages import monte_carlo_mean
from bench.questions.headline.measure import iw_bounds

TEST_PASSES, TRAIN_PASSES = 200_000, 120_000
"""Decoder passes behind an ELBO."""


@dataclass(frozen=True)
class Conditions:
    """One published row as the grid sees it: a question of a run, at its lengths.

    Attributes:
        quantities: keys of `QUANTITIES`.
        epochs: lengths of training, those that share a trunk in one go.
        samples: K of the IW bound.
        stage: of the weights.
        name, compare: as of a `Question`; rows are not compared with one another.
    """

    quantities: tuple[str, ...]
    epochs: tuple[int, ...]
    samples: int
    stage: str
    name: str = "published"
    compare: None = None

    def requests(self, run: Run, preset: Preset) -> Iterator[Request]:
        """The run, of each length."""
        settings = {"quantities": self.quantities, "samples": self.samples, "stage": self.stage}
        for epochs in self.epochs:
            its = run if epochs == run.epochs else run.with_(epochs=epochs, learning_rate=None)
            yield Request(its, tuple(settings.items()))

    @property
    def measure(self) -> Callable[..., Result]:
        return measure


def measure(subject: Subject, quantities: tuple[str, ...], samples: int, stage: str) -> Result:
    """A row each of `quantities`, in nats an image; of log p(x) the IW bound with K = `samples`.

    And how long it was trained, in epochs and in seconds.
    """
    model, test = subject.model(stage), as_float(subject.data.test)
    trained = subject.trained
    result = Result(
        [
            Row("trained_epochs", len(trained.history), "epochs"),
            Row("seconds", trained.seconds, "s"),
        ]
    )
    for quantity in quantities:
        its = {"stage": stage}
        row = partial(monte_carlo_mean, quantity)
        if quantity == "log_likelihood":
            draws, again = subject.generator("importance noise"), subject.subset(100)
            bounds, result.notice = iw_bounds(model, test, draws, (samples,), again)
            bound, error, _ = bounds[samples]
            result.rows.append(row(bound, error, its | {"K": samples}))
        elif quantity == "exact_log_likelihood":
            exact = marginal(model).log_prob(test.double())
            result.rows.append(row(exact, torch.zeros_like(exact), its))
        else:
            train = quantity == "train_elbo"
            x = training_images(subject) if train else test
            draws = -(-(TRAIN_PASSES if train else TEST_PASSES) // len(x))
            at_once = max(1, passes_at_once(x.device) // draws)
            noise = subject.generator(quantity, "noise")
            with torch.no_grad():
                found = mean_elbo(model, x, noise, draws, at_once)
            result.rows.append(row(*found["elbo"], its))
    return result


def training_images(subject: Subject) -> Tensor:
    """Every training image `(N, D)` as training sees it: where they are binarized stochastically,
    drawn once."""
    images = subject.data.train
    if subject.data.binarization != "stochastic":
        return as_float(images)
    return binarize(images, subject.generator("training images"))
