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

from bench.config import OPTIONS, PRECISIONS, Config, Preset, Run, preset
from bench.data.dataset import Dataset
from bench.errors import BenchError, nearest
from bench.inference.gradients import ESTIMATORS
from bench.questions import Question, measured, named
from vaes import DECODERS, LIKELIHOODS, discover

CACHE = ".bench_cache"


def check(config: Config) -> None:
    """Refuse numbers and names that make no sense, before anything is loaded."""
    _rate(config)
    least = {"seeds": 1, "epochs": 1, "samples": 1, "jobs": 0, "kl_warmup_epochs": 0}
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


def questions_named(text: str) -> tuple[Question, ...]:
    return measured() if text == "all" else named(_names(text))


def overrides_of(config: Config, data: Dataset) -> dict[str, object]:
    """The fields of `Run` that are not the data set's own or the preset's."""
    if data.binarization == "real" and config.likelihood == "bernoulli":
        raise BenchError(
            f"data set '{data.name}' is real-valued and has no Bernoulli likelihood: "
            "use --likelihood gaussian"
        )
    names = ("binarize", "epochs", "kl_warmup_epochs", "estimator", "samples")
    names += ("likelihood", "decoder", "precision")
    own = {name: getattr(Run, name, None) for name in names} | OPTIONS.get(data.name, {})
    asked = {name: getattr(config, name) for name in names}
    changed = {name: value for name, value in asked.items() if value not in (None, own[name])}
    rate = _rate(config)
    return changed if rate is None else changed | {"learning_rate": rate}


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
        if Path(config.dataset).suffix.lower() == ".npz":  # another file may have the same name
            yield data.fingerprint[:6]
        for name, value in overrides.items():
            if name != "binarize":
                yield value if isinstance(value, str) else f"{name}-{value}"
        if data.binarization == "none":
            yield "grey"
        elif "binarize" in overrides:
            yield str(overrides["binarize"])
        if config.importance_samples:
            yield f"K-{config.importance_samples}"
        if config.preset != "default":
            yield config.preset

    return "-".join(parts())


def cache_folder(config: Config) -> Path:
    return config.cache or Path(os.environ.get("BENCH_CACHE", CACHE))
