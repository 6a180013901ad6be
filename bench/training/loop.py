"""One training run: variant × data set × seed → four checkpoints and a history.

The learning rate is constant, then falls over the last fifth (`bench.training.schedules` has
others); so runs that differ only in their length share a trunk, from which each branches off where
its rate begins to fall. The step itself, without host synchronisation, is in `bench.training.step`,
the batches in `bench.training.batches`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.inference.elbo import Terms, chunks, elbo_terms, terms_for
from bench.inference.gradients import estimator_for
from bench.inference.reparameterize import standard_normal
from bench.randomness import generator
from bench.training.batches import Batches
from bench.training.compiled import pays, step_for
from bench.training.schedules import learning_rate, schedule
from bench.training.step import evaluating, now
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
        history: one dict an epoch, or every `validated_every` steps: `epoch` (its number),
            `seconds`, `learning_rate`, `objective` (the training surrogate's mean) and
            `<split>_elbo`, `_distortion`, `_rate` of each tracked split.
        best_epoch: the epoch of the highest validation ELBO (autoencoder: lowest cross-entropy);
            the last one where validation images were trained on.
        seconds: of the training steps alone, by `bench.training.step.now`.
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


def kl_weight(run: Run, step: int, steps_per_epoch: int) -> float:
    """The run's weight, which is reached linearly over its epochs of warm-up, where it has any."""
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
    with evaluating(model):
        for chunk in chunks(images, EVALUATION_BATCH):
            draws = standard_normal(len(chunk), run.latent_dim, noise)
            distortion, rate = terms(model, as_float(chunk), draws, validation_draws(images))
            found.append(torch.stack([distortion.mean(0), rate.mean(0)]))
    distortion, rate = torch.cat(found, dim=1).double().mean(1).tolist()
    return {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}


