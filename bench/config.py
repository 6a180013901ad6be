"""What a run is, and how much a preset does: frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TypeVar

from bench.errors import BenchError

T = TypeVar("T")

LEARNING_RATE = 1e-3
"""Adam's own default (Kingma & Ba 2015), where none is chosen."""
REFERENCE = "input_dependent"
"""The variant that the others are compared with."""


@dataclass(frozen=True)
class Run:
    """One training run. Two equal runs give the same weights bit for bit on one CPU.

    Attributes:
        variant: name of the file in `vaes/`.
        dataset: name of the data set (the stem of a path).
        seed: initial weights, data order, binarization and noise follow from it.
        epochs: passes over the training images.
        latent_dim: L.
        hidden_dim: H, units in each of two hidden layers, or in each of as many as are given.
        hyperparameters: keyword arguments of the variant's class, as sorted pairs.
        batch_size: training images a step.
        learning_rate: the optimizer's; None where it, and the hyperparameters, are to be chosen.
        estimator: gradient estimator, or `auto` for the best one the posterior admits.
        samples: noise samples S per image and step.
        kl_warmup_epochs: the KL's weight rises linearly from 0 over these epochs.
        train_size: use only so many training images (0: all), random ones in a grid.
        steps: stop after so many steps instead (0: all); the schedule follows.
        validated_every: steps from one entry of the history to the next (0: an epoch).
        precision: `float32` or `bf16` (autocast of the training step).
        binarize: override of the data set's binarization, or None.
        tracked: splits evaluated after every epoch; `valid` must be among them.
        device: `cpu` or `cuda`.
        likelihood: a name of `vaes.LIKELIHOODS`.
        decoder: `mlp`, or `linear`.
        activation: after each hidden layer, a name of `vaes.ACTIVATIONS`.
        augmentation: corruptions (`bench.data.corruptions`) joined by `+`; every training image is
            followed by a copy with one of them.
        distinct: train on only so many random images (0: all), repeated up to `train_size`, so
            that a short list has epochs as long as a long one's.
        kl_weight: the KL's weight in the objective (after its warm-up); 0 leaves noise alone.
        free_bits: nats of each latent's KL, its mean over a batch, that cost nothing.
        gated: hidden layers are a linear map times a sigmoid of another.
        optimizer, betas, epsilon: a name of `bench.training.optimizers`, and its constants.
        schedule: of the learning rate, see `bench.training.schedules`.
        early_stopping: epochs without a better validation after which it ends (0: never).
        prior: a name of `vaes.PRIORS`.
        training_split: `train`, or `train+valid`, of which the last weights are the best.
    """

    variant: str
    dataset: str
    seed: int
    epochs: int
    latent_dim: int = 20
    hidden_dim: int | tuple[int, ...] = 200
    hyperparameters: tuple[tuple[str, float], ...] = ()
    batch_size: int = 100
    learning_rate: float | None = LEARNING_RATE
    estimator: str = "auto"
    samples: int = 1
    kl_warmup_epochs: int = 0
    train_size: int = 0
    steps: int = 0
    validated_every: int = 0
    precision: str = "float32"
    binarize: str | None = None
    tracked: tuple[str, ...] = ("valid",)
    device: str = "cpu"
    likelihood: str = "bernoulli"
    decoder: str = "mlp"
    activation: str = "tanh"
    augmentation: str = ""
    distinct: int = 0
    kl_weight: float = 1.0
    free_bits: float = 0.0
    gated: bool = False
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    schedule: str = "decay"
    early_stopping: int = 0
    prior: str = "standard_normal"
    training_split: str = "train"

    def with_(self, **changes) -> Run:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @property
    def networks(self) -> dict[str, object]:
        """What its variant is combined with: arguments of `vaes.with_options`."""
        names = ("likelihood", "decoder", "activation", "gated", "prior")
        return {name: getattr(self, name) for name in names}

    def apart(self, **changes) -> Run:
        """A run of another length, or other images: without the warm-up and the early stopping,
        which are of so many epochs of the run itself."""
        return self.with_(kl_warmup_epochs=0, early_stopping=0, **changes)

    def identity(self) -> dict:
        """The fields that differ from their defaults: a new option leaves old keys valid."""
        values = asdict(self)
        return {f.name: values[f.name] for f in fields(self) if values[f.name] != f.default}

    @property
    def length(self) -> str:
        """Of its training, as one says it."""
        return f"{self.steps} steps" if self.steps else f"{self.epochs} epochs"

    @property
    def but_for_length(self) -> Run:
        """What runs have in common that may share a trunk."""
        return self.with_(epochs=0, steps=0)

    @property
    def label(self) -> str:
        """For progress lines and failures: `mnist/input_dependent/seed 0`."""
        extra = ",".join(f"{k}={v:g}" for k, v in self.hyperparameters)
        name = f"{self.variant}({extra})" if extra else self.variant
        return f"{self.dataset}/{name}/seed {self.seed}"


