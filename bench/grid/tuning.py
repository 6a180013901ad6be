"""How a run's learning rate and hyperparameters are chosen: the highest validation score of its
own training, over a few seeds.

A climb on a grid: from a start every neighbour is tried, the best of all tried is the next centre,
until a centre beats its neighbours on both sides of every axis, as far as the axes reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.config import LEARNING_RATE, Run
from bench.training.loop import Trained

RATES = tuple(LEARNING_RATE * 2.0**k for k in range(-12, 13))
"""Learning rates, a factor of 2 apart, far beyond where any training was best."""
STARTS = (LEARNING_RATE, 4 * LEARNING_RATE)
"""Lowest and highest learning rate that a climb starts from."""
BEYOND = 3
"""By so many steps a variant's own candidates may be extended at either end."""

Choices = Mapping[str, Sequence[float]]
"""Hyperparameter → its candidates, as a variant declares them."""
Recorded = Callable[[Run], Run | None]
"""What was chosen for an open run before, or None."""


def start_rate(steps: int) -> float:
    """Where a climb starts: longer trainings choose less, as the root of their steps, to 0.001.

    On `mnist5k`, where 525 steps chose 0.004 to 0.008 and 8,400 chose 0.0005 to 0.001; on `mnist`
    120,000 still chose 0.001.

    >>> [start_rate(steps) for steps in (525, 2100, 8400, 120_000)]
    [0.004, 0.002, 0.001, 0.001]
    """
    low, high = STARTS
    wanted = min(high, max(low, LEARNING_RATE * math.sqrt(8400 / steps)))
    return min(RATES, key=lambda rate: abs(math.log(rate / wanted)))


def opened(run: Run, rate: float | None) -> Run:
    """The run with all that is to be chosen left open: the same for all seeds; a rate is fixed."""
    return run.with_(seed=0, learning_rate=rate, hyperparameters=())


def _on_clean_images(run: Run) -> Run:
    """The run whose choice it takes: of as many steps, without the noisy copy of every image."""
    return run.with_(augmentation="", epochs=2 * run.epochs) if run.augmentation else run


@dataclass
class Contest:
    """The candidates for one open run.

    Attributes:
        open: learning rate None where it is to be chosen, and no hyperparameters.
        axes: what is chosen → its values, ascending.
        start: what is chosen → the value that the climb starts at.
        seeds: how many runs a candidate has.
        scores: candidate (its first seed) → seed → validation score, −∞ where it failed.
        reasons: why runs failed.
        under_way: runs asked for and not yet told of.
        is_elbo: whether scores are ELBOs (an autoencoder's are minus its cross-entropy).
    """

    open: Run
    axes: Mapping[str, Sequence[float]]
    start: Mapping[str, float]
    seeds: int
    scores: dict[Run, dict[int, float]] = field(default_factory=dict)
    reasons: dict[Run, str] = field(default_factory=dict)
    under_way: set[Run] = field(default_factory=set)
    is_elbo: bool = True

    def tell(self, run: Run, score: float, reason: str = "") -> None:
        """What a candidate's run has reached."""
        self.scores.setdefault(run.with_(seed=0), {})[run.seed] = score
        self.under_way.discard(run)
        if reason:
            self.reasons[run] = reason

    def succeeded(self) -> bool:
        """Whether what is chosen could be trained with every seed."""
        chosen = self.chosen()
        return chosen is not None and sum(self.scores[chosen].values()) > -math.inf

    def further(self) -> list[Run]:
        """The runs to be trained next; none while others are under way, or at the end."""
        runs = [] if self.under_way else self._unknown()
        self.under_way.update(runs)
        return runs

    def chosen(self) -> Run | None:
        """The candidate that beats its neighbours; None while that is not known."""
        return None if self.under_way or self._unknown() else self._centre()

    def _unknown(self) -> list[Run]:
        centre = self._centre()
        return [r for c in (centre, *self._neighbours(centre)) for r in self._missing(c)]

    def _missing(self, candidate: Run) -> list[Run]:
        known = self.scores.get(candidate, {})
        return [candidate.with_(seed=s) for s in range(self.seeds) if s not in known]

    def _centre(self) -> Run:
        whole = {c: known for c, known in self.scores.items() if len(known) == self.seeds}
        if not whole:
            return self._candidate(self.start)
        return max(whole, key=lambda candidate: sum(whole[candidate].values()))

    def _neighbours(self, candidate: Run) -> Iterator[Run]:
        at = {"learning_rate": candidate.learning_rate, **dict(candidate.hyperparameters)}
        point = {name: at[name] for name in self.axes}
        for name, values in self.axes.items():
            place = list(values).index(point[name])
            for value in [*values[max(0, place - 1) : place], *values[place + 1 : place + 2]]:
                yield self._candidate({**point, name: value})

    def _candidate(self, point: Mapping[str, float]) -> Run:
        rate = point.get("learning_rate", self.open.learning_rate)
        pairs = tuple((n, v) for n, v in point.items() if n != "learning_rate")
        return self.open.with_(learning_rate=rate, hyperparameters=pairs)


