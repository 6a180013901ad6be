"""Does the ranking survive its budget? Every variant after trainings of lengths that double.

Each is tuned at its own length, and decays at its own end: what a user with that budget would
have. They share trunks where they share a learning rate (`bench.training.loop.train_branches`).
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.config import Preset, Run
from bench.data.binarization import as_float
from bench.grid.contract import Request, Result, Row, Subject, what_was_trained
from bench.inference.elbo import mean_elbo
from bench.inference.importance import passes_at_once
from bench.questions.averages import monte_carlo_mean
from bench.training.loop import steps_of
from vaes import VAE


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """The headline run, and the same halved again and again.

    A fifth of the headline's noise samples: lengths differ by far more than their error.
    """
    settings = (("samples", max(1, preset.elbo_samples // 5)),)
    yield Request(run, settings)
    for epochs in budgets(run.epochs, preset.halvings)[:-1]:
        if epochs >= run.kl_warmup_epochs:  # else its KL would never reach its weight
            shorter = run.with_(epochs=epochs, learning_rate=None, hyperparameters=())
            yield Request(shorter, settings)


def budgets(epochs: int, halvings: int) -> list[int]:
    """Lengths in epochs, ascending, each (up to rounding down) half of the next.

    >>> budgets(240, 4)
    [15, 30, 60, 120, 240]
    """
    return sorted({max(1, epochs >> k) for k in range(halvings + 1)})


def measure(subject: Subject, samples: int) -> Result:
    """Test ELBO (an autoencoder's cross-entropy), steps and seconds of one length."""
    model, trained, test = subject.model(), subject.trained, as_float(subject.data.test)
    batch = max(1, passes_at_once(test.device) // samples)
    found = mean_elbo(model, test, subject.generator("test noise"), samples, batch)
    settings = what_was_trained(subject.run)
    steps = steps_of(subject.run, subject.data)
    metric = "elbo" if isinstance(model, VAE) else "distortion"
    return Result(
        [
            monte_carlo_mean(metric, *found[metric], settings),
            Row("training_steps", steps, "steps", settings),
            Row("training_seconds", trained.seconds, "s", settings),
            Row("best_epoch", trained.best_epoch, "epochs", settings, n=len(trained.history)),
        ]
    )
