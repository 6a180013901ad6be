"""What a user asked for: a `Config` checked, and turned into what a grid is made of."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from bench.config import OPTIONS, PRECISIONS, SIZES, Config, Preset, Run, of_dataset, preset
from bench.data.dataset import Dataset, load, notices_of
from bench.data.own import is_own
from bench.errors import BenchError, nearest
from bench.inference.gradients import ESTIMATORS
from bench.questions import Question, measured, named
from vaes import ACTIVATIONS, DECODERS, LIKELIHOODS, discover

CACHE = ".bench_cache"
FIELDS = {"latent": "latent_dim", "hidden": "hidden_dim", "beta": "kl_weight"}
"""Options → the fields of `Run` they set, where these have other names."""


def check(config: Config) -> None:
    """Refuse numbers and names that make no sense, before anything is loaded."""
    _rate(config)
    _hidden(config)
    least = {"seeds": 1, "epochs": 1, "samples": 1, "jobs": 0, "kl_warmup_epochs": 0}
    least |= {"latent": 1, "batch_size": 1, "beta": 0}
    for name, lowest in least.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            option = f"--{name.replace('_', '-')}"
            raise BenchError(f"{option} must be at least {lowest}, not {value}")
    known = {
        "estimator": ("auto", *ESTIMATORS),
        "precision": PRECISIONS,
        "likelihood": LIKELIHOODS,
        "decoder": DECODERS,
        "activation": ACTIVATIONS,
    }
    for kind, names in known.items():
        name = getattr(config, kind)
        if name is not None and name not in names:
            raise nearest(kind, name, names)


def preset_of(config: Config) -> Preset:
    chosen = preset(config.preset)
    if config.importance_samples is None:
        return chosen
    try:
        counts = tuple(sorted({int(part) for part in config.importance_samples.split(",")}))
    except ValueError:
        counts = ()
    if not counts or counts[0] < 1:
        raise BenchError(
            f"--importance-samples '{config.importance_samples}' must be numbers from 1 on, "
            "e.g. '1,10,100'"
        )
    return replace(chosen, importance_samples=counts)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def variants_named(text: str, console: Console) -> tuple[str, ...]:
    """The variants of a comma-separated list, or all; BenchError names what is none."""
    found = discover()
    for reason in found.broken.values():
        console.print(f"not a variant, left out: {reason}", style="yellow", markup=False)
    if text == "all":
        return tuple(found.variants)
    names = _names(text)
    for name in names:
        if name in found.broken:
            raise BenchError(f"variant '{name}' cannot be used: {found.broken[name]}")
        if name not in found.variants:
            raise nearest("variant", name, found.variants)
    if not names:
        raise BenchError("no variant named: give --variants names of files in vaes/, or 'all'")
    return tuple(sorted(names, key=list(found.variants).index))


def data_named(config: Config, console: Console) -> Dataset:
    """The data asked for; says what a user should know of their own."""
    data = load(config.dataset, config.data_dir, config.binarize)
    for notice in notices_of(data):
        console.print(f"{data.name}: {notice}", style="yellow", markup=False, soft_wrap=True)
    return data


def questions_named(text: str) -> tuple[Question, ...]:
    return measured() if text == "all" else named(_names(text))


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
    names = ("binarize", "epochs", "latent", "hidden", "activation", "batch_size", "beta")
    names += ("kl_warmup_epochs", "estimator", "samples", "likelihood", "decoder", "precision")
    asked = {FIELDS.get(name, name): getattr(config, name) for name in names}
    asked["hidden_dim"] = _hidden(config)
    own = {name: getattr(Run, name, None) for name in asked} | OPTIONS.get(data.name, {})
    own |= zip(("latent_dim", "hidden_dim"), of_dataset(SIZES, data.name))
    changed = {name: value for name, value in asked.items() if value not in (None, own[name])}
    rate = _rate(config)
    return changed if rate is None else changed | {"learning_rate": rate}


def _check_likelihood(likelihood: str | None, data: Dataset) -> None:
    likelihood = likelihood or OPTIONS.get(data.name, {}).get("likelihood", Run.likelihood)
    if data.binarization == "real" and likelihood != "gaussian":
        raise BenchError(
            f"data set '{data.name}' is real-valued and has no likelihood '{likelihood}': "
            "use --likelihood gaussian, or scale what are images to [0, 1]"
        )
    if data.binarization != "real" and likelihood == "gaussian":
        raise BenchError(
            f"likelihood 'gaussian' is a density, and '{data.name}' has quantized pixels, of which "
            "it would grow without bound: use --likelihood continuous_bernoulli --binarize none"
        )
    if likelihood == "continuous_bernoulli" and data.binarization != "none":
        raise BenchError(
            "likelihood 'continuous_bernoulli' is a density of grey values, and the images are "
            f"binary (binarization '{data.binarization}'): add --binarize none"
        )


def _hidden(config: Config) -> int | tuple[int, ...] | None:
    """Units of the hidden layers, as `Run` has them; None where the data set decides."""
    if config.hidden is None:
        return None
    with suppress(ValueError):
        if min(widths := tuple(int(part) for part in config.hidden.split(","))) > 0:
            return widths if len(widths) > 1 else widths[0]
    raise BenchError(
        f"--hidden '{config.hidden}' must be numbers of units from 1 on, e.g. '200' or '512,256'"
    )


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


def devices_of(text: str) -> list[str]:
    if text == "auto":
        return ["cuda" if torch.cuda.is_available() else "cpu"]
    devices = _names(text)
    for name in devices:
        if name not in ("cpu", "cuda"):
            raise nearest("device", name, ["auto", "cpu", "cuda"])
        if name == "cuda" and not torch.cuda.is_available():
            raise BenchError(
                "device 'cuda' was asked for but torch finds no CUDA GPU: use --device cpu"
            )
    return devices


def folder_name(config: Config, data: Dataset, overrides: dict[str, object]) -> str:
    """Results made with other settings share no table with the defaults', hence no folder."""

    def parts() -> Iterator[str]:
        yield data.name
        if is_own(config.dataset):  # another path may have the same name
            yield data.fingerprint[:6]
        for name, value in overrides.items():
            if name != "binarize":
                yield value if isinstance(value, str) else f"{name}-{_in_a_path(value)}"
        if data.binarization == "none":
            yield "grey"
        elif "binarize" in overrides:
            yield str(overrides["binarize"])
        if config.importance_samples:
            yield f"K-{config.importance_samples}"
        if config.preset != "default":
            yield config.preset

    return "-".join(parts())


def _in_a_path(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def cache_folder(config: Config) -> Path:
    return config.cache or Path(os.environ.get("BENCH_CACHE", CACHE))
