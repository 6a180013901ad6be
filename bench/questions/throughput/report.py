"""What a step costs, beside what its matrix products alone cost, from pytest-benchmark's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.config import REFERENCE
from bench.questions.throughput import growth, peers
from bench.questions.throughput.files import FILE
from bench.questions.throughput.timings import Timings, read, rounded, significant, span
from bench.report.claims import claims, listing, sentence
from bench.report.estimators import labels
from bench.report.figure import Figure, joined, panels
from bench.report.results import Results, in_bf16
from bench.report.results import read as read_results
from bench.report.section import Section, paragraphs, points, prose
from bench.report.style import title
from bench.report.table import Column, Table, escaped
from bench.statistics import Estimate, paired_difference

BATCH, OF_BOUND = Column("batch", 0), Column("of products")
START = {"memory": Column("peak memory, MiB", 0), "seconds": "start to first step, s"}
MOVED = "what the optimizer must move"
"""A part of the optimizer's own, not one beside it."""
MARKS = {
    "ordinary loop": "cross",
    "training step": "circle",
    "compiled step": "diamond",
    "roofline": "triangle-right",
    "matrix products alone": "triangle-left",
}


def sections(results: Results) -> list[Section]:
    """Speed, how cost grows, and the peers; [] where nothing was measured.

    Raises BenchError, naming the file and the remedy, where the timings are damaged.
    """
    path = results.folder / FILE
    if not path.exists():
        return []
    timings = read(path)
    return [*_speed(results, timings), *growth.sections(timings), *peers.sections(timings)]


def _speed(results: Results, timings: Timings) -> list[Section]:
    if timings.of("training").empty:
        return []
    steps = _fastest(timings)
    smallest = steps[steps.batch == steps.batch.min()].set_index("variant")
    variant = REFERENCE if REFERENCE in smallest.index else smallest.index[0]
    case = smallest.loc[variant]
    compiled = ", compiled," if case.kind == "compiled" else ""
    answer = (
        f"{title(variant)}{compiled} trains on {rounded(case.rate)} images/s at batch "
        f"{case.batch:,.0f}, {case.bound_ratio:.2f} of the speed of its matrix products "
        f"(on {timings.where})"
    )
    start = _table("first_step", timings.of("fresh"), START, "A process that trains ten steps.")
    tables = [_training(timings), _parts(timings), _evaluation(timings), _estimators(timings)]
    tables.append(start)
    told = timings.machine.get("avx512_chosen", False)
    vectors = prose(__file__, "vector_instructions") if told else ""
    notes = paragraphs(_precision(results, timings), _machine(timings), vectors)
    return [Section("Throughput", _takeaway(timings), answer, tables, [_figure(timings)], notes)]


def _fastest(timings: Timings) -> pd.DataFrame:
    """Training steps as long trainings take them: compiled where such a step was timed."""
    both = pd.concat([timings.of("compiled"), timings.of("training")])
    return both.drop_duplicates(["variant", "batch"])


def _takeaway(timings: Timings) -> str:
    training, compiled = timings.of("training"), timings.of("compiled")
    said = [
        f"A training step reaches {_shares(training)} of the speed of its matrix products; an "
        f"ordinary PyTorch loop takes {span(training.ordinary_ratio)} times as long."
    ]
    if len(compiled):
        whose = f"that{_of_fewer(compiled, training)}" if _of_fewer(compiled, training) else "it"
        up_to = "up to " if len(compiled) > 1 else ""
        said.append(
            f"Compiled, as in long trainings, {whose} reaches {_shares(compiled)}, and is {up_to}"
            f"{compiled.ordinary_ratio.max():.2f} times as fast as the ordinary loop."
        )
        largest = compiled[compiled.batch == compiled.batch.max()]
        if compiled.batch.min() < compiled.batch.max() and largest.roofline_ratio.notna().any():
            said.append(
                f"Compiled, it reaches {_shares(largest, 'roofline_ratio')} of the speed of its "
                "roofline, which adds the time to copy what the optimizer must move; at smaller "
                "batches that stays in the cache, so that the roofline is no bound."
            )
    evaluation = timings.of("compiled_evaluation")
    if len(evaluation):
        shares = span(evaluation.bound_ratio)
        whose = _of_fewer(evaluation, training)
        said.append(f"Compiled, the ELBO{whose} is evaluated at {shares} of its products' speed.")
    importance, faster = timings.of("importance"), timings.of("compiled_importance")
    if len(importance):
        compiled_too = f", compiled at {span(faster.bound_ratio)}" if len(faster) else ""
        said.append(
            f"The importance-weighted bound runs at {span(importance.bound_ratio)} of its "
            f"products' speed{compiled_too}."
        )
    return points(*said)


