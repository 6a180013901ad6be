"""A user's `Config` checked, and turned into what a grid is made of."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import torch
from rich.console import Console

from bench.commands import limits
from bench.commands.contestants import variant_files
from bench.config import (
    OPTIONS,
    PRECISIONS,
    SIZES,
    TRAINING_SPLITS,
    Preset,
    Run,
    of_dataset,
    preset,
)
from bench.data.dataset import REAL, Dataset, load, notices_of
from bench.data.own import is_own
from bench.data.sources import SOURCES
from bench.data.traps import no_density_of_pixels
from bench.errors import BenchError, nearest
from bench.grid.tasks import Grid
from bench.inference.gradients import ESTIMATORS, of_bound
from bench.machine.console import say
from bench.machine.places import usable
from bench.options import OPTION_OF, Config, as_typed, listed
from bench.questions import Question, measured, named
from bench.report import page
from bench.training.optimizers import OPTIMIZERS
from bench.training.schedules import schedule
from vaes import (
    ACTIVATIONS,
    DECODERS,
    LIKELIHOODS,
    PRIORS,
)

CACHE = ".bench_cache"
ENGINES = ("local", "dask")
"""What runs a grid's tasks; the first is the default."""
BOUND_OF = {"elbo": "elbo", "iwae": "iw_bound"}
"""Objective → what its estimators differentiate, of `bench.inference.gradients.BOUNDS`."""
FIELDS = {option: field for field, option in OPTION_OF.items()}
"""Options → the fields of `Run` they set, where these have other names."""


def config_of(options: Mapping[str, object]) -> Config:
    """A `Config` of options as a TOML file has them; BenchError names what is no option."""
    known = {f.name.replace("_", "-"): f for f in fields(Config)}
    given = {}
    for name, value in options.items():
        if name not in known:
            raise nearest("option", name, known)
        typed = as_typed(name, value)
        given[known[name].name] = str(typed) if "str" in known[name].type else typed
    return Config(**given)


def jobs_of(config: Config) -> int:
    """Worker processes: as many as asked for, or one a core that this process may use."""
    from joblib import cpu_count  # knows affinity and the quota of a control group

    return config.jobs or cpu_count()


def check(config: Config) -> None:
    """Refuse numbers and names that make no sense, before anything is loaded."""
    preset_of(config)
    _rate(config)
    _hidden(config)
    _betas(config)
    _hyperparameters(config)
    schedule(config.schedule)
    for field in fields(config):
        if field.name in limits.LIMITS:
            limits.check(field.name, getattr(config, field.name))
    if not 0 < config.epsilon < math.inf:
        raise BenchError(f"--epsilon must be above 0, e.g. 1e-8, not {config.epsilon}")
    known = {
        "estimator": ("auto", *ESTIMATORS),
        "precision": PRECISIONS,
        "likelihood": LIKELIHOODS,
        "decoder": DECODERS,
        "activation": ACTIVATIONS,
        "prior": PRIORS,
        "optimizer": OPTIMIZERS,
        "objective": BOUND_OF,
        "training_split": TRAINING_SPLITS,
    }
    for kind, names in known.items():
        name = getattr(config, kind)
        if name is not None and name not in names:
            raise nearest(kind.replace("_", " "), name, names)
    _check_together(config)
    check_engine(config)
    page.refuse_foreign(config.results)


def check_engine(config: Config) -> None:
    """Refuse an engine without what it needs."""
    if config.engine not in ENGINES:
        raise nearest("engine", config.engine, ENGINES)
    if config.engine == "dask" and not config.scheduler:
        raise BenchError("--engine dask needs --scheduler, e.g. tcp://host:8786")
    if config.engine == "local" and config.scheduler:
        raise BenchError("--scheduler is of a cluster: add --engine dask")


def _check_together(config: Config) -> None:
    """Refuse settings of which one makes another void."""
    if config.gated and config.activation != Config.activation:
        raise BenchError("--gated layers have no --activation: drop one of the two")
    if config.optimizer == "sgd" and config.epsilon != Config.epsilon:
        raise BenchError("--optimizer sgd has no --epsilon: drop one of the two")
    if config.optimizer == "rmsprop" and _betas(config)[0] != _betas(Config())[0]:
        raise BenchError(
            "--optimizer rmsprop averages with the second of --betas alone: leave the first at "
            f"{_betas(Config())[0]:g}"
        )
    if config.free_bits and not config.beta:
        raise BenchError("--beta 0 leaves no KL of which --free-bits are free: drop one of the two")
    if config.kl_warmup_epochs and not config.beta:
        raise BenchError("--beta 0 leaves no KL to warm up to: drop --kl-warmup-epochs")
    steps = 1000
    if config.early_stopping and schedule(config.schedule).common(steps) < steps - 1:
        raise BenchError(
            "--early-stopping may end a training before its learning rate decays: "
            "add --schedule constant"
        )
    if config.early_stopping and config.training_split != Config.training_split:
        raise BenchError(
            f"--training-split {config.training_split} leaves no images to stop early by: drop "
            "--early-stopping"
        )
    if config.training_split != Config.training_split and config.learning_rate == "auto":
        raise BenchError(
            f"--training-split {config.training_split} leaves no images to choose a learning rate "
            "by: add --learning-rate, e.g. 1e-3"
        )
    bound, estimator = BOUND_OF[config.objective], ESTIMATORS.get(config.estimator)
    if config.objective != Config.objective and estimator and estimator.bound != bound:
        raise BenchError(
            f"estimator '{config.estimator}' does not follow --objective {config.objective}: use "
            f"one of {', '.join(of_bound(bound))}"
        )


