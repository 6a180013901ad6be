"""One training run: variant × data set × seed → four checkpoints and a history.

The step itself, without host synchronisation, is in `bench.training.step`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.config import Run
from bench.data.binarization import as_float, draw_images, thresholds
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.inference.elbo import Terms, chunks, elbo_terms, terms_for
from bench.inference.gradients import estimator_for
from bench.inference.reparameterize import standard_normal
from bench.randomness import generator
from bench.training.compiled import step_for
from vaes import VAE, Autoencoder

STAGES = ("initialisation", "epoch_1", "best", "end")
EVALUATION_BATCH = 1000
VALIDATION_DRAWS = 1000
"""Noise draws an epoch's validation takes at least, over all its images."""


class Diverged(BenchError):
    """The loss stopped being finite; names the run and the step."""


@dataclass
class Trained:
    """A finished run.

    Attributes:
        run: its configuration.
        checkpoints: stage → weights; stages are `STAGES`.
        history: one dict an epoch: `epoch`, `seconds`, `learning_rate`, `objective` (the training
            surrogate's mean) and `<split>_elbo`, `_distortion`, `_rate` of each tracked split.
        best_epoch: the epoch of the highest validation ELBO (autoencoder: lowest cross-entropy).
        seconds: wall time of the training steps alone.
        notice: why the step was not compiled, where a run this long would have gained; or "".
    """

    run: Run
    checkpoints: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    notice: str = ""

    def best(self) -> dict[str, float]:
        """The history's entry of the best epoch."""
        return self.history[self.best_epoch - 1]

    def score(self, entry: dict[str, float]) -> float:
        """What the best epoch has most of: validation ELBO, its rate weighted as in training, or
        minus the cross-entropy."""
        if math.isnan(entry["valid_elbo"]):
            return -entry["valid_distortion"]
        return entry["valid_elbo"] + (1 - self.run.kl_weight) * entry["valid_rate"]


def build(run: Run, variant: type[Autoencoder], mean: Tensor) -> Autoencoder:
    """A freshly initialised model; mean `(D,)` of the training images sets the output bias.

    The shared networks are built first, so every variant of one seed starts from the same ones.
    """
    with torch.random.fork_rng(devices=[]):  # nn.Linear takes no generator
        torch.manual_seed(generator("cpu", run.dataset, run.seed, "weights").initial_seed())
        model = variant(len(mean), run.latent_dim, run.hidden_dim, **dict(run.hyperparameters))
    model.initialise_output(mean.cpu())
    return model.to(mean.device)


def prepared(images: Tensor, binarization: str) -> Tensor:
    """uint8 training images `(N, D)` as `to_batch` takes them: what all epochs have in common."""
    return thresholds(images) if binarization == "stochastic" else images


def to_batch(images: Tensor, index: Tensor, binarization: str, noise: torch.Generator) -> Tensor:
    """`prepared` images `(N, D)` at `index` `(B,)` as float x `(B, D)`.

    Binarized afresh where that is stochastic.
    """
    if binarization == "stochastic":
        return draw_images(images, index, noise)
    return as_float(images.index_select(0, index))


def learning_rate(run: Run, step: int, steps: int) -> float:
    """Constant over the first half of training, then linear down to 2 %."""
    left = max(0.0, min(1.0, 2 * (1 - step / steps)))
    return run.learning_rate * (0.02 + 0.98 * left)


def kl_weight(run: Run, step: int, steps_per_epoch: int) -> float:
    """Linear up to the run's weight over its epochs of warm-up, where it has any."""
    return run.kl_weight * min(1.0, (step + 1) / max(1, run.kl_warmup_epochs * steps_per_epoch))