def extended(values: Sequence[float]) -> tuple[float, ...]:
    """Positive fractional candidates continued at both ends by their own ratios; others as given.

    >>> [round(value, 4) for value in extended((0.1, 0.2, 0.3))]
    [0.0125, 0.025, 0.05, 0.1, 0.2, 0.3, 0.45, 0.675, 1.0125]
    """
    values = sorted(values)
    if len(values) < 2 or values[0] <= 0 or not all(isinstance(v, float) for v in values):
        return tuple(values)
    below, above = values[0] / values[1], values[-1] / values[-2]
    lower = [values[0] * below**k for k in range(BEYOND, 0, -1)]
    return (*lower, *values, *(values[-1] * above**k for k in range(1, BEYOND + 1)))


class Tuning:
    """The choices of a grid: fixed, recorded, made, or under way.

    Attributes:
        steps: how many a run takes.
        contests: open run → its candidates.
    """

    def __init__(
        self,
        rate: float | None,
        seeds: Callable[[Run], int],
        choices: Mapping[str, Choices],
        recorded: Recorded,
        steps: Callable[[Run], int],
    ) -> None:
        self.rate, self.seeds, self.choices, self.recorded = rate, seeds, choices, recorded
        self.steps = steps
        self.contests: dict[Run, Contest] = {}

    def resolved(self, run: Run) -> Run | None:
        """The run with what was chosen for it; None while its candidates compete."""
        choices = self.choices[run.variant]
        if run.learning_rate is not None and (run.hyperparameters or not choices):
            return run
        open_run = opened(_on_clean_images(run), self.rate)
        if self.rate is not None and all(len(values) == 1 for values in choices.values()):
            given = tuple((name, value) for name, (value,) in choices.items())
            return run.with_(learning_rate=self.rate, hyperparameters=given)
        # what is recorded was chosen with its own rate
        known = self.recorded(open_run) if self.rate is None else None
        chosen = known or self._contest(open_run, choices).chosen()
        return chosen and run.with_(
            learning_rate=chosen.learning_rate, hyperparameters=chosen.hyperparameters
        )

    def _contest(self, open_run: Run, choices: Choices) -> Contest:
        if open_run not in self.contests:
            axes = {name: extended(values) for name, values in choices.items()}
            start = {name: values[(len(values) - 1) // 2] for name, values in choices.items()}
            if self.rate is None:
                axes["learning_rate"], start["learning_rate"] = (
                    RATES,
                    start_rate(self.steps(open_run)),
                )
            seeds = self.seeds(open_run)
            self.contests[open_run] = Contest(open_run, axes, start, seeds)
        return self.contests[open_run]

    def further(self) -> list[Run]:
        """The runs that the contests under way need next."""
        return [run for contest in self.contests.values() for run in contest.further()]

    def tell(self, run: Run, trained: Trained | None, reason: str = "") -> bool:
        """A run is trained, or failed; whether a contest waited for its score."""
        contest = self.contests.get(opened(run, self.rate))
        if contest is None or run not in contest.under_way:
            return False
        if trained is None:
            contest.tell(run, -math.inf, reason)
        else:
            best = trained.best()
            contest.is_elbo = not math.isnan(best["valid_elbo"])
            contest.tell(run, trained.score(best))
        return True