def _of_fewer(cases: pd.DataFrame, of: pd.DataFrame) -> str:
    """` of` whom the cases are, where they are not of all these variants."""
    named = listing(f"`{title(variant)}`" for variant in cases.variant.unique())
    return f" of {named}" if set(cases.variant) < set(of.variant) else ""


def _shares(cases: pd.DataFrame, of: str = "bound_ratio") -> str:
    """`0.36–0.54 (batch 100), 0.65–0.72 (batch 1,000)`: of the bound."""
    groups = cases.groupby("batch")[of]
    return ", ".join(f"{span(ratios)} (batch {batch:,.0f})" for batch, ratios in groups)


# --- tables ----------------------------------------------------------------------------------


def _table(
    name: str,
    cases: pd.DataFrame,
    columns: Mapping[str, Column | str],
    caption: str,
    groups: Sequence[object] = (),
) -> Table:
    """A line a case: its variant, and its entries of these columns."""
    variants, shown = cases.variant.map(title), cases.assign(rate=cases.rate.map(significant))
    lines = [[v, *line] for v, line in zip(variants, shown[[*columns]].to_numpy().tolist())]
    return Table(name, ["variant", *columns.values()], lines, caption, groups, [*variants])


def _training(timings: Timings) -> Table:
    stacked = timings.of("stacked")
    # a companion trains one seed in its step, the stack all of them
    gains = stacked[["lean_ratio", "ordinary_ratio"]].mul(stacked["items"] / 100, axis=0)
    steps = {
        "eager": timings.of("training"),
        "compiled": timings.of("compiled"),
        "five seeds stacked": stacked.assign(**gains, batch=100.0),
    }
    cases = pd.concat([cases.assign(step=step) for step, cases in steps.items()])
    columns = {"step": "step", "batch": BATCH, "rate": Column("images/s", 0, best="max")}
    columns |= {"bound_ratio": OF_BOUND, "roofline_ratio": "of roofline"}
    columns |= {"ordinary_ratio": "× ordinary loop", "lean_ratio": "× eager step"}
    caption = "Training; long trainings are compiled. Bold: the fastest of its kind and batch."
    return _table("training_speed", cases, columns, caption, list(zip(cases.step, cases.batch)))


def _parts(timings: Timings) -> Table:
    """Where the time of a compiled step goes."""
    cases = timings.of("parts").dropna(subset="parts")
    names = dict.fromkeys(name for parts in cases.parts for name in parts)
    columns = [f"part of {title(cases.variant.iloc[0])}'s compiled step" if len(cases) else "part"]
    columns += [Column(f"share at batch {batch:,.0f}") for batch in cases.batch]
    columns += [Column(f"ms at batch {batch:,.0f}", 3) for batch in cases.batch]
    lines = []
    rest = [{"the rest": 1 - sum(v for k, v in p.items() if k != MOVED)} for p in cases.parts]
    for name in [*names, "the rest"] if names else []:
        shares = [(parts | left).get(name) for parts, left in zip(cases.parts, rest)]
        lines.append([name, *shares, *(1e3 * cases.seconds * shares)])
    caption = (
        "Optimizer, likelihood, activations and batch: what a step without that part saves. "
        "Products, what must be moved (a part of the optimizer) and calls: timed alone. Parts "
        "overlap, so that what is left to the rest may be negative, as may a part below the noise."
    )
    return Table("step_parts", columns, lines, caption)


def _evaluation(timings: Timings) -> Table:
    kinds = {
        "evaluation": "ELBO, images",
        "compiled_evaluation": "ELBO compiled, images",
        "importance": "IW bound, samples",
        "compiled_importance": "IW bound compiled, samples",
    }
    cases = pd.concat([timings.of(kind).assign(evaluated=what) for kind, what in kinds.items()])
    columns = {"evaluated": "evaluated", "K": Column("K", 0), "rate": Column("a second", 0)}
    columns |= {"bound_ratio": OF_BOUND, "lean_ratio": "× eager"}
    caption = "Evaluation; what is evaluated often or on many images is compiled."
    return _table("evaluation_speed", cases, columns, caption)