def preset_of(config: Config) -> Preset:
    chosen = preset(config.preset)
    if config.importance_samples is None:
        return chosen
    counts = limits.counts(config.importance_samples, limits.MOST_IMPORTANCE_SAMPLES)
    if counts is None:
        raise BenchError(
            f"--importance-samples '{config.importance_samples}' must be numbers from 1 to "
            f"{limits.MOST_IMPORTANCE_SAMPLES:,}, e.g. '1,10,100'"
        )
    return replace(chosen, importance_samples=tuple(sorted(set(counts))))


def data_named(config: Config, console: Console) -> Dataset:
    """The data asked for; says what a user should know of their own."""
    data = data_of(config)
    for notice in notices_of(data):
        say(console, f"{data.name}: {notice}", "yellow")
    return data


def data_of(config: Config) -> Dataset:
    """The data asked for."""
    return load(config.dataset, config.data_dir, _binarization(config))


def _binarization(config: Config) -> str | None:
    """As asked for; a path with a density of real values is meant as a table."""
    meant = config.binarize is None and config.likelihood == "gaussian" and is_own(config.dataset)
    return REAL if meant else config.binarize


def questions_named(text: str) -> tuple[Question, ...]:
    return measured() if text == "all" else named(listed(text))


def overrides_of(config: Config, data: Dataset) -> dict[str, object]:
    """The fields of `Run` that are not the data set's own or the preset's.

    Raises BenchError for what makes no sense with these data or this length.
    """
    _check_likelihood(config.likelihood, data)
    epochs = config.epochs or of_dataset(preset(config.preset).epochs, data.name)
    if config.kl_warmup_epochs > epochs:
        raise BenchError(
            f"--kl-warmup-epochs {config.kl_warmup_epochs} is longer than the training of "
            f"{epochs} epochs, whose KL would never reach its weight: give fewer, or more --epochs"
        )
    elsewhere = {"dataset", "device", "learning_rate", "hyperparameters"}
    of_a_run = {f.name for f in fields(Run)} - elsewhere
    if config.train_size > len(data.train):
        raise BenchError(
            f"--train-size {config.train_size:,} is more than the {len(data.train):,} training "
            f"images of '{data.name}': give fewer, or leave it out"
        )
    named = {FIELDS.get(f.name, f.name): getattr(config, f.name) for f in fields(Config)}
    asked = {name: value for name, value in named.items() if name in of_a_run}
    asked |= {"hidden_dim": _hidden(config), "betas": _betas(config)}
    asked |= {"binarize": _binarization(config)}
    if config.objective == "iwae" and config.estimator == "auto":
        asked["estimator"] = "iwae"
    own = {name: getattr(Run, name, None) for name in asked} | OPTIONS.get(data.name, {})
    own["binarize"] = SOURCES[data.name].binarization if data.name in SOURCES else "stochastic"
    own |= zip(("latent_dim", "hidden_dim"), of_dataset(SIZES, data.name))
    changed = {name: value for name, value in asked.items() if value not in (None, own[name])}
    if config.training_split != Config.training_split and data.binarization == "stochastic":
        raise BenchError(
            f"the validation images of '{data.name}' are binarized once, those for training at "
            "every step, and cannot be joined: add --binarize threshold or none"
        )
    rate = _rate(config)
    return changed if rate is None else changed | {"learning_rate": rate}


def _check_likelihood(likelihood: str | None, data: Dataset) -> None:
    likelihood = likelihood or OPTIONS.get(data.name, {}).get("likelihood", Run.likelihood)
    if data.binarization == REAL and likelihood != "gaussian":
        raise BenchError(
            f"data set '{data.name}' is real-valued and has no likelihood '{likelihood}': "
            "use --likelihood gaussian, or scale what are images to [0, 1]"
        )
    if data.binarization != REAL and likelihood == "gaussian":
        raise no_density_of_pixels(data.name)
    if likelihood == "continuous_bernoulli" and data.binarization != "none":
        raise BenchError(
            "likelihood 'continuous_bernoulli' is a density of grey values, and the images are "
            + (
                "zeros and ones: use --likelihood bernoulli"
                if data.binarization == "binary"
                else f"binarized ('{data.binarization}'): add --binarize none"
            )
        )


def _hidden(config: Config) -> int | tuple[int, ...] | None:
    """Units of the hidden layers, as `Run` has them; None where the data set decides."""
    if config.hidden is None:
        return None
    widths = limits.counts(config.hidden.removesuffix(","), limits.MOST_UNITS)
    if widths is None:
        raise BenchError(
            f"--hidden '{config.hidden}' must be numbers of units from 1 to "
            f"{limits.MOST_UNITS:,}, e.g. '200' or '512,256'"
        )
    return widths if "," in config.hidden else widths[0]


