"""How the cost of a step, of a bound's memory and of a whole grid grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from bench.questions.throughput.timings import Timings
from bench.report.claims import listing
from bench.report.estimators import amount_axis
from bench.report.figure import Figure, curves
from bench.report.section import Section, paragraphs, points, prose
from bench.report.style import PALETTE
from bench.report.table import Cell, Column, Table, decimal, escaped
from bench.statistics import power_law

AXES = {
    "batch_size": ("batch size (images)", "the batch"),
    "hidden_dim": ("hidden units H", "H"),
    "latent_dim": ("latent dimensions L", "L"),
    "samples": ("noise samples S", "S"),
}
"""What grows: on an axis, and in a sentence."""
MEMORY = {
    ("training", "pixels"): ("a training", "pixels D"),
    ("importance_bound", "samples"): ("one image's IW bound", "K"),
    ("importance_bound", "images"): ("the IW bound, K = 1,000", "images"),
    ("gradient_variance", "samples"): ("a gradient's variance, 16 images", "S"),
    ("gradient_variance", "images"): ("a gradient's variance, S = 1", "images"),
    ("gradient_variance", "passes"): ("a gradient's variance, 16 images, S = 1", "decoder passes"),
}
"""(action, what of it grows) as they are printed; a training's memory is none that must not."""
SCALE = {
    "overhead": (Column("overhead a task, ms", 1), "the overhead"),
    "parent_seconds": (Column("the parent's own, ms a task", 1), "the parent's own time"),
    "cached_seconds": (Column("finding all done, ms a task", 1), "finding all done"),
    "grown_bytes": (Column("memory of the parent, KiB a task", 1), "the parent's memory"),
    "report_seconds": (Column("report, ms a task", 1), "the report"),
}
"""Of a grid, what must not grow faster than its tasks: a column a task, and in a sentence."""


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
    seen = len({peak for _, peak in memory}) > 1
    by_k = Table("importance_memory", columns, memory * seen, "One image's IW bound.")
    beyond, tasks = memory_of(timings), scale_of(timings)
    tables = [_steps_table(steps), _memory_table(beyond) if len(beyond) else by_k]
    tables += [_grid_table(grid), _scale_table(tasks)]
    said = _said(steps, () if len(beyond) else memory, grid)
    takeaway = points(*said, *_said_of_memory(beyond), _said_of_tasks(tasks))
    notes = paragraphs(
        f"Measured on {escaped(timings.where)}.",
        prose(__file__, "growth"),
        prose(__file__, "grid") if len(grid) else "",
        prose(__file__, "memory") if len(beyond) else "",
        prose(__file__, "scale") if len(tasks) else "",
    )
    return [Section("How cost grows", takeaway, "", tables, [_steps_figure(steps)], notes)]


def memory_of(timings: Timings) -> pd.DataFrame:
    """A line a peak beyond torch, `mib`, by `action`, `axis` and ascending `value`."""
    cases = timings.of("memory").sort_values("value", kind="stable")
    beyond = (cases.peak_bytes - cases.base_bytes) / 2**20
    return cases.assign(mib=beyond)[["action", "axis", "value", "mib"]]


def scale_of(timings: Timings) -> pd.DataFrame:
    """A line a grid of so many tasks, ascending: the totals of `SCALE`, in seconds and bytes."""
    cases = timings.of("scale").sort_values("value", kind="stable")
    cases = cases.assign(overhead=cases.seconds - cases.alone_seconds)
    return cases[["value", "alone_seconds", *SCALE, "rows"]]


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
    return power_law(steps.value.iloc[-2:], steps.seconds.iloc[-2:]).exponent.mean


def _steps_table(steps: pd.DataFrame) -> Table:
    columns = ["a training step, by", Column("from", 0), Column("to", 0)]
    columns += [Column("ms a step, from", None), Column("ms, to", None)]
    columns += ["of products, from", "of products, to"]
    columns += ["of roofline, from", "of roofline, to", "exponent between the last two"]
    lines = []
    for axis, group in steps.groupby("axis", sort=False):
        ends = group.iloc[[0, -1]]
        times = [*ends.value, *(1e3 * ends.seconds), *ends.bound_ratio, *ends.roofline_ratio]
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


def _memory_table(memory: pd.DataFrame) -> Table:
    columns = ["peak memory beyond torch of", "as this grows", Column("from", 0), Column("to", 0)]
    columns += [Column("MiB, from", 0), Column("MiB, to", 0), Column("KiB for each more", 2)]
    lines = []
    for which, labels in MEMORY.items():
        group = _series(memory, which)
        if len(group):
            ends = group.iloc[[0, -1]]
            each = 2**10 * (ends.mib.diff() / ends.value.diff()).iloc[-1]
            lines.append([*labels, *ends.value, *ends.mib, each])
    return Table("memory_growth", columns, lines, "Peak memory, from size to size.")