def _estimators(timings: Timings) -> Table:
    keys, cases = ["variant", "estimator", "batch"], timings.of("estimator")
    if cases.empty:
        return Table("estimator_speed", [], [])
    first = cases.groupby(["variant", "batch"]).seconds.transform("first")
    fresh = timings.of("fresh_estimator").set_index(keys)[[*START]].add_prefix("fresh_")
    cases = cases.assign(relative=cases.seconds / first).join(fresh, on=keys)
    cases["estimator"] = cases.estimator.map(labels(cases.estimator))
    columns = {"estimator": "estimator", "batch": BATCH, "samples": Column("S", 0)}
    columns |= {"passes": Column("decoder passes", 0), "rate": Column("images/s", 0)}
    columns |= {"bound_ratio": OF_BOUND, "relative": f"time against {cases.estimator.iloc[0]}"}
    columns |= {f"fresh_{name}": column for name, column in START.items()}
    caption = "Training by gradient estimator, with the fewest noise samples S it admits."
    return _table("estimator_speed", cases, columns, caption)


# --- notes and figure ------------------------------------------------------------------------


def _precision(results: Results, timings: Timings) -> str:
    """bf16's speed, and its ELBO beside float32's where a run that differs in nothing else is
    stored."""
    text = "".join(
        f"A bf16 step (`--precision bf16`) at batch 100 runs at {ratio:.2f} times the speed "
        "of the eager float32 step here, and is never compiled. "
        for ratio in timings.of("precision").float32_ratio
    )
    other = read_results(in_bf16(results.folder))
    theirs = other.of("headline", "elbo") if len(other.rows) else other.rows
    if len(theirs) and _trained(other) != _trained(results):
        text += (
            "The run in bf16 that is stored beside was trained otherwise (its length, or how its "
            "learning rates were chosen): no comparison of ELBOs."
        )
    elif len(theirs):
        found = claims(paired_elbo(results.of("headline", "elbo"), theirs))
        seeds = max((claim.difference.n for claim in found), default=0)
        said = sentence(found, "higher for", "lower for", "undecided for", sign=True)
        if said:
            text += (
                "bf16's test ELBO against float32's at the same learning rates, those chosen in "
                f"float32, nats over {seeds} paired seeds: {said}."
            )
            machines = [str(its.environment.get("cpu")) for its in (results, other)]
            if machines[0] != machines[1]:
                text += (
                    " The two were trained on different processors, which differ in rounding and "
                    "in the seconds of their trainings."
                )
    return text.strip()


def _trained(results: Results) -> tuple[object, ...]:
    """What two runs must share for their ELBOs to be compared."""
    config = results.environment.get("config", {})
    return config.get("epochs"), config.get("learning_rate", "one for all"), config.get("preset")


def paired_elbo(float32: pd.DataFrame, bf16: pd.DataFrame) -> dict[str, Estimate]:
    """bf16 − float32 over the seeds both have, by variant as printed."""
    both = pd.concat([float32.assign(precision="float32"), bf16.assign(precision="bf16")])
    return {
        title(variant): paired_difference(rows, "bf16", "float32", by="precision")
        for variant, rows in both.groupby("variant")
    }


def _machine(timings: Timings) -> str:
    machine = timings.machine
    product, copy = (timings.of(kind).rate.mean() for kind in ("matrix_rate", "copy_bandwidth"))
    return prose(
        __file__,
        where=escaped(timings.where),
        torch=escaped(str(machine.get("torch"))),
        product=rounded(product / 1e9),
        copy=rounded(copy / 1e9),
    )


def _figure(timings: Timings) -> Figure:
    training, compiled = timings.of("training"), timings.of("compiled")
    fastest = _fastest(timings)
    rates = {
        "ordinary loop": training.assign(rate=training.rate / training.ordinary_ratio),
        "training step": training,
        "compiled step": compiled,
        "roofline": fastest.assign(rate=fastest.rate / fastest.roofline_ratio),
        "matrix products alone": fastest.assign(rate=fastest.rate / fastest.bound_ratio),
    }
    frame = pd.concat([cases.assign(timed=timed) for timed, cases in rates.items()])
    frame = frame[["variant", "batch", "timed", "rate"]].dropna().sort_values("batch")
    frame["rate"] = (frame.rate / 1000).map(significant)
    frame["batch"] = frame.batch.map("batch {:,.0f}".format)
    first = training[training.batch == training.batch.min()]
    chart = joined(frame, ("rate", "1,000 images per second"), ("timed", MARKS))
    return Figure(
        "throughput",
        "Training throughput",
        "A faster step could still gain the gap to its matrix products, measured in the same run; "
        "the roofline adds the copying of what the optimizer must move, an estimate. The ordinary "
        "loop is what a careful user would write.",
        f"At batch {first.batch.min():,.0f}: {rounded(first.rate.min())} to "
        f"{rounded(first.rate.max())} images a second, {span(first.bound_ratio)} of the bound.",
        panels(chart, "batch", frame.batch.unique()),
        filters=("batch", "timed"),
    )
