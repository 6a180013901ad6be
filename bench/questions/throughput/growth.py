"""How the cost of a step, of a bound's memory and of a whole grid grows."""

from __future__ import annotations

import altair as alt
import pandas as pd

from bench.questions.throughput.timings import Timings
from bench.report.claims import listing
from bench.report.estimators import amount_axis
from bench.report.figure import Figure, curves
from bench.report.section import Section, prose
from bench.report.style import PALETTE
from bench.report.table import Cell, Column, Table
from bench.statistics import log_log_slope

AXES = {
    "batch_size": ("batch size (images)", "the batch"),
    "hidden_dim": ("hidden units H", "H"),
    "latent_dim": ("latent dimensions L", "L"),
    "samples": ("noise samples S", "S"),
}
"""What grows: on an axis, and in a sentence."""


def sections(timings: Timings) -> list[Section]:
    """The section on growth; [] where it was not measured."""
    steps, grid = timings.of("growth"), grid_of(timings)
    if steps.empty:
        return []
    memory = [
        (int(k), peak / 2**20)
        for by_k in timings.of("fresh").importance_bytes.dropna()
        for k, peak in by_k.items()
    ]
    columns = [Column("IW bound, K", 0), Column("peak memory of the process, MiB", 0)]
    by_k = Table("importance_memory", columns, memory, "One image's IW bound.")
    tables = [_steps_table(steps), by_k, _grid_table(grid)]
    takeaway, figures = _takeaway(steps, memory, grid), [_steps_figure(steps)]
    return [Section("How cost grows", takeaway, "", tables, figures, prose(__file__, "growth"))]


def grid_of(timings: Timings) -> pd.DataFrame:
    """A line a number of trainings, of workers and a round: seconds in a grid and without it,
    and the speed-up of both over the fewest workers."""
    lines = []
    for by_tasks in timings.of("grid").rounds_by_tasks.dropna():
        for tasks, by_jobs in ((t, r) for t, rounds in by_tasks.items() for r in rounds):
            fewest = by_jobs[min(by_jobs, key=int)]
            for jobs, taken in by_jobs.items():
                gains = [fewest[k] / taken[k] for k in ("seconds", "bound_seconds")]
                lines.append((int(tasks), int(jobs), taken["seconds"], *gains))
    return pd.DataFrame(lines, columns=["tasks", "jobs", "seconds", "speed_up", "alone"])


def _exponent(steps: pd.DataFrame) -> float:
    """Growth at the largest sizes."""
    return log_log_slope(steps.value.iloc[-2:], steps.seconds.iloc[-2:]).mean


def _steps_table(steps: pd.DataFrame) -> Table:
    columns = ["a training step against", Column("from", 0), Column("to", 0)]
    columns += [Column("ms a step, from", None), Column("ms, to", None)]
    columns += ["of bound, from", "of bound, to", "exponent at the end"]
    lines = []
    for axis, group in steps.groupby("axis", sort=False):
        ends = group.iloc[[0, -1]]
        times = [*ends.value, *(1e3 * ends.seconds), *ends.bound_ratio]
        lines.append([AXES[axis][0], *times, _exponent(group)])
    return Table("step_growth", columns, lines, "Time of a training step from size to size.")


def _grid_table(grid: pd.DataFrame) -> Table:
    jobs = sorted(set(grid.jobs))
    columns = [Column("trainings in the grid", 0), *(Column(f"JOBS={n}, s") for n in jobs)]
    lines = []
    for tasks, group in grid.groupby("tasks"):
        most = group[group.jobs == max(jobs)]
        seconds = group.groupby("jobs").seconds.median()
        lines.append([tasks, *seconds, _spread(most.speed_up), _spread(most.alone)])
    columns += ["speed-up", "speed-up without the grid"]
    return Table("grid_speed", columns, lines, "Wall time of a grid, by the number of workers.")


def _spread(gains: pd.Series) -> Cell:
    least, greatest = f"{gains.min():.2f}", f"{gains.max():.2f}"
    return Cell(gains.median(), text=f" ({least} – {greatest})" if least != greatest else "")


def _takeaway(steps: pd.DataFrame, memory: list, grid: pd.DataFrame) -> str:
    powers = [
        f"{AXES[axis][1]} to the power {_exponent(group):.2f}"
        for axis, group in steps.groupby("axis", sort=False)
    ]
    text = f"At its largest sizes a step's time grows with {listing(powers)}."
    if len(memory) > 1:
        (k0, least), (k1, most) = memory[0], memory[-1]
        peaks = " to ".join(dict.fromkeys(f"{peak:,.0f}" for peak in (least, most)))
        text += f" The IW bound's peak memory is {peaks} MiB from K = {k0:,} to {k1:,}."
    if len(set(grid.jobs)) > 1:
        tasks, jobs = grid.tasks.max(), grid.jobs.max()
        last = grid[(grid.tasks == tasks) & (grid.jobs == jobs)].median()
        text += (
            f" {jobs} workers finish a grid of {tasks} trainings {last.speed_up:.2f} times as fast "
            f"as one; handed the same trainings directly, {last.alone:.2f} times."
        )
    return text


def _steps_figure(steps: pd.DataFrame) -> Figure:
    """A panel each size that grows, with its own axis."""
    times = {"training step": 1, "its matrix products": steps.bound_ratio}
    cases = [steps.assign(what=what, time=1e3 * steps.seconds * t) for what, t in times.items()]
    frame = pd.concat(cases)[["axis", "value", "what", "time"]]
    scale = alt.Scale(domain=[*times], range=[PALETTE[6], PALETTE[4]])
    colours = alt.Color("what:N", scale=scale, legend=alt.Legend(title=None))
    charts = [
        curves(
            group,
            amount_axis("value", AXES[axis][0], group.value),
            ("time", "time (ms)"),
            colours,
            log="y",
            width=330,
            height=220,
        )
        for axis, group in frame.groupby("axis", sort=False)
    ]
    return Figure(
        "throughput_growth",
        "How a step's time grows",
        "A step that costs the same with a larger batch or H spends its time on overhead, not on "
        "arithmetic.",
        f"A training step takes from {1e3 * steps.seconds.min():.1f} to "
        f"{1e3 * steps.seconds.max():.0f} ms, in a panel for each size that grows.",
        alt.concat(*charts, columns=2).resolve_scale(y="shared"),
    )