def steps_per_epoch(run: Run, data: Dataset) -> int:
    """In one pass over the images that the run trains on."""
    return -(-len(data.train[: run.train_size or None]) // run.batch_size)


def steps_of(run: Run, data: Dataset) -> int:
    """How many steps a run takes."""
    return run.steps or run.epochs * steps_per_epoch(run, data)


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
        self.steps_per_epoch = steps_per_epoch(run, data)
        self.total = steps_of(run, data)
        example, estimator = as_float(images[:1]), None
        if isinstance(self.model, VAE):
            with evaluating(self.model):
                posterior = self.model.posterior(example)
            estimator = estimator_for(run.estimator, posterior, self.model.prior)
        self._move, self.notice = step_for(run, self.model, estimator, example, self.total)
        self._batches = Batches(run, images, data.binarization)
        self._draws = generator(images.device, run.dataset, run.seed, "noise")

    def step(self) -> Tensor:
        """Take one step and return its loss, nats an image; the host waits for no device."""
        x = next(self._batches)
        noise = standard_normal(len(x), self.run.latent_dim, self._draws)
        weight = kl_weight(self.run, self.done, self.steps_per_epoch)
        rate = learning_rate(self.run, self.done, self.total, self.steps_per_epoch)
        self.done += 1
        return self._move(x, noise, weight, rate)

    def state(self) -> dict[str, object]:
        """A copy of everything the next steps depend on."""
        return {
            "done": self.done,
            "model": {k: v.clone() for k, v in self.model.state_dict().items()},
            "optimizer": self._move.state(),
            "batches": self._batches.state(),
            "draws": self._draws.get_state(),
            "own samples": torch.get_rng_state(),
        }

    def restore(self, state: dict) -> None:
        """Go back to where `state` was taken."""
        self.done = state["done"]
        self.model.load_state_dict(state["model"])
        self._move.restore(state["optimizer"])
        self._batches.restore(state["batches"])
        self._draws.set_state(state["draws"])
        torch.set_rng_state(state["own samples"])


def train(
    run: Run,
    variant: type[Autoencoder],
    data: Dataset,
    on_epoch: Callable[[dict[str, float]], None] = lambda entry: None,
) -> Trained:
    """Train one run on `data` (already on the run's device).

    Raises Diverged with the step at which the loss stopped being finite.
    """
    (trained,) = train_branches([run], variant, data, lambda run, entry: on_epoch(entry))
    return trained


def train_branches(
    runs: Sequence[Run],
    variant: type[Autoencoder],
    data: Dataset,
    on_epoch: Callable[[Run, dict[str, float]], None] = lambda run, entry: None,
) -> Iterator[Trained]:
    """Train runs that differ only in their length, the shortest first, on a common trunk.

    Budgets that double cost 1.2 times the longest. Each is what `train` makes of it alone, bit for
    bit: those too short for a compiled step, or that may stop early, have a trunk of their own.
    Raises BenchError where the runs differ otherwise, and Diverged as `train` does.
    """
    runs = sorted(runs, key=lambda run: steps_of(run, data))
    if any(run.but_for_length != runs[0].but_for_length for run in runs):
        raise BenchError("runs of one trunk must differ in nothing but their length")
    model = build(runs[0], variant, as_float(data.train[:1]).mean(0))
    for _, alike in itertools.groupby(
        runs,
        lambda run: (pays(steps_of(run, data), model), run.epochs if run.early_stopping else 0),
    ):
        yield from _train_on_one_trunk([*alike], variant, data, on_epoch)


def _train_on_one_trunk(
    runs: Sequence[Run],
    variant: type[Autoencoder],
    data: Dataset,
    on_epoch: Callable[[Run, dict[str, float]], None],
) -> Iterator[Trained]:
    """`train_branches` of ascending lengths whose steps are all compiled or all not."""
    *_, longest = runs
    session = Session(longest, variant, data)
    model, length = session.model, session.total
    terms, notice = _terms(longest, model, data, -(-length // session.steps_per_epoch))
    notice = session.notice or notice
    start = Trained(longest, {"initialisation": _weights(model)}, notice=notice)
    trunk = _Course(session, data, terms, start, on_epoch)
    for run in runs:
        steps = steps_of(run, data)
        session.total = length
        trunk.advance(schedule(run.schedule).common(steps))
        branch, state = trunk.branched(run), session.state() if run is not longest else None
        session.total = steps
        branch.advance(steps)
        branch.result.checkpoints["end"] = _weights(model)
        yield branch.result
        if state is not None:
            session.restore(state)


@dataclass
class _Course:
    """A stretch of training: where it stands, and what is known of it.

    Attributes:
        losses: of the steps since the last epoch ended.
    """

    session: Session
    data: Dataset
    terms: Terms
    result: Trained
    on_epoch: Callable[[Run, dict[str, float]], None]
    losses: list[Tensor] = field(default_factory=list)

    def branched(self, run: Run) -> _Course:
        """The same up to here, of another length."""
        known = self.result
        copy = replace(known, run=run, checkpoints={**known.checkpoints}, history=[*known.history])
        return replace(self, result=copy, losses=[*self.losses])

    def advance(self, until: int) -> None:
        """Take steps up to the number `until`, validating after every epoch."""
        session, result, device = self.session, self.result, self.data.train.device
        each = session.run.validated_every or session.steps_per_epoch
        while session.done < until and not has_stopped(result):
            started = now(device)
            stop = min(until, session.total, session.done - session.done % each + each)
            self.losses += [session.step() for _ in range(stop - session.done)]
            ended = stop % each == 0 or stop == session.total
            losses = torch.stack(self.losses).double().cpu() if ended else None
            result.seconds += now(device) - started
            if losses is not None:
                self.losses.clear()
                args = (losses, session.done, session.total, self.terms)
                end_epoch(result, session.model, self.data, *args)
                self.on_epoch(result.run, result.history[-1])


def has_stopped(result: Trained) -> bool:
    """Whether as many epochs as its run allows brought no better validation score.

    Those of the KL's warm-up do not count; trainings of a number of steps do not stop early.
    """
    run = result.run
    if not run.early_stopping or run.steps:
        return False
    since = max(result.best_epoch, run.kl_warmup_epochs)
    return len(result.history) - since >= run.early_stopping


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
        "learning_rate": learning_rate(run, done, total, steps_per_epoch(run, data)),
        "objective": losses.mean().item(),
    }
    for split in run.tracked:
        values = validate(model, getattr(data, split), run, split, terms)
        entry |= {f"{split}_{name}": value for name, value in values.items()}
    best = result.score(result.best()) if result.history else -float("inf")
    result.history.append(entry)
    if run.training_split != Run.training_split or result.score(entry) > best:
        result.best_epoch = entry["epoch"]
        result.checkpoints["best"] = _weights(model)
    if entry["epoch"] == 1:
        result.checkpoints["epoch_1"] = _weights(model)


def restore(
    trained: Trained, variant: type[Autoencoder], data_dim: int, stage: str, device: str
) -> Autoencoder:
    """The model of a finished run, of images of `data_dim` pixels, with the weights of a stage."""
    run = trained.run
    model = variant(data_dim, run.latent_dim, run.hidden_dim, **dict(run.hyperparameters))
    model.load_state_dict(trained.checkpoints[stage])
    return model.to(device).eval()


def _terms(run: Run, model: Autoencoder, data: Dataset, epochs: int) -> tuple[Terms, str]:
    """How a training's validations evaluate the ELBO; and why not compiled where it would pay."""
    splits = [getattr(data, split) for split in run.tracked]
    passes = epochs * sum(len(images) * validation_draws(images) for images in splits)
    images = max(splits, key=len)
    x = as_float(images[:EVALUATION_BATCH])
    with evaluating(model):
        return terms_for(model, x, validation_draws(images), passes)


def _weights(model: Autoencoder) -> dict[str, Tensor]:
    return {k: v.detach().to("cpu", copy=True) for k, v in model.state_dict().items()}
