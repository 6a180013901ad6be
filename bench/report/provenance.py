"""Where and how the numbers of a folder were made, and what a reader must know before them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields

import pandas as pd

from bench.config import OPTIONS, SIZES, Run, of_dataset
from bench.data.sources import SOURCES
from bench.errors import readable
from bench.grid import TUNING
from bench.options import OPTION_OF
from bench.report.results import Results
from bench.report.section import item

GREY = (
    "Grey pixels: these are cross-entropies of intensities, not likelihoods; they share no table "
    "with binarized runs."
)
QUICK = (
    "Quick: a check that everything runs. Trainings are far too short for a verdict to say "
    "anything of the variants."
)
FORMER = (
    "Former protocol: made by an earlier version of this suite, with shorter trainings whose "
    "learning rates were not chosen. The command below now does more, and finds other numbers."
)


def made(found: Results) -> dict[str, object]:
    """Where and how the numbers were made, and the commands that make them again."""
    environment = found.environment
    if not environment:
        return {}
    config, runs = environment["config"], environment["runs"]
    machine = environment.get("gpu") or environment.get("cpu") or "unknown machine"
    torch = environment.get("packages", {}).get("torch", "unknown")
    chose = [run for run in runs if run.get("questions") == [TUNING]]
    epochs = _epochs(found)
    return {
        "machine": f"{machine}, {environment.get('cores', '?')} cores, torch {torch}",
        "commit": _commits(run for run in runs if run not in chose),
        "chosen_at": _commits(chose),
        "seeds": config.get("seeds", "?"),
        "preset": config.get("preset", "?"),
        "epochs": epochs,
        "trained": epochs and f"{epochs}, {_chosen(config)}",
        "binarization": config.get("binarization", "?"),
        "settings": _settings(config),
        "trainings": _networks(found) + _images(found),
        "warnings": [*_warnings(config)],
        "notices": [*environment.get("notices", []), *_notice(found)],
        "again": readable(" && ".join(str(run["command"]) for run in runs)),
    }


def _commits(runs: Iterable[Mapping[str, object]]) -> str:
    return ", ".join(dict.fromkeys(str(run.get("commit") or "unknown") for run in runs))


def _epochs(found: Results) -> str:
    """How long the runs of the tables were trained; "" where none was."""
    epochs = found.history.reindex(columns=["epoch"]).epoch.max()
    return "" if pd.isna(epochs) else f"{epochs:,.0f} epoch" + "s" * int(epochs != 1)


def _chosen(config: Mapping[str, object]) -> str:
    """How the learning rates were chosen."""
    rate = config.get("learning_rate")
    how = "one learning rate for all" if rate is None else f"learning rate {rate:g} for all"
    if "learning_rate" in config and rate is None:
        how = "learning rates chosen on validation"
    if _is_former(config):
        how += " (former protocol)"
    return how


def _settings(config: Mapping[str, object]) -> str:
    """What of a run differs from the defaults, as one says it."""
    elsewhere = {"dataset", "epochs", "learning_rate", "binarize"}
    told = {field.name for field in fields(Run)} - elsewhere

    def said(name: str, value: object) -> str:
        value = "-".join(map(str, value)) if isinstance(value, list) else value
        return f"{OPTION_OF.get(name, name).replace('_', ' ')} {value}"

    return ", ".join(said(name, value) for name, value in config.items() if name in told)


def schedule_of(found: Results) -> str:
    """What the learning rate does in the course of a training, after `the rate`."""
    name = found.environment.get("config", {}).get("schedule", Run.schedule)
    said = {
        "decay": "falls to 2 % of its value over the last fifth",
        "constant": "is constant over the steps",
        "cosine": "falls by half a cosine over the steps",
    }
    return said.get(name, f"follows the schedule `{name}` over the steps")


def _warnings(config: Mapping[str, object]) -> Iterator[str]:
    bernoulli = config.get("likelihood", Run.likelihood) == Run.likelihood
    if config.get("binarization") == "none" and bernoulli:
        yield GREY
    if config.get("preset") == "quick":
        yield QUICK
    if _is_former(config):
        yield FORMER


def _is_former(config: Mapping[str, object]) -> bool:
    """Before rates were chosen, none was noted."""
    return "learning_rate" not in config


def _networks(found: Results) -> str:
    """The networks that variants share, as `784-200-200-20`, and how they are trained."""
    config, shape = found.environment["config"], found.environment.get("image_shape")
    if not shape:
        return ""
    config = OPTIONS.get(config.get("dataset", ""), {}) | config
    latent, hidden = of_dataset(SIZES, config.get("dataset", ""))
    latent, hidden = config.get("latent_dim", latent), config.get("hidden_dim", hidden)
    layers = [hidden] * 2 if isinstance(hidden, int) else hidden
    sizes = "-".join(map(str, [math.prod(shape), *layers, latent]))
    decoder = "linear" if config.get("decoder") == "linear" else "the mirror image"
    activation = "gated" if config.get("gated") else config.get("activation", Run.activation)
    optimizer = config.get("optimizer", Run.optimizer).replace("adam", "Adam").replace("_", " ")
    return (
        f"Encoder {sizes} ({activation}), decoder {decoder}, unless a variant has its own; "
        f"{optimizer} on batches of {config.get('batch_size', Run.batch_size)}."
    )


def _images(found: Results) -> str:
    images = found.environment.get("images")
    if not images:
        return ""
    train, valid, test = (f"{images[split]:,}" for split in ("train", "valid", "test"))
    real = found.environment["config"].get("binarization") == "real"
    kind = "points" if real else "images"
    return f" {train} {kind} to train, {valid} to validate and {test} to test on."


def _notice(found: Results) -> Iterator[str]:
    """What the data set's own binarization means beside published numbers, and what an image is."""
    config = found.environment["config"]
    source = SOURCES.get(config.get("dataset", ""))
    if source and source.notice and config.get("binarization") == source.binarization:
        yield source.notice
    if item(found) == "point":
        yield "what is called an image below is one of its points"
