"""What a person sees while the grid runs: live lines in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.machine.console import say

if TYPE_CHECKING:
    from multiprocessing import Queue

    from bench.grid.tasks import Task

PLAIN_SECONDS = 30
"""Without a terminal, running tasks are told at most this often."""


class Progress:
    """Listens to the runner and to the workers' epochs; a context manager."""

    def __init__(self, console: Console, workers: int = 0) -> None:
        self.console, self.workers = console, workers
        self.started = time.monotonic()
        self.running: dict[str, dict] = {}
        self.begun: dict[str, float] = {}
        self.epochs: dict[str, int] = {}
        self.submitted = self.done = 0
        self.told = self.started
        self.live = Live(self._table(), console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def listen(self, queue: Queue) -> None:
        """Follow the workers' messages `(label, history entry)` in a thread."""

        def follow() -> None:
            while True:
                self.hear(*queue.get())

        threading.Thread(target=follow, daemon=True).start()

    def hear(self, label: str, entry: dict) -> None:
        """One message: a task's latest entry of its history, with its `worker` on a cluster."""
        self.running[label] = entry
        self.begun.setdefault(label, time.monotonic())
        self._show()

    def report(self, event: str, task: Task, value: object) -> None:
        """The runner's news of a task."""
        if event == "notice":
            say(self.console, str(value), "yellow")
        if event == "submitted":
            self.submitted += 1
            self.epochs[task.label] = task.run.epochs
        if event in ("finished", "failed"):
            self.done += 1
            self.running.pop(task.label, None)
            if not self.console.is_terminal:
                state = "done" if event == "finished" else f"failed ({value})"
                say(self.console, f"[{self._count()}] {task.label}: {state}")
        self._show()

    def _count(self) -> str:
        return f"{self.done}/{self.submitted}"

    def _eta(self) -> str:
        if self.done == 0:
            return "…"
        each = (time.monotonic() - self.started) / self.done
        return _minutes(each * (self.submitted - self.done))

    def _show(self) -> None:
        if self.console.is_terminal:
            self.live.update(self._table())
        elif time.monotonic() - self.told > PLAIN_SECONDS:
            self.told = time.monotonic()
            for label, entry in list(self.running.items()):
                line = f"  {label}: {self._line(label, entry)}"
                say(self.console, line)

    def _line(self, label: str, entry: dict) -> str:
        on = f"  on {entry['worker']}" if "worker" in entry else ""
        if "epoch" not in entry:
            return f"measuring{on}"
        epoch, epochs = int(entry["epoch"]), self.epochs.get(label, 0)
        passed = time.monotonic() - self.begun.get(label, self.started)
        left = _minutes(passed / max(1, epoch) * (epochs - epoch))
        elbo, distortion = entry["valid_elbo"], entry["valid_distortion"]
        value = f"cross-entropy {distortion:.2f}" if math.isnan(elbo) else f"ELBO {elbo:.2f}"
        return f"epoch {epoch}/{epochs}  validation {value}  {left} left{on}"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(f"{self._count()} tasks", f"{self._eta()} left with {self.workers} workers")
        for label, entry in list(self.running.items()):
            table.add_row(label, self._line(label, entry))
        return table


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
