"""What came of a grid: its results as lines of tidy rows, its history and its pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bench.config import REFERENCE, Run
from bench.errors import readable
from bench.grid import FAILURE, TUNING
from bench.grid.contract import Measurement, Result, Row, what_was_trained
from bench.grid.tasks import Grid, Task
from bench.grid.tuning import Contest
from bench.training.loop import Trained


@dataclass
class Spent:
    """What a purpose took: tasks done, and seconds of the one core each ran on."""

    tasks: int = 0
    seconds: float = 0.0


@dataclass
class Outcome:
    """Everything a grid has produced.

    Attributes:
        trained: every run that was trained, or found trained.
        headline: the runs that the tables are about.
        results: question → [(task, result)].
        contests: what was chosen on validation, with all its candidates.
        failures: task → reason.
        cached, executed: how many tasks were found done, and how many were done.
        spent: purpose (a question, training, tuning) → what was done for it.
        workers: those of other machines → what they run on, as `Done.where`.
    """

    trained: dict[Run, Trained] = field(default_factory=dict)
    headline: set[Run] = field(default_factory=set)
    results: dict[Measurement, list[tuple[Task, Result]]] = field(default_factory=dict)
    contests: list[Contest] = field(default_factory=list)
    failures: dict[Task, str] = field(default_factory=dict)
    cached: int = 0
    executed: int = 0
    spent: dict[str, Spent] = field(default_factory=dict)
    workers: dict[str, Mapping[str, str | None]] = field(default_factory=dict)

    def spend(self, purpose: str, seconds: float) -> None:
        """A task was done for a purpose."""
        spent = self.spent.setdefault(purpose, Spent())
        spent.tasks += 1
        spent.seconds += seconds


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
    for contest in outcome.contests:
        yield from _tuning_lines(contest)
    for task, reason in outcome.failures.items():
        what = task.question.name if task.question else "training"
        row = Row(what, math.nan, "", reason=f"{task.label}: {reason}")
        yield _line(task.run, FAILURE, row)


def _tuning_lines(contest: Contest) -> Iterator[dict[str, object]]:
    """A line a candidate and seed."""
    bound = "valid_elbo" if contest.open.kl_weight == 1 else "valid_objective"
    metric = bound if contest.is_elbo else "valid_cross_entropy"
    chosen = contest.chosen()
    for candidate, scores in contest.scores.items():
        settings = what_was_trained(candidate) | {"chosen": candidate == chosen}
        for seed, score in scores.items():
            run = candidate.with_(seed=seed)
            reason = contest.reasons.get(run, "")
            value = math.nan if reason else score if contest.is_elbo else -score
            yield _line(run, TUNING, Row(metric, value, "nats/image", settings, reason=reason))


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
        "reason": readable(row.reason) or None,
    }


def history(outcome: Outcome) -> pd.DataFrame:
    """One line a headline run and epoch."""
    runs = outcome.headline & outcome.trained.keys()
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
