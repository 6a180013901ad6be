"""What came of a grid: its results as lines of tidy rows, its history and its pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bench.config import REFERENCE, Run
from bench.grid import FAILURE, TUNING
from bench.grid.contract import Measurement, Result, Row
from bench.grid.tasks import Grid, Task
from bench.training.loop import Trained


@dataclass
class Outcome:
    """Everything a grid has produced.

    Attributes:
        trained: headline and tuning runs.
        results: question → [(task, result)].
        chosen: variant → its chosen hyperparameters (empty where it has none).
        tuning: variant → [(run, best validation ELBO)].
        failures: task → reason.
        cached, executed: how many tasks were found done, and how many were done.
    """

    trained: dict[Run, Trained] = field(default_factory=dict)
    results: dict[Measurement, list[tuple[Task, Result]]] = field(default_factory=dict)
    chosen: dict[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    tuning: dict[str, list[tuple[Run, float]]] = field(default_factory=dict)
    failures: dict[Task, str] = field(default_factory=dict)
    cached: int = 0
    executed: int = 0

    def headline(self, grid: Grid) -> set[Run]:
        """The runs the tables are about: every variant, chosen hyperparameters, every seed."""
        return {
            grid.run(variant, seed, chosen)
            for variant, chosen in self.chosen.items()
            for seed in range(grid.seeds)
        }


def rows(grid: Grid, outcome: Outcome) -> Iterator[dict[str, object]]:
    """All rows, each a dict by the columns of `bench.report.rows`: measurements, comparisons with
    the reference, tuning and failures."""
    for question, results in outcome.results.items():
        for task, result in results:
            for row in result.rows:
                yield _line(task.run, question.name, row)
        if question.compare is not None:
            by_run = {(task.run.variant, task.run.seed): result for task, result in results}
            for variant, seed, row in question.compare(by_run, REFERENCE):
                yield _line(grid.run(variant, seed), question.name, row)
    for variant, elbos in outcome.tuning.items():
        for run, elbo in elbos:
            settings: dict[str, object] = {
                f"hyperparameter_{name}": value for name, value in run.hyperparameters
            }
            settings["chosen"] = run.hyperparameters == outcome.chosen[variant]
            yield _line(run, TUNING, Row("valid_elbo", elbo, "nats/image", settings))
    for task, reason in outcome.failures.items():
        what = task.question.name if task.question else "training"
        row = Row(what, math.nan, "", reason=f"{task.label}: {reason}")
        yield _line(task.run, FAILURE, row)


def _line(run: Run, question: str, row: Row) -> dict[str, object]:
    return {
        "dataset": run.dataset,
        "device": run.device,
        "variant": run.variant,
        "seed": run.seed,
        "question": question,
        "metric": row.metric,
        **row.settings,
        "value": row.value,
        "standard_error": row.standard_error,
        "n": row.n,
        "unit": row.unit or None,
        "reason": row.reason or None,
    }


def history(grid: Grid, outcome: Outcome) -> pd.DataFrame:
    """One line a headline run and epoch."""
    runs = outcome.headline(grid) & outcome.trained.keys()
    lines = [
        {"variant": run.variant, "seed": run.seed} | entry
        for run in sorted(runs, key=lambda run: (run.variant, run.seed))
        for entry in outcome.trained[run].history
    ]
    return pd.DataFrame(lines)


def pictures(outcome: Outcome) -> dict[str, np.ndarray]:
    """`question/variant/seed/name` → array, for the figures."""
    return {
        f"{question.name}/{task.run.variant}/{task.run.seed}/{key}": value.numpy()
        for question, results in outcome.results.items()
        for task, result in results
        for key, value in result.pictures.items()
    }
