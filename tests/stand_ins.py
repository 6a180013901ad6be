"""A small folder of results, and questions that stand for the real ones in tests of pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.report import figure, results, rows
from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.section import Section
from bench.report.style import title
from bench.report.table import Column, Table
from bench.statistics import interval

VARIANTS = ("autoencoder", "fixed_variance", "flow")


@dataclass(frozen=True)
class StandIn:
    """A question with an answer of its own."""

    name: str
    asked: str
    sections: Callable[[Results], list[Section]]
    of_headline: bool = False


def elbo_rows(dataset: str = "toy", variants=VARIANTS, seeds: int = 3, shift: float = 0) -> list:
    return [
        {
            "dataset": dataset,
            "device": "cpu",
            "variant": variant,
            "seed": seed,
            "question": "headline",
            "metric": "elbo",
            "value": -100 + 3 * place + 0.1 * seed + shift,
            "unit": "nats",
        }
        for place, variant in enumerate(variants)
        for seed in range(seeds)
    ]


def history_of(variants=VARIANTS) -> pd.DataFrame:
    lines = [(v, 0, epoch, -120.0 + epoch) for v in variants for epoch in range(3)]
    return pd.DataFrame(lines, columns=["variant", "seed", "epoch", "valid_elbo"])


def environment_of(
    variants=VARIANTS, questions=("headline",), command: str = "make bench", **config
) -> dict:
    config = {"binarization": "stochastic", "preset": "quick", "seeds": 3} | config
    run = {"command": command, "variants": list(variants), "questions": list(questions)}
    return {
        "cpu": "a <processor>",
        "cores": 2,
        "packages": {"torch": "2.13"},
        "config": config | {"variants": list(variants), "questions": list(questions)},
        "runs": [run | {"commit": "abc123"}],
    }


def stored(folder: Path, **environment) -> Path:
    """A folder of results with three variants' ELBOs."""
    picture = {"pictures/flow/0/samples": np.zeros((2, 4, 4), dtype=np.uint8)}
    made = environment_of(**environment)
    results.store(folder, rows.frame(elbo_rows(folder.parent.name)), history_of(), picture, made)
    return folder


def headline(found: Results) -> list[Section]:
    elbos = found.of("headline", "elbo")
    if elbos.empty:
        return []
    variants = found.variants(elbos)
    means = {v: interval(elbos[elbos.variant == v].value) for v in variants}
    table = Table(
        "elbo",
        ["variant", Column("ELBO", best="max")],
        [[title(v), mean] for v, mean in means.items()],
        "Test ELBO.",
        variants=variants,
    )
    points = pd.DataFrame(
        [
            {"variant": v, "stage": stage, "ELBO": mean.mean, "low": mean.low, "high": mean.high}
            for v, mean in means.items()
            for stage in ("best", "end")
        ]
    )
    chart = figure.intervals(
        figure.named(points),
        ("ELBO", "ELBO [nats]"),
        figure.variant_axis(variants),
        figure.by_variant(variants),
    )
    return [
        Section(
            "What it buys",
            "`flow` **beats** the others.",
            answer="flow wins by 3 | 4 nats",
            tables=[table],
            figures=[
                Figure("elbo", "Test ELBO", "Right is better.", 'It "rises" <.', chart),
                Figure("one", "One", "As above.", "Again.", chart, filters=("stage",)),
            ],
            notes="A note.",
        )
    ]


def pictures(found: Results) -> list[Section]:
    images = found.arrays("pictures", "samples")

    def draw():
        canvas, axes = figure.subplots(2, 1)
        figure.show(axes[0, 0], figure.tiles(next(iter(images.values())), 2))
        return canvas

    drawn = Figure("samples", "Samples", "How.", "Squares.", draw=draw)
    return [Section("What is drawn", "Squares.", figures=[drawn])] if images else []


def unanswered(found: Results) -> list[Section]:
    return []


QUESTIONS = (
    StandIn("headline", "What does it buy?", headline, of_headline=True),
    StandIn("pictures", "", pictures),
    StandIn("uncertainty", "Is it sure?", unanswered),
)
