"""What a step costs, beside what its matrix products alone cost, from pytest-benchmark's JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pandas as pd

from bench.report.common import (
    Results,
    Section,
    colour,
    embolden,
    markdown,
    new_figure,
    order,
    over_seeds,
    save,
    title,
    write_table,
)
from bench.report.estimators import spoken

PLACE = 60
FILE = "throughput.json"
SIGNIFICANT = 3
COLUMNS = ["kind", "variant", "estimator", "samples", "passes", "batch", "K", "axis", "value",
           "jobs", "items", "seconds", "best_seconds", "bound_seconds", "bound_ratio",
           "ordinary_seconds", "ordinary_ratio", "lean_ratio", "float32_ratio",
           "peak_bytes"]  # fmt: skip


@dataclass(frozen=True)
class Timings:
    """The stored cases.

    Attributes:
        cases: one line a case: its labels and `seconds` a call with `items` done in it; ratios
            are a companion's time over the case's own (`bound_ratio` 0.8: 80 % of the bound).
        machine: processor, cores, GPU, torch and the load when the timing began.
    """

    cases: pd.DataFrame
    machine: dict

    def of(self, kind: str) -> pd.DataFrame:
        """The cases of a kind, with the items done in a second."""
        cases = self.cases[self.cases.kind == kind]
        return cases.assign(rate=cases["items"] / cases.seconds)


def read(results: Results) -> Timings | None:
    """The folder's timings, or None where throughput was not measured."""
    try:
        stored = json.loads((results.folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    lines = [case["extra_info"] for case in stored["benchmarks"]]
    cases = pd.DataFrame(lines).reindex(columns=[*COLUMNS, "importance_bytes", "rounds_by_tasks"])
    place = {name: i for i, name in enumerate(order())}
    cases = cases.sort_values(["variant", "batch"], kind="stable",
                              key=lambda c: c.map(lambda v: place.get(v, v) if c.name == "variant"
                                                  else v))  # fmt: skip
    return Timings(cases.reset_index(drop=True), stored["machine_info"])


def sections(results: Results) -> list[Section]:
    """The section on throughput; [] where it was not measured."""
    timings = read(results)
    if timings is None or timings.of("training").empty:
        return []
    training = timings.of("training")
    text, takeaway = _training_table(training), _takeaway(timings)
    notes = "\n\n".join(
        part for part in (
            _compiled_table(timings), _evaluation_table(timings), _compiled_bound_table(timings),
            _estimator_table(timings), _stacked_table(timings), _precision(results, timings),
            _machine(timings),
        ) if part
    )  # fmt: skip
    write_table(results, "throughput", timings.cases[COLUMNS].dropna(axis=1, how="all"), takeaway,
                f"{text}\n\n{notes}")  # fmt: skip
    files = ["throughput.csv", "throughput.md", FILE]
    return [Section("Throughput", takeaway, text, [_figure(results, timings)], files, notes)]


def rounded(value: float) -> str:
    """Three significant digits, thousands separated; a dash for none."""
    if not math.isfinite(value):
        return "–"
    digits = max(0, SIGNIFICANT - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{round(value, SIGNIFICANT - 1 - math.floor(math.log10(abs(value)))):,.{digits}f}"


def ratio(value: float) -> str:
    """Two decimals; a dash for none."""
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _takeaway(timings: Timings) -> str:
    training = timings.of("training")
    faster = training.ordinary_ratio.dropna()
    slowest, fastest = faster.min(), faster.max()
    text = (
        "If a step were its matrix products alone it would run at its bound; the variants reach "
        f"{_shares(training)}. The same training written as an ordinary PyTorch loop takes "
        f"{ratio(slowest)}–{ratio(fastest)} times as long."
    )
    compiled = timings.of("compiled")
    if len(compiled):
        gain = ratio(compiled.ordinary_ratio.max())
        text += (
            f" Compiled, as in long trainings, a step reaches {_shares(compiled)}, and is up to "
            f"{gain} times as fast as the ordinary loop."
        )
    importance = timings.of("importance")
    if len(importance):
        text += (
            f" The importance-weighted bound runs at {_range(importance.bound_ratio)} of the speed "
            "of its matrix products"
        )
        compiled = timings.of("compiled_importance")
        faster = f", compiled at {_range(compiled.bound_ratio)}" if len(compiled) else ""
        text += f"{faster}."
    return text


def _shares(cases: pd.DataFrame) -> str:
    """`0.36–0.54 of it at batch 100, 0.65–0.72 of it at batch 1,000`: of the bound."""
    return ", ".join(
        f"{_range(group.bound_ratio)} of it at batch {batch:,.0f}"
        for batch, group in cases.groupby("batch")
    )


def _range(ratios: pd.Series) -> str:
    low, high = ratio(ratios.min()), ratio(ratios.max())
    return low if low == high else f"{low}–{high}"


def _training_table(training: pd.DataFrame) -> str:
    batches = sorted(training.batch.unique())
    header = ["training, images/s"]
    for batch in batches:
        header += [f"batch {batch:,.0f}", "of bound", "× ordinary loop"]
    columns = {}
    for batch in batches:
        here = training[training.batch == batch].set_index("variant")
        rates = [here.rate.get(v, math.nan) for v in training.variant.unique()]
        columns[batch] = embolden([rounded(r) for r in rates], rates)
    lines = []
    for place, variant in enumerate(training.variant.unique()):
        cells = [title(variant)]
        for batch in batches:
            here = training[(training.batch == batch) & (training.variant == variant)]
            case = here.iloc[0] if len(here) else pd.Series(dtype=float)
            cells += [
                columns[batch][place],
                ratio(case.get("bound_ratio", math.nan)),
                ratio(case.get("ordinary_ratio", math.nan)),
            ]
        lines.append(cells)
    return markdown(header, lines)


def _evaluation_table(timings: Timings) -> str:
    evaluation = timings.of("evaluation").set_index("variant")
    importance = timings.of("importance").set_index("variant")
    fresh = timings.of("fresh").set_index("variant")

    def value(frame: pd.DataFrame, variant: str, column: str) -> float:
        return frame[column].get(variant, math.nan)

    lines = [
        [
            title(v),
            rounded(value(evaluation, v, "rate")),
            ratio(value(evaluation, v, "bound_ratio")),
            rounded(value(importance, v, "rate")),
            ratio(value(importance, v, "bound_ratio")),
            rounded(value(fresh, v, "peak_bytes") / 2**20),
            rounded(value(fresh, v, "seconds")),
        ]
        for v in timings.of("training").variant.unique()
    ]
    header = ["evaluation", "ELBO, images/s", "of bound", "IW samples/s (K = 1000)", "of bound",
              "peak memory of training, MiB", "start to first step, s"]  # fmt: skip
    return markdown(header, lines)


def _estimator_table(timings: Timings) -> str:
    cases = timings.of("estimator")
    if cases.empty:
        return ""
    labels = ["variant", "estimator", "batch"]
    fresh = timings.of("fresh_estimator").set_index(labels)
    lines = []
    for (variant, batch), group in cases.groupby(["variant", "batch"], sort=False):
        reference = group.seconds.iloc[0]
        for case in group.itertuples():
            place = (variant, case.estimator, batch)
            lines.append([
                f"{title(variant)}: {spoken(case.estimator)}",
                f"{batch:,.0f}", f"{case.samples:.0f}", f"{case.passes:.0f}", rounded(case.rate),
                ratio(case.bound_ratio), f"{case.seconds / reference:.2f}",
            ])  # fmt: skip
            if len(fresh):
                lines[-1] += [
                    rounded(fresh.peak_bytes.get(place, math.nan) / 2**20),
                    rounded(fresh.seconds.get(place, math.nan)),
                ]
    first = spoken(cases.estimator.iloc[0])
    header = ["training by estimator", "batch", "S", "decoder passes", "images/s", "of bound",
              f"time against {first}"]  # fmt: skip
    header += ["peak memory, MiB", "start to first step, s"] if len(fresh) else []
    return markdown(header, lines)


def _compiled_table(timings: Timings) -> str:
    lines = [
        [title(case.variant), f"{case.batch:,.0f}", rounded(case.rate), ratio(case.bound_ratio),
         ratio(case.lean_ratio), ratio(case.ordinary_ratio)]
        for case in timings.of("compiled").itertuples()
    ]  # fmt: skip
    header = ["compiled step of long trainings", "batch", "images/s", "of bound", "× eager step",
              "× ordinary loop"]  # fmt: skip
    return markdown(header, lines) if lines else ""


def _compiled_bound_table(timings: Timings) -> str:
    lines = [
        [title(case.variant), rounded(case.rate), ratio(case.bound_ratio), ratio(case.lean_ratio)]
        for case in timings.of("compiled_importance").itertuples()
    ]
    header = ["compiled IW bound of large test sets", "IW samples/s (K = 1000)", "of bound",
              "× eager bound"]  # fmt: skip
    return markdown(header, lines) if lines else ""


def _stacked_table(timings: Timings) -> str:
    cases = timings.of("stacked")
    lines = [
        [title(case.variant), rounded(case.rate), f"{case.rate_over_lean:.1f}",
         f"{case.rate_over_ordinary:.1f}"]
        for case in cases.assign(
            # a companion trains one seed in its step, the stack all of them
            rate_over_lean=cases.lean_ratio * cases["items"] / 100,
            rate_over_ordinary=cases.ordinary_ratio * cases["items"] / 100,
        ).itertuples()
    ]  # fmt: skip
    header = ["five seeds as one stacked model", "images/s", "× lean loop", "× ordinary loop"]
    return markdown(header, lines) if lines else ""


def _precision(results: Results, timings: Timings) -> str:
    """bf16's speed, and its ELBO beside float32's where such a run is stored."""
    cases = timings.of("precision")
    parts = []
    if len(cases):
        speed = cases.float32_ratio.iloc[0]
        parts.append(
            f"A bf16 step (`--precision bf16`) at batch 100 runs at {ratio(speed)} times "
            "float32's speed here."
        )
    folder = results.folder.parent.with_name(results.folder.parent.name + "-bf16")
    try:
        theirs = pd.read_csv(folder / results.folder.name / "rows.csv")
    except OSError:
        return " ".join(parts)
    for variant, difference in _paired_elbo(results.rows, theirs).items():
        sign = "excludes" if difference.low * difference.high > 0 else "covers"
        parts.append(
            f"{title(variant)}: bf16's test ELBO minus float32's is {difference.text()} nats over "
            f"{difference.n} paired seeds; the interval {sign} zero."
        )
    return " ".join(parts)


def _paired_elbo(float32: pd.DataFrame, bf16: pd.DataFrame) -> dict:
    def elbos(rows: pd.DataFrame) -> pd.Series:
        chosen = rows[(rows.measurement == "elbo") & (rows.metric == "elbo")]
        return chosen.set_index(["variant", "seed"]).value

    difference = (elbos(bf16) - elbos(float32)).dropna()
    return {v: over_seeds(d) for v, d in difference.groupby(level=0)}


def _machine(timings: Timings) -> str:
    product, copy = timings.of("matrix_rate"), timings.of("copy_bandwidth")
    machine = timings.machine
    where = machine["gpu"] or f"one core of {machine['cpu']}"
    rates = ""
    if len(product) and len(copy):
        rates = (
            f" It multiplies 1024 × 1024 matrices at {rounded(product.rate.iloc[0] / 1e9)} GFLOP/s "
            f"and copies memory at {rounded(copy.rate.iloc[0] / 1e9)} GB/s (read and written)."
        )
    clock = "" if machine["gpu"] else (
        " Seconds are the process's own, so that other processes do not count; the ratios were "
        "taken in turns within one run."
    )  # fmt: skip
    return (
        f"Measured on {where}, one thread, torch {machine['torch']}, float32.{rates}{clock} "
        "*Of bound*: the time of the step's own matrix products, into outputs allocated before, "
        "over the step's. The ordinary loop has a `DataLoader`, `torch.bernoulli`, torch's "
        "cross-entropy and unfused Adam."
    )


def _figure(results: Results, timings: Timings) -> tuple[str, str]:
    figure, axes = new_figure(10, 5)
    for variant, group in timings.of("training").groupby("variant", sort=False):
        axes.plot(group.batch, group.rate, "o-", color=colour(variant), label=title(variant))
        bound = group["items"] / (group.seconds * group.bound_ratio)
        axes.plot(group.batch, bound, ":", color=colour(variant), lw=1.5)
        ordinary = group["items"] / (group.seconds * group.ordinary_ratio)
        axes.plot(group.batch, ordinary, "x--", color=colour(variant), lw=1, alpha=0.5)
    for variant, group in timings.of("compiled").groupby("variant", sort=False):
        axes.plot(group.batch, group.rate, "*", ms=14, mec="white", color=colour(variant))
    if len(timings.of("compiled")):
        axes.plot([], [], "*", ms=12, color="grey", label="compiled step")
    axes.plot([], [], ":", color="grey", label="matrix products alone")
    axes.plot([], [], "x--", color="grey", label="ordinary loop")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch size (images)")
    axes.set_ylabel("training throughput (images per second)")
    figure.legend(loc="outside right upper", fontsize=10)
    how = "Dotted lines are each step's matrix products alone, measured in the same run, dashed ones the ordinary loop. The gap from a solid line up to its dotted one is all that a faster step could still gain."  # noqa: E501
    return save(results, figure, "throughput"), how