def validation_draws(images: Tensor) -> int:
    """Noise samples an image that a validation of images `(N, D)` takes."""
    return -(-VALIDATION_DRAWS // len(images))


def validate(
    model: Autoencoder, images: Tensor, run: Run, split: str, terms: Terms = elbo_terms
) -> dict[str, float]:
    """Mean ELBO, distortion and rate over a split, with the same noise at every epoch."""
    noise = generator(images.device, run.dataset, run.seed, split, "validation noise")
    found = []
    for chunk in chunks(images, EVALUATION_BATCH):
        draws = standard_normal(len(chunk), run.latent_dim, noise)
        distortion, rate = terms(model, as_float(chunk), draws, validation_draws(images))
        found.append(torch.stack([distortion.mean(0), rate.mean(0)]))
    distortion, rate = torch.cat(found, dim=1).double().mean(1).tolist()
    return {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}


class Session:
    """A run under way: its model, and the batches, the noise and the step that move it.

    Attributes:
        model: the model in training.
        total, done, steps_per_epoch: steps to take, taken, and in one pass over the images.
        notice: why the step is not compiled, where a run this long would gain; or "".
    """

    def __init__(self, run: Run, variant: type[Autoencoder], data: Dataset) -> None:
        images = data.train[: run.train_size or None]
        self.run, self.done = run, 0
        self.model = build(run, variant, as_float(images).mean(0))
        self.steps_per_epoch = -(-len(images) // run.batch_size)
        self.total = run.steps or run.epochs * self.steps_per_epoch
        example, estimator = as_float(images[:1]), None
        if isinstance(self.model, VAE):
            posterior = self.model.posterior(example)
            estimator = estimator_for(run.estimator, posterior, self.model.prior)
        self._move, self.notice = step_for(run, self.model, estimator, example, self.total)
        self._batches = _batches(run, images, data.binarization)
        self._draws = generator(images.device, run.dataset, run.seed, "noise")

    def step(self) -> Tensor:
        """Take one step and return its loss, nats an image; the host waits for no device."""
        x = next(self._batches)
        noise = standard_normal(len(x), self.run.latent_dim, self._draws)
        weight = kl_weight(self.run, self.done, self.steps_per_epoch)
        rate = learning_rate(self.run, self.done, self.total)
        self.done += 1
        return self._move(x, noise, weight, rate)


def train(
    run: Run,
    variant: type[Autoencoder],
    data: Dataset,
    on_epoch: Callable[[dict[str, float]], None] = lambda entry: None,
) -> Trained:
    """Train one run on `data` (already on the run's device).

    Raises Diverged with the step at which the loss stopped being finite.
    """
    session = Session(run, variant, data)
    model, total = session.model, session.total
    terms, notice = _terms(run, model, data, -(-total // session.steps_per_epoch))
    notice = session.notice or notice
    result = Trained(run, {"initialisation": _weights(model)}, notice=notice)
    while session.done < total:
        started = time.perf_counter()
        epoch = min(session.steps_per_epoch, total - session.done)
        losses = torch.stack([session.step() for _ in range(epoch)]).double().cpu()
        result.seconds += time.perf_counter() - started
        end_epoch(result, model, data, losses, session.done, total, terms)
        on_epoch(result.history[-1])
    result.checkpoints["end"] = _weights(model)
    return result


def end_epoch(
    result: Trained,
    model: Autoencoder,
    data: Dataset,
    losses: Tensor,
    done: int,
    total: int,
    terms: Terms = elbo_terms,
) -> None:
    """Validate, write the history's next entry and keep the weights that later work needs.

    losses `(steps,)` are those of the last of `done` steps of `total`; `terms` evaluates the
    ELBO's. Raises Diverged where a loss is not finite.
    """
    run = result.run
    if not losses.isfinite().all():
        first = done - len(losses) + int((~losses.isfinite()).nonzero()[0])
        raise Diverged(
            f"{run.label}: the loss stopped being finite at step {first} of {total}; "
            "try a lower learning rate or another estimator"
        )
    entry = {
        "epoch": len(result.history) + 1,
        "seconds": result.seconds,
        "learning_rate": learning_rate(run, done, total),
        "objective": losses.mean().item(),
    }
    for split in run.tracked:
        values = validate(model, getattr(data, split), run, split, terms)
        entry |= {f"{split}_{name}": value for name, value in values.items()}
    best = result.score(result.best()) if result.history else -float("inf")
    result.history.append(entry)
    if result.score(entry) > best:
        result.best_epoch = entry["epoch"]
        result.checkpoints["best"] = _weights(model)
    if entry["epoch"] == 1:
        result.checkpoints["epoch_1"] = _weights(model)


def restore(trained: Trained, variant: type[Autoencoder], stage: str, device: str) -> Autoencoder:
    """The model of a finished run with the weights of a stage, on `device`."""
    weights = trained.checkpoints[stage]
    run = trained.run
    data_dim = weights["encoder.0.weight"].shape[1]
    model = variant(data_dim, run.latent_dim, run.hidden_dim, **dict(run.hyperparameters))
    model.load_state_dict(weights)
    return model.to(device).eval()


def _terms(run: Run, model: Autoencoder, data: Dataset, epochs: int) -> tuple[Terms, str]:
    """How a training's validations evaluate the ELBO; and why not compiled where it would pay."""
    splits = [getattr(data, split) for split in run.tracked]
    passes = epochs * sum(len(images) * validation_draws(images) for images in splits)
    images = max(splits, key=len)
    x = as_float(images[:EVALUATION_BATCH])
    return terms_for(model, x, validation_draws(images), passes)


def _batches(run: Run, images: Tensor, binarization: str) -> Iterator[Tensor]:
    """Endless batches x `(B, D)`; every epoch is one permutation of the images."""
    order = generator(images.device, run.dataset, run.seed, "order")
    pixels = generator(images.device, run.dataset, run.seed, "binarization")
    images = prepared(images, binarization)
    while True:
        permutation = torch.randperm(len(images), generator=order, device=images.device)
        for index in torch.split(permutation, run.batch_size):
            yield to_batch(images, index, binarization, pixels)


def _weights(model: Autoencoder) -> dict[str, Tensor]:
    return {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
