"""How a variant's hyperparameters are chosen: the highest validation ELBO over a few seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import product

from bench.config import Run
from bench.grid.tasks import Grid
from bench.training.loop import Trained

Choices = Mapping[str, Collection[float]]
"""Hyperparameter → its candidates, as a variant declares them."""


def candidates(grid: Grid, variant: str, choices: Choices) -> list[Run]:
    """The runs of every combination of candidates, on the seeds that choose."""
    if not choices:
        return []
    combinations = [tuple(zip(choices, values)) for values in product(*choices.values())]
    seeds = range(min(grid.seeds, grid.preset.sweep_seeds))
    return [grid.run(variant, seed, c) for c in combinations for seed in seeds]


def validation_elbos(runs: list[Run], trained: Mapping[Run, Trained]) -> list[tuple[Run, float]]:
    """Of each run that was trained, the validation ELBO of its best epoch."""
    return [(run, trained[run].best()["valid_elbo"]) for run in runs if run in trained]


def choose(runs: list[Run], elbos: list[tuple[Run, float]]) -> tuple[tuple[str, float], ...]:
    """The combination of the highest ELBO, averaged over seeds; () where there is no choice.

    Where no candidate could be trained, the first: its failure will be told once more.
    """
    scores: dict[tuple, list[float]] = {}
    for run, elbo in elbos:
        scores.setdefault(run.hyperparameters, []).append(elbo)
    if not scores:
        return runs[0].hyperparameters if runs else ()
    return max(scores, key=lambda candidate: sum(scores[candidate]) / len(scores[candidate]))