def _series(memory: pd.DataFrame, which: tuple[str, str]) -> pd.DataFrame:
    action, axis = which
    return memory[(memory.action == action) & (memory.axis == axis)]


def _scale_table(tasks: pd.DataFrame) -> Table:
    columns = [Column("tasks in the grid", 0), Column("tasks alone, ms a task", 1)]
    columns += [column for column, _ in SCALE.values()]
    unit = {name: 2**-10 if name == "grown_bytes" else 1e3 for name in SCALE}
    lines: list[list] = []
    for line in tasks.itertuples():
        each = [unit[name] * getattr(line, name) / line.value for name in SCALE]
        lines.append([line.value, 1e3 * line.alone_seconds / line.value, *each, line.rows])
    if len(tasks) > 1:
        powers = [Cell(e) for e in _exponents(tasks).values()]
        lines.append(["exponent of the whole", "", *powers, ""])
    caption = "A grid of tiny tasks on two workers: half train for one step, half measure that."
    return Table("grid_scale", [*columns, Column("rows", 0)], lines, caption)


def _exponents(tasks: pd.DataFrame) -> dict[str, float]:
    """Of each total of `SCALE`, its power of the number of tasks at the largest two."""
    last = tasks.iloc[-2:]
    return {name: power_law(last.value, last[name]).exponent.mean for name in SCALE}


def _said(steps: pd.DataFrame, memory: Sequence, grid: pd.DataFrame) -> list[str]:
    powers = [
        f"{AXES[axis][1]} to the power {decimal(_exponent(group))}"
        for axis, group in steps.groupby("axis", sort=False)
    ]
    said = [f"Between the two largest sizes of each, a step's time goes as {listing(powers)}."]
    if len(memory) > 1:
        (k0, least), (k1, most) = memory[0], memory[-1]
        text = f"from {least:,.0f} to {most:,.0f} MiB, from K = {k0:,} to {k1:,}"
        if len({peak for _, peak in memory}) == 1:
            text = f"below {most:,.0f} MiB, the process's own peak, up to K = {k1:,}"
        said.append(f"The peak memory of one image's IW bound is {text}.")
    if len(set(grid.jobs)) > 1:
        tasks, jobs = grid.tasks.max(), grid.jobs.max()
        last = grid[(grid.tasks == tasks) & (grid.jobs == jobs)].median()
        said.append(
            f"{jobs} workers finish a grid of {tasks} trainings {last.speed_up:.2f} times as fast "
            f"as one; handed the same trainings directly, {last.alone:.2f} times."
        )
    return said


def _said_of_memory(memory: pd.DataFrame) -> list[str]:
    """A training's peaks, and by how much the others' grow while their sizes do."""
    said = []
    training = _series(memory, ("training", "pixels"))
    if len(training):
        peaks = [f"{mib:,.0f} MiB at D = {d:,.0f}" for d, mib in zip(training.value, training.mib)]
        said.append(f"Beyond torch itself a training takes {listing(peaks)}.")
    grown = []
    for which, (what, against) in MEMORY.items():
        group = _series(memory, which)
        if which[0] != "training" and len(group) > 1:
            (least, most), (low, high) = (group[c].agg(["min", "max"]) for c in ("value", "mib"))
            times = f"a {most / least:,.0f}-fold range of {against}"
            grown.append(f"for {what}, {low:,.0f} to {high:,.0f} MiB over {times}")
    if grown:
        said.append(f"Peak memory of the evaluations: {'; '.join(grown)}.")
    return said


def _said_of_tasks(tasks: pd.DataFrame) -> str:
    if len(tasks) < 2:
        return ""
    last = tasks.iloc[-1]
    powers = [
        f"{SCALE[name][1]} (exponent {decimal(e)})"
        for name, e in _exponents(tasks).items()
        if math.isfinite(e)
    ]
    each = 1e3 * max(0, last.overhead) / last.value
    text = f"A grid of {last.value:,.0f} tiny tasks adds {each:.1f} ms to each"
    text += f"; as powers of their number grow {listing(powers)}" * bool(powers)
    return f"{text}."


def _steps_figure(steps: pd.DataFrame) -> Figure:
    """A panel each size that grows, with its own axis."""
    limits = {"its roofline": steps.roofline_ratio, "its matrix products": steps.bound_ratio}
    times = {"training step": 1} | {n: t for n, t in limits.items() if t.notna().any()}
    paint = {"training step": 6, "its roofline": 3, "its matrix products": 4}
    cases = [steps.assign(what=what, time=1e3 * steps.seconds * t) for what, t in times.items()]
    frame = pd.concat(cases)[["axis", "value", "what", "time"]]
    scale = alt.Scale(domain=[*times], range=[PALETTE[paint[what]] for what in times])
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
