"""What of a grid is done already, found in the cache without doing anything."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from bench.config import LEARNING_RATE
from bench.data.dataset import Dataset
from bench.grid import TRAINING, TUNING
from bench.grid.contract import Measurement, Request, Subject
from bench.grid.runner import Runner
from bench.grid.tasks import Grid, Task, subject_of, trained_from


@dataclass
class State:
    """How many tasks of one kind and variant are done, are missing, or wait for what validation
    has yet to choose."""

    done: int = 0
    missing: int = 0
    open: int = 0


class Survey(Runner):
    """A grid that is looked at: nothing is sent, so what is missing stays pending."""

    def __init__(self, grid: Grid, data: Dataset) -> None:
        super().__init__(grid, data, None, lambda *told: None, choosing=False)
        self.run()
        for run in self.outcome.headline - self.outcome.trained.keys():
            self.measure(run)
        self.later = self._later()

    def send(self) -> None:
        """Nothing."""

    def _later(self) -> set[tuple[Measurement, Request]]:
        """Measurements of headline runs that are still open, beyond those asked for already."""
        later = set()
        for request in [request for question, request in self.open if question is None]:
            for question, its in self.requests(request.run.with_(learning_rate=LEARNING_RATE)):
                if its.run.learning_rate is None:  # may be chosen before the headline's
                    self.ask(question, its)
                else:
                    later.add((question, its))
        return later

    def states(self) -> dict[tuple[str, str], State]:
        """(question, `training` or `tuning`; variant) → its tasks.

        Trainings among the candidates of a choice are `tuning`, and those of the tables `training`
        too. Of a choice under way only the candidates that come next are known.
        """
        states: dict[tuple[str, str], State] = defaultdict(State)
        missing = set(self.pending)
        for task, purpose in self.purposes.items():
            kinds = {task.question.name} if task.question else set()
            if task.question is None:
                kinds = {TUNING if purpose == TUNING else TRAINING}
                kinds |= {TRAINING} if task.run in self.outcome.headline else set()
            for kind in kinds:
                state = states[kind, task.run.variant]
                state.missing += task in missing
                state.done += task not in missing
        for run, needed in self.waiting.items():
            for question, _ in needed:
                states[question.name, run.variant].missing += 1
        for question, request in [*self.open, *self.later]:
            states[question.name if question else TRAINING, request.run.variant].open += 1
        return dict(states)

    def subject(self, variant: str, seed: int) -> Subject | None:
        """The headline run of a variant and seed with its model and data; None where it is not
        in the cache."""
        runs = {(run.variant, run.seed): run for run in self.outcome.headline}
        run = runs.get((variant, seed))
        content = run and self.store.load(self.key(Task(run)))
        return content and Subject(trained_from(content, run), *subject_of(run, self.grid))