@dataclass(frozen=True)
class Preset:
    """How much is done: a named trade of time against precision.

    Mappings go from a data set to its number, with `""` for any other (see `of_dataset`).

    Attributes:
        epochs: training epochs, by data set.
        halvings: how many shorter budgets stand beside, each half as long as the next.
        seeds: training runs a variant.
        tuned: whether learning rates are chosen on validation.
        sweep_seeds: runs of each candidate where something is chosen, by data set.
        comparison_sweep_seeds: of each candidate for a gradient estimator: at a rate that one seed
            bears another may diverge, and such trainings are short.
        elbo_samples: noise samples an image for ELBO, distortion and rate.
        importance_samples: the K of the IW bounds, ascending.
        variance_images: test images over which estimator variances are averaged.
        gradient_images: training images over which variances of gradients are averaged.
        gradient_passes: decoder passes after which a gradient's variance is reported as it is.
        gradient_seeds: trained models whose gradients are looked at.
        bound_images: training images over which gradients of L_K are averaged.
        bound_samples: posterior samples of each behind them.
        scaling_steps: training steps for each latent dimension of the scaling figure.
        comparison_steps: training steps of each gradient estimator, by data set.
        comparison_seeds: training runs a gradient estimator.
        short_lists: number of training images → training steps, by data set.
        corrupted_images: test images a seed behind a corrupted IW bound.
        refitted_images: corrupted test images a seed whose posterior is refitted.
        flexibility_seeds: runs a variant whose inference gap is split.
        flexibility_images: test images of each, with a locally optimised posterior.
        annealed_images: test images of the reference whose log p(x) is checked by annealed
            importance sampling; of others it is `flexibility_images`.
        fit_steps: steps of an optimised posterior.
    """

    epochs: Mapping[str, int]
    halvings: int = 4
    seeds: int = 5
    tuned: bool = True
    sweep_seeds: Mapping[str, int] = field(
        default_factory=lambda: {"mnist": 1, "fashion_mnist": 1, "binarized_mnist": 1, "": 2}
    )
    comparison_sweep_seeds: int = 2
    elbo_samples: int = 100
    importance_samples: tuple[int, ...] = (1, 10, 100, 1000)
    variance_images: int = 32
    gradient_images: int = 128
    gradient_passes: int = 20_000
    gradient_seeds: int = 3
    bound_images: int = 100
    bound_samples: int = 4096
    scaling_steps: int = 400
    comparison_steps: Mapping[str, int] = field(
        default_factory=lambda: {
            "mnist": 1600,
            "fashion_mnist": 1600,
            "binarized_mnist": 1600,
            "": 320,
        }
    )
    comparison_seeds: int = 5
    short_lists: Mapping[str, Mapping[int, int]] = field(
        default_factory=lambda: {
            "mnist": {250: 1000, 1000: 4000},
            "fashion_mnist": {250: 1000, 1000: 4000},
            "": {250: 1000},
        }
    )
    corrupted_images: int = 20
    refitted_images: int = 16
    flexibility_seeds: int = 5
    flexibility_images: int = 50
    annealed_images: int = 100
    fit_steps: int = 400


_EPOCHS = {
    "digits": 300,
    "mnist5k": 272,
    "mnist": 240,
    "fashion_mnist": 240,
    "ppca": 80,
}

PRESETS = {
    "default": Preset(epochs={**_EPOCHS, "": 60}),
    "quick": Preset(
        epochs={"digits": 20, "ppca": 10, "": 2},
        halvings=1,
        seeds=2,
        tuned=False,
        importance_samples=(1, 10, 100),
        variance_images=10,
        gradient_images=16,
        gradient_passes=2000,
        gradient_seeds=1,
        bound_images=8,
        bound_samples=1024,
        scaling_steps=20,
        comparison_steps={"": 20},
        comparison_seeds=2,
        short_lists={"": {250: 50}},
        corrupted_images=10,
        refitted_images=2,
        flexibility_seeds=2,
        flexibility_images=20,
        annealed_images=20,
        fit_steps=30,
    ),
    "full": Preset(epochs={**_EPOCHS, "": 60}, importance_samples=(1, 10, 100, 1000, 5000)),
}

TRAINING_SPLITS = ("train", "train+valid")
"""Images that a run trains on; the first is the default."""
PRECISIONS = ("float32", "bf16")
"""Of the training step's matrix products; the first is the default."""

SIZES = {"digits": (8, 100), "ppca": (4, 50), "": (Run.latent_dim, Run.hidden_dim)}
"""(latent_dim, hidden_dim), by data set."""

OPTIONS = {"ppca": {"likelihood": "gaussian", "decoder": "linear"}}
"""Data sets with their own model: fields of `Run`."""


def preset(name: str) -> Preset:
    """The preset of that name; raises BenchError with those there are."""
    if name not in PRESETS:
        raise BenchError(f"unknown preset '{name}': choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def of_dataset(values: Mapping[str, T], dataset: str) -> T:
    """The data set's own value, or the one of `""`, which is for any other."""
    return values.get(dataset, values[""])
