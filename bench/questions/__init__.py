"""What is measured: one folder a question, listed once, in the order of the page.

A folder holds `measure.py` (a trained model → rows; see `bench.grid.contract`) and `report.py`
(`sections(results)`: rows → tables, claims and figures). A new question is a folder and a line in
`QUESTIONS`. The throughput alone is no measurement of a trained model: its folder says how it is
timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from bench.errors import BenchError, nearest

if TYPE_CHECKING:
    from bench.report.results import Results
    from bench.report.section import Section


@dataclass(frozen=True)
class Question:
    """One question; its modules are imported when they are used.

    Attributes:
        name: its folder's name, and what its rows carry.
        asked: the question as the first table of the page puts it; "" where its sections stand
            on the page without a line there.
        measured: whether the grid measures it (the throughput is timed apart, the tuning's rows
            come from the grid's own choices).
        compared: whether its measure module has a `compare`.
        tuned: whether it asks for runs whose learning rate is to be chosen.
        of_headline: whether its answer is of the headline's trainings, whose length is then put
            before it; an answer of others says their length itself.
    """

    name: str
    asked: str = ""
    measured: bool = True
    compared: bool = False
    tuned: bool = False
    of_headline: bool = False

    def _module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{__name__}.{self.name}.{name}")

    @property
    def requests(self) -> Callable:
        """`requests(run, preset)` of its measure module."""
        return self._module("measure").requests

    @property
    def measure(self) -> Callable:
        """`measure(subject, **settings)` of its measure module."""
        return self._module("measure").measure

    @property
    def compare(self) -> Callable | None:
        """`compare(results, reference)` of its measure module, where it has one."""
        return self._module("measure").compare if self.compared else None

    def sections(self, results: Results) -> list[Section]:
        """Its part of a page; [] where it was not measured."""
        return self._module("report").sections(results)


QUESTIONS = (
    Question(
        "headline",
        "What does the posterior's variance buy?",
        compared=True,
        tuned=True,
        of_headline=True,
    ),
    Question("budget", "Does the ranking survive its budget?", tuned=True),
    Question("tuning", measured=False),
    Question("pictures"),
    Question("loss_noise", "How noisy is the loss?", of_headline=True),
    Question("gradient_noise", "How noisy is the gradient?", of_headline=True),
    Question("gradient_scaling"),
    Question("cost_functions", "Where does pathwise lose?"),
    Question(
        "multi_sample", "Does a tighter bound spoil the encoder's gradient?", of_headline=True
    ),
    Question("estimator_training", "Does the gradient's noise matter?", tuned=True),
    Question(
        "uncertainty", "Does noise raise the encoder's uncertainty?", tuned=True, of_headline=True
    ),
    Question("generalization", "Does the autoencoder overfit?"),
    Question(
        "flexibility",
        "What does flexibility cost, and what does it buy?",
        compared=True,
        of_headline=True,
    ),
    Question(
        "exact_likelihood",
        "Does theory hold where log p(x) is known?",
        compared=True,
        of_headline=True,
    ),
    Question("throughput", "How fast is it?", measured=False),
)


def measured() -> tuple[Question, ...]:
    """The questions the grid measures."""
    return tuple(question for question in QUESTIONS if question.measured)


def named(names: list[str]) -> tuple[Question, ...]:
    """The measured questions of these names; raises BenchError with the nearest name."""
    known = {question.name: question for question in measured()}
    apart = {"throughput": "timed by 'make throughput'", "tuning": "made by 'make tune'"}
    if not names:
        raise BenchError(f"no question named: choose from {', '.join(known)}, or 'all'")
    for name in names:
        if name in apart:
            raise BenchError(f"'{name}' is no question of the grid: it is {apart[name]}")
        if name not in known:
            raise nearest("question", name, known)
    return tuple(question for name, question in known.items() if name in names)