def _betas(config: Config) -> tuple[float, float]:
    with suppress(ValueError):
        first, second = (float(part) for part in config.betas.split(","))
        if 0 <= first < 1 and 0 <= second < 1:
            return first, second
    raise BenchError(
        f"--betas '{config.betas}' must be two numbers from 0 to below 1, e.g. '0.9,0.999'"
    )


def _hyperparameters(config: Config) -> tuple[tuple[str, float], ...]:
    """Those given, by name."""
    pairs = [pair.split("=") for pair in listed(config.hyperparameters)]
    try:
        given = {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        given = {"": math.nan}
    if len(given) < len(pairs) or not all(math.isfinite(value) for value in given.values()):
        raise BenchError(
            f"--hyperparameters '{config.hyperparameters}' must be names and numbers, e.g. "
            "'scale=0.3'"
        )
    return tuple(sorted(given.items()))


def _rate(config: Config) -> float | None:
    """The learning rate asked for; None where it is chosen on validation."""
    if config.learning_rate == "auto":
        return None
    with suppress(ValueError):
        if 0 < (rate := float(config.learning_rate)) < math.inf:
            return rate
    raise BenchError(
        f"--learning-rate '{config.learning_rate}' must be 'auto' or a number above 0, e.g. 1e-3"
    )


def devices_of(text: str, engine: str = Config.engine) -> list[str]:
    """The devices named; `auto` is what this machine has, on a cluster a CPU."""
    here = engine == Config.engine
    if text == "auto":
        return ["cuda" if here and torch.cuda.is_available() else "cpu"]
    if not (devices := [*dict.fromkeys(listed(text))]):
        raise BenchError("no device named: choose from auto, cpu, cuda")
    for name in devices:
        if name == "gpu":
            raise BenchError("unknown device 'gpu': did you mean 'cuda'?")
        if name not in ("cpu", "cuda"):
            raise nearest("device", name, ["auto", "cpu", "cuda"])
        if name == "cuda" and here and not torch.cuda.is_available():
            raise BenchError(
                "device 'cuda' was asked for but torch finds no CUDA GPU: use --device cpu"
            )
    return devices


def grid(
    config: Config,
    data: Dataset,
    variants: tuple[str, ...],
    questions: tuple[Question, ...],
    device: str,
) -> Grid:
    """What is to be run on a device."""
    chosen = preset_of(config)
    seeds = config.seeds or chosen.seeds
    made = Grid(
        config.dataset,
        variants,
        seeds,
        # test images are dealt to that many
        replace(chosen, seeds=max(seeds, chosen.seeds)),
        device,
        tuple(overrides_of(config, data).items()),
        config.data_dir,
        cache_folder(config),
        questions,
        variant_files(config.variants),
        _hyperparameters(config),
    )
    _check_hyperparameters(made)
    return made


def _check_hyperparameters(grid: Grid) -> None:
    """Refuse those given that no variant declares, and values that cannot be meant."""
    declared = {n: values for v in grid.variants for n, values in grid.known[v].choices.items()}
    for name, value in grid.hyperparameters:
        if name not in declared:
            if not declared:
                raise BenchError(
                    f"no variant named has a hyperparameter '{name}': leave --hyperparameters out"
                )
            raise nearest("hyperparameter", name, declared)
        if isinstance(declared[name][0], int) and not value.is_integer():
            raise BenchError(f"--hyperparameters {name} must be a whole number, not {value:g}")
        if value <= 0 < min(declared[name]):
            raise BenchError(f"--hyperparameters {name} must be above 0, not {value:g}")


def folder_name(config: Config, data: Dataset, overrides: dict[str, object]) -> str:
    """Results made with other settings share no table with the defaults', hence no folder."""

    def parts() -> Iterator[str]:
        yield data.name
        if is_own(config.dataset):  # another path may have the same name
            yield data.fingerprint[:6]
        for name, value in overrides.items():
            if name != "binarize":
                yield _in_a_path(name, value)
        for name, value in _hyperparameters(config):
            yield _in_a_path(name, value)
        if data.binarization == "none":
            yield "grey"
        elif overrides.get("binarize") not in (None, REAL):
            yield str(overrides["binarize"])
        if config.importance_samples:
            yield f"K-{config.importance_samples}"
        if config.preset != "default":
            yield config.preset

    return "-".join(parts())


def _in_a_path(name: str, value: object) -> str:
    if isinstance(value, str):
        return value.replace(":", "-")
    if value is True:
        return name
    if isinstance(value, tuple) and len(value) == 1:  # not the two layers of a bare number
        value = (*value, "alone")
    return "-".join(map(str, (name, *(value if isinstance(value, tuple) else (value,)))))


def cache_folder(config: Config) -> Path:
    return config.cache or usable("$BENCH_CACHE", os.environ.get("BENCH_CACHE") or CACHE)
