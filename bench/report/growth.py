"""How the cost of a step, of a bound's memory and of a whole grid grows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.report.common import PALETTE, Results, Section, markdown, new_figure, save, write_table
from bench.report.throughput import Timings, ratio, read, rounded

PLACE = 61
AXES = {
    "batch_size": "batch size (images)",
    "hidden_dim": "hidden units H",
    "latent_dim": "latent dimensions L",
    "samples": "noise samples S",
}
STEP, BOUND = PALETTE[6], PALETTE[4]


def sections(results: Results) -> list[Section]:
    """The section on growth; [] where it was not measured."""
    timings = read(results)
    if timings is None or timings.of("growth").empty:
        return []
    steps, memory, grid = _steps(timings), _memory(timings), _grid(timings)
    frame = pd.concat([steps, memory, grid], ignore_index=True)
    table, takeaway = _table(steps), _takeaway(steps, memory, grid)
    notes = "\n\n".join(part for part in (_memory_table(memory), _grid_table(grid)) if part)
    write_table(results, "throughput_growth", frame, takeaway, f"{table}\n\n{notes}")
    files = ["throughput_growth.csv", "throughput_growth.md"]
    figure = _figure(results, steps, memory, grid)
    return [Section("How cost grows", takeaway, table, [figure], files, notes)]


def _steps(timings: Timings) -> pd.DataFrame:
    """One line a step: quantity, x, seconds, bound_seconds."""
    cases = timings.of("growth")
    return pd.DataFrame(
        {"quantity": cases.axis, "x": cases.value.astype(int), "seconds": cases.seconds,
         "bound_ratio": cases.bound_ratio}
    )  # fmt: skip


def _memory(timings: Timings) -> pd.DataFrame:
    lines = [
        {"quantity": "importance_samples", "x": int(k), "peak_bytes": peak}
        for by_k in timings.of("fresh").importance_bytes.dropna()
        for k, peak in by_k.items()
    ]
    return pd.DataFrame(lines, columns=["quantity", "x", "peak_bytes"])


def _grid(timings: Timings) -> pd.DataFrame:
    """One line a number of tasks and of workers: seconds with and without a grid, and the speed-up
    over the fewest workers of both; medians over rounds, with their least and greatest."""
    case = ["quantity", "x", "jobs"]
    measured = ["seconds", "bound_seconds", "speed_up", "bound_speed_up"]
    rounds = []
    for by_tasks in timings.of("grid").rounds_by_tasks.dropna():
        for tasks, by_jobs in ((t, r) for t, all_rounds in by_tasks.items() for r in all_rounds):
            fewest = by_jobs[min(by_jobs, key=int)]
            rounds += [
                {"quantity": "tasks", "x": int(tasks), "jobs": int(jobs), **taken,
                 "speed_up": fewest["seconds"] / taken["seconds"],
                 "bound_speed_up": fewest["bound_seconds"] / taken["bound_seconds"]}
                for jobs, taken in by_jobs.items()
            ]  # fmt: skip
    by_case = pd.DataFrame(rounds, columns=case + measured).groupby(case)[measured]
    middle, least, greatest = by_case.median(), by_case.min(), by_case.max()
    return (
        middle.join(least.add_prefix("least_")).join(greatest.add_prefix("greatest_")).reset_index()
    )


def _exponent(x: pd.Series, y: pd.Series) -> float:
    """Growth at the largest sizes: the slope of log y between the last two x."""
    if len(x) < 2:
        return math.nan
    (x0, x1), (y0, y1) = x.iloc[-2:], y.iloc[-2:]
    return math.log(y1 / y0) / math.log(x1 / x0)


def _table(steps: pd.DataFrame) -> str:
    lines = []
    for axis, group in steps.groupby("quantity", sort=False):
        first, last = group.iloc[0], group.iloc[-1]
        lines.append([
            AXES.get(axis, axis), f"{first.x:,} – {last.x:,}",
            f"{rounded(1e3 * first.seconds)} – {rounded(1e3 * last.seconds)}",
            f"{ratio(first.bound_ratio)} – {ratio(last.bound_ratio)}",
            ratio(_exponent(group.x, group.seconds)),
        ])  # fmt: skip
    header = [
        "a training step against",
        "from – to",
        "ms a step",
        "of bound",
        "exponent at the end",
    ]
    return markdown(header, lines)


def _memory_table(memory: pd.DataFrame) -> str:
    lines = [[f"{line.x:,}", rounded(line.peak_bytes / 2**20)] for line in memory.itertuples()]
    return markdown(["IW bound, K", "peak memory of the process, MiB"], lines) if lines else ""


def _grid_table(grid: pd.DataFrame) -> str:
    if grid.empty:
        return ""
    seconds = grid.pivot_table(index="x", columns="jobs", values="seconds")
    most = grid[grid.jobs == grid.jobs.max()].set_index("x")
    header = ["trainings in the grid", *(f"JOBS={jobs}, s" for jobs in seconds.columns), "speed-up",
              "speed-up without the grid"]  # fmt: skip
    lines = [
        [f"{tasks}", *map(rounded, by_jobs), _with_range(most.loc[tasks], "speed_up"),
         _with_range(most.loc[tasks], "bound_speed_up")]
        for tasks, by_jobs in seconds.iterrows()
    ]  # fmt: skip
    return markdown(header, lines)


def _with_range(case: pd.Series, column: str) -> str:
    least, greatest = f"{case[f'least_{column}']:.2f}", f"{case[f'greatest_{column}']:.2f}"
    rounds = f" ({least} – {greatest})" if least != greatest else ""
    return f"{case[column]:.2f}{rounds}"


def _takeaway(steps: pd.DataFrame, memory: pd.DataFrame, grid: pd.DataFrame) -> str:
    names = {"batch_size": "the batch", "hidden_dim": "H", "latent_dim": "L", "samples": "S"}
    powers = [
        f"{names.get(axis, axis)} to the power {ratio(_exponent(group.x, group.seconds))}"
        for axis, group in steps.groupby("quantity", sort=False)
    ]
    text = f"At its largest sizes a step's time grows with {', '.join(powers)}."
    if len(memory) > 1:
        less, most = memory.iloc[0], memory.iloc[-1]
        text += (
            f" Memory grows {most.peak_bytes / less.peak_bytes:.2f}-fold while K grows "
            f"{most.x / less.x:,.0f}-fold."
        )
    if len(set(grid.jobs)) > 1:
        last = grid.sort_values(["x", "jobs"]).iloc[-1]
        text += (
            f" A grid of {last.x} trainings takes {last.speed_up:.2f} times as long with one "
            f"worker as with {last.jobs}, the same trainings without the grid "
            f"{last.bound_speed_up:.2f} times."
        )
    return text


def _figure(
    results: Results, steps: pd.DataFrame, memory: pd.DataFrame, grid: pd.DataFrame
) -> tuple[str, str]:
    figure, places = new_figure(12, 7, nrows=2, ncols=3)
    panels = iter(np.ravel(places))
    slowest = 1e3 * steps.seconds.max()
    for axis, group in steps.groupby("quantity", sort=False):
        axes = next(panels)
        milliseconds = 1e3 * group.seconds
        axes.loglog(group.x, milliseconds, "o-", color=STEP, label="training step")
        axes.loglog(group.x, milliseconds * group.bound_ratio, ":", lw=2, color=BOUND,
                    label="its matrix products")  # fmt: skip
        axes.set_xticks(group.x, [f"{x:,}" for x in group.x])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0.5, 2 * slowest)
        axes.minorticks_off()
        _label(axes, AXES.get(axis, axis), "time (ms)")
    axes = next(panels)
    axes.plot(memory.x, memory.peak_bytes / 2**20, "o-", color=STEP)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_ylim(0, 1.2 * memory.peak_bytes.max() / 2**20 if len(memory) else None)
    _label(axes, "importance samples K", "peak memory (MiB)")
    axes = next(panels)
    for (jobs, group), line in zip(grid.groupby("jobs"), ("o-", "s--", "^:")):
        axes.plot(group.x, group.seconds, line, label=f"JOBS={jobs}",
                  color=STEP if jobs == 1 else BOUND)  # fmt: skip
    axes.set_ylim(bottom=0)
    _label(axes, "trainings in the grid", "wall time (s)")
    how = "Top and bottom left: a training step of the reference variant, other sizes as in the headline, beside its matrix products. Where the solid line is flat, overhead costs more than arithmetic."  # noqa: E501
    return save(results, figure, "throughput_growth"), how


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=10)
