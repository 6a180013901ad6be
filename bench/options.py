"""What a user asks for: the options of the command line, as one types them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OPTION_OF = {"latent_dim": "latent", "hidden_dim": "hidden", "kl_weight": "beta"}
"""Field of a run → the option that sets it, where that has another name."""


@dataclass(frozen=True)
class Config:
    """What a user asks a bench for; every field is an option of the command line."""

    dataset: str = "mnist5k"
    """digits, mnist5k, mnist, fashion_mnist, binarized_mnist, ppca, or a path to your own: an .npz,
    .npy, .mat or idx file, or a folder of images (class by class or flat) or of such files."""

    variants: str = "all"
    """Comma-separated names of files in vaes/, or paths of others, or 'all' for those in vaes/."""

    seeds: int | None = None
    """Training runs a variant (default: the preset's)."""

    device: str = "auto"
    """auto, cpu, cuda, or 'cpu,cuda'."""

    jobs: int = 0
    """Worker processes, one thread each (0: one a core)."""

    engine: str = "local"
    """local (processes of this machine), or dask: the workers of a cluster, see --scheduler."""

    scheduler: str | None = None
    """Address of a cluster's Dask scheduler, e.g. tcp://host:8786."""

    preset: str = "default"
    """How much is done: default, quick, full."""

    questions: str = "all"
    """Comma-separated names of folders in bench/questions/, or 'all'."""

    binarize: str | None = None
    """Override: none (grey), threshold, stochastic."""

    epochs: int | None = None
    """Override the preset's epochs."""

    latent: int | None = None
    """Dimensions of the code (default: the data set's own, mostly 20)."""

    hidden: str | None = None
    """Units of hidden layers: '200' is two layers of 200, '512,256' each in turn, '400,' a single
    one (default: the data set's own, mostly 200)."""

    activation: str = "tanh"
    """After each hidden layer: tanh, relu, leaky_relu, elu, gelu, silu, softplus."""

    gated: bool = False
    """Hidden layers are a linear map times a sigmoid of another, in place of an activation."""

    prior: str = "standard_normal"
    """standard_normal, or learned: mixture (of 50 Gaussians), vamp (of 50 posteriors)."""

    batch_size: int = 100
    """Images a step."""

    kl_warmup_epochs: int = 0
    """Epochs over which the KL's weight rises from 0 to its own."""

    beta: float = 1.0
    """Weight of the KL in the training's objective; what is tabled is the ELBO all the same."""

    free_bits: float = 0.0
    """Nats of each latent's KL that cost nothing in training; what is tabled is the ELBO."""

    learning_rate: str = "auto"
    """A number, or 'auto': chosen on validation for each variant and length of training."""

    hyperparameters: str = ""
    """Of variants that declare some, e.g. 'scale=0.3' (default: each chosen on validation)."""

    train_size: int = 0
    """Train on only so many random images, other ones for each seed (0: all)."""

    optimizer: str = "adam"
    """adam, adam_normalized (each tensor's gradient divided by its norm), adamw, adamax, rmsprop,
    sgd."""

    betas: str = "0.9,0.999"
    """Of Adam and its kin; RMSprop averages with the second, SGD has the first as momentum."""

    epsilon: float = 1e-8
    """Of Adam and its kin, and of RMSprop."""

    schedule: str = "decay"
    """Of the learning rate: decay (linear to 2 % over the last fifth), constant, cosine, stages
    (Burda et al. 2016), exponential:N (tenfold down over N epochs)."""

    early_stopping: int = 0
    """Epochs without a better validation score after which a training ends (0: never)."""

    training_split: str = "train"
    """train, or train+valid: validation images too, which then choose nothing."""

    objective: str = "elbo"
    """elbo, or iwae: the bound L_K with K = samples; the best epoch is by the ELBO all the same."""

    estimator: str = "auto"
    """Gradient estimator of the training, or 'auto' (pathwise where it is admitted); iwae, dreg and
    iwae_sticking_the_landing follow L_K with K = samples."""

    samples: int = 1
    """Noise samples an image and step."""

    precision: str = "float32"
    """Of the training step: float32, bf16."""

    likelihood: str | None = None
    """bernoulli, gaussian, continuous_bernoulli (default: the data set's own)."""

    decoder: str | None = None
    """mlp, linear (default: the data set's own)."""

    importance_samples: str | None = None
    """K of the IW bounds, e.g. '1,10,100' (default: the preset's)."""

    data_dir: str | None = None
    """Folder of the data files (default: $BENCH_DATA)."""

    config: Path | None = None
    """A TOML file of such options, e.g. `hidden = [512, 256]`; the command line overrides it."""

    results: Path = Path("results")
    """Folder the tables and figures go to."""

    cache: Path | None = None
    """Folder of finished runs (default: $BENCH_CACHE, or .bench_cache)."""


def listed(text: str) -> list[str]:
    """The names of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def as_typed(name: str, value: object) -> object:
    """A value of a TOML file as one types it: `hidden = [512, 256]` is `--hidden 512,256`,
    `hidden = [400]`, a single layer, is `--hidden 400,`, and `hyperparameters = {scale = 0.3}` is
    `--hyperparameters scale=0.3`."""
    if isinstance(value, dict):
        return ",".join(f"{key}={number}" for key, number in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value)) + "," * (name == "hidden" and len(value) == 1)
    return value
