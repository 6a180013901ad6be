"""How noisy a training step's gradient is, by estimator, stage and S, and what quiet ones cost."""

from __future__ import annotations

from collections.abc import Iterable

import altair as alt
import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from bench.config import REFERENCE
from bench.questions.estimator_training.report import scores_of
from bench.report import estimators
from bench.report.claims import claims, sentence
from bench.report.estimators import Printed, estimates, for_chart, short, table
from bench.report.figure import Figure, by_variant, panels, tooltips
from bench.report.results import Results
from bench.report.rows import most_images, select
from bench.report.section import Section, captioned, paragraphs, points, prose
from bench.report.style import STAGES, title
from bench.report.table import Column, Table, decimal, spoken
from bench.statistics import Estimate

CELL = ["variant", "stage", "estimator", "S"]
WORDS = ("quieter than", "noisier than", "undecided against")
PARTS = {
    "total_variance": "encoder, Monte Carlo",
    "decoder_variance": "decoder, Monte Carlo",
    "encoder_data_variance": "encoder, data",
    "decoder_data_variance": "decoder, data",
}
"""Metric → the part of a minibatch gradient's variance that it is."""
COLOURS = ("#004488", "#997700", "#88BBEE", "#EECC66")
SPLIT = {metric: Column(f"{part}, nats²", None) for metric, part in PARTS.items()} | {
    "whole_variance": Column("whole, nats²", None, "min"),
    "monte_carlo_share": Column("Monte Carlo share"),
    "whole_variance_ratio": Column("÷ pathwise's at equal S", None, "min"),
}
COST = {
    "decoder_passes": Column("decoder passes, 1/image", 0),
    "step_time": Column("step, µs/image", None),
    "precision_per_pass": Column("precision per pass", None, "max"),
    "precision_per_second": Column("precision per second", None, "max"),
}
ENCODER = {
    "variance_ratio": Column("Monte Carlo ÷ pathwise's at equal S", None, "min"),
    "total_variance": Column("Monte Carlo, nats²", None, "min"),
    "location_variance": Column("location part, nats²", None),
    "scale_variance": Column("scale part, nats²", None),
    "squared_signal_to_noise": Column("squared signal-to-noise", None, "max"),
}
TRAINED = {"epoch_1": "after epoch 1", "best": "at the best weights"}
"""Stages at which precision is held against the test ELBO of trainings by estimator."""


def sections(results: Results) -> list[Section]:
    """The section on the gradient's variance; [] where it was not measured."""
    measured = results.of("gradient_noise")
    rows = _with_data(estimators.over_seeds(measured))
    if rows.empty:
        return []
    labels = estimators.labels(rows.estimator.dropna())
    printed: Printed = {
        "variant": {variant: title(variant) for variant in results.variants(rows)},
        "stage": STAGES,
        "estimator": labels,
        "S": {s: int(s) for s in sorted(rows.S.dropna().unique())},
    }
    variant = REFERENCE if REFERENCE in printed["variant"] else next(iter(printed["variant"]))
    of_variant = select(rows, variant=variant)
    said, answer = _sentences(of_variant, labels)
    takeaway = points(*said, _beside_training(of_variant, results, labels))
    figures = [
        _parts_figure(of_variant, printed),
        _stages_figure(rows, printed),
        _precision_figure(rows, printed),
    ]
    absences = estimators.absences(rows, "estimator", "variant")
    amounts = {
        "reference": title(REFERENCE),
        "images": most_images(select(measured, metric="total_variance")),
    }
    notes = prose(__file__, **amounts), estimators.citations(labels), absences
    tables, name = _tables(rows, printed), "How noisy the gradient is"
    return [Section(name, takeaway, answer, tables, figures, paragraphs(*notes))]


# --- sentences ---------------------------------------------------------------------------------


def _sentences(rows: pd.DataFrame, labels: dict[str, str]) -> tuple[list[str], str]:
    """Of one variant at the best weights: how much of the variance is Monte Carlo, who is quieter
    and who worth its cost; in short, the first and the last. What is lowest or highest was so where
    it was measured, no more."""
    rows = select(rows, stage="best")
    every = rows.S.dropna().unique()
    names = {(name, s): f"{label} (S = {s})" for name, label in labels.items() for s in every}
    names = _with_passes(rows, names)
    shares = _of(rows, "monte_carlo_share", names)
    if not shares:
        return ["The whole gradient's variance was not measured at the best weights."], ""
    of = f"`{title(rows.variant.iloc[0])}`"
    first, least = next(iter(shares)), min(shares, key=lambda name: shares[name].mean)
    part = f"{_percent(shares[first])} with `{first}`"
    if least != first:
        part += f" and, at the lowest measured, {_percent(shares[least])} with `{least}`"
    said = [
        "Of the variance of a minibatch's gradient, at any batch size, the noise of q makes up "
        f"{part} (encoder and decoder, best weights of {of}); the rest comes from which images it "
        "holds."
    ]
    compared = select(rows, metric="whole_variance_ratio").dropna(subset="value")
    compared = compared[compared.groupby("estimator").S.transform("min") == compared.S]
    compared = compared[compared.estimator != compared.reference]
    found = claims(_of(compared, "whole_variance_ratio", names), False, equal=1)
    found.sort(key=lambda claim: claim.difference.mean)
    reference = labels.get(compared.reference.iloc[0], "") if len(compared) else ""
    words = (f"{word} {reference}:" for word in WORDS)
    if found:
        said.append(
            f"By the whole gradient's variance, as a multiple of that of {reference} at equal S "
            "(1, or the least admitted; decoder passes are given where they exceed S), "
            f"{sentence(found, *words, digits=None)}."
        )
    units = {"pass": "decoder pass", "second": "second"}
    most = {unit: _most(_of(rows, f"precision_per_{unit}", names), first) for unit in units}
    gains = [f"per {units[unit]} that of {gain}" for unit, gain in most.items() if gain]
    if gains:
        said.append(
            f"The highest measured precision, 1 / variance, relative to `{first}`, is "
            f"{'; '.join(gains)}."
        )
        said.append(_timing_error(rows, names, first))
    answer = f"of a minibatch gradient's variance, the noise of q makes up {part}"
    if best := most["second"]:
        answer += (
            f"; the highest measured precision per second, relative to `{first}`, is that of "
            f"{best} (of gradients; for trainings see *Does the gradient's noise matter?*)"
        )
    return said, answer


def _with_passes(rows: pd.DataFrame, names: dict[tuple, str]) -> dict[tuple, str]:
    """The names, with the decoder passes an image where those are more than S."""
    passes = select(rows, metric="decoder_passes").groupby(["estimator", "S"]).value.median()
    more = {key: int(n) for key, n in passes.items() if key in names and n > key[1]}
    return {k: f"{t[:-1]}, {more[k]} passes)" if k in more else t for k, t in names.items()}


def _of(rows: pd.DataFrame, metric: str, names: dict[tuple, str]) -> dict[str, Estimate]:
    """Name of an estimator with its S → its number, in the order of S."""
    found = estimates(select(rows, metric=metric).sort_values("S", kind="stable"), "estimator", "S")
    places = {key: place for place, key in enumerate(names)}
    order = sorted(found, key=lambda key: (key[1], places[key]))
    return {names[key]: found[key] for key in order}


def _most(gains: dict[str, Estimate], base: str) -> str:
    """Who has the highest gain and how many times what the base has, 1 for the base itself; the
    verdict holds among all others. "" for no gains."""
    others = claims({name: gain for name, gain in gains.items() if name != base}, equal=1)
    best = max(others, key=lambda claim: claim.difference.mean, default=None)
    if base in gains and not (best and best.difference.mean > 1):
        return f"`{base}` itself"
    if best is None:
        return ""
    among = f" among {len(others)} comparisons" * (len(others) > 1)
    unsure = "" if best.decided else f" (undecided{among})"
    return f"`{best.subject}`, {best.spoken(None)} times{unsure}"


def _timing_error(rows: pd.DataFrame, names: dict[tuple, str], base: str) -> str:
    """The precision per second of one with the base's variance: 1 but for times."""
    same = names.get(("pathwise_sobol", 1))
    gain = _of(rows, "precision_per_second", names).get(same)
    if not gain or base != names.get(("pathwise", 1)):
        return ""
    return (
        f"`{same}` differs from pathwise only in how its noise is drawn, so that its "
        f"precision per second, {spoken(gain, None)} times pathwise's, shows what drawing it takes "
        "and the error of timing."
    )


def _percent(share: Estimate) -> str:
    return spoken(Estimate(100 * share.mean, 100 * share.half_width, share.n), 1) + " %"


def _beside_training(rows: pd.DataFrame, results: Results, labels: dict[str, str]) -> str:
    """Whether the order by measured precision per second is that of ELBO after an equal time."""
    trained = results.of("estimator_training", variant=rows.variant.iloc[0])
    if trained.learning_rate.isna().all() or not (trained.metric == "step_seconds").any():
        return ""
    elbo = select(scores_of(trained), budget="equal_time")
    # what diverged comes last
    reached = elbo.assign(value=elbo.value.fillna(-np.inf)).groupby(["estimator", "S"]).value.mean()
    parts: dict[tuple[str, str], list[str]] = {}
    tops = ""
    for stage, when in TRAINED.items():
        own = select(rows, stage=stage, metric="precision_per_second")
        precision = own.set_index(["estimator", "S"]).value
        both = pd.concat([precision, reached], axis=1, keys=["precision", "elbo"], join="inner")
        if len(both) < 3:
            continue
        ranks = (both[column].rank().to_numpy() for column in both)
        orders = [np.sign(np.subtract.outer(rank, rank)) for rank in ranks]
        alike = (orders[0] * orders[1])[np.triu_indices(len(both), 1)]
        agree, pairs = int((alike > 0).sum()), int((alike != 0).sum())
        if not pairs:
            continue
        every, _ = kendalltau(both.precision, both.elbo.rank())
        text = f"{decimal(every)} among all {len(both)}"
        along = both[[estimators.follows_paths(name) for name, _ in both.index]]
        if 2 < len(along) < len(both):
            own, _ = kendalltau(along.precision, along.elbo.rank())
            text = (
                f"{decimal(own)} among the {len(along)} pathwise ones and {decimal(every)} among "
                f"all {len(both)}"
            )
        ordered_alike = f"of all, {agree} of {pairs} pairs in the same order"
        parts.setdefault((text, ordered_alike), []).append(when)
        named = [
            f"{labels[name]} (S = {s})" for name, s in (both.precision.idxmax(), both.elbo.idxmax())
        ]
        whose = "" if named[0] == named[1] else f"`{named[1]}` "
        tops = (
            f"; of the estimators trained, `{named[0]}` has the highest measured precision {when} "
            f"and {whose}the highest ELBO"
        )
    if not parts:
        return ""
    said = [f"{text} {' and '.join(when)} ({pairs})" for (text, pairs), when in parts.items()]
    return (
        "Precision per second supposes that the time saved buys larger minibatches; the trainings "
        "of equal time all have one batch size. Between the order of the estimators (each with "
        "its S) by this precision and by those trainings' mean test ELBO, Kendall's τ is "
        f"{'; '.join(said)}{tops}."
    )


# --- tables ------------------------------------------------------------------------------------


def _with_data(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose data parts, of a stage, stand beside every estimator and S."""
    data = rows.metric.str.endswith("data_variance")
    cells = select(rows, metric="whole_variance")[CELL]
    spread = rows[data].drop(columns=["estimator", "S"]).merge(cells, on=["variant", "stage"])
    return pd.concat([rows[~data], spread])


def _tables(rows: pd.DataFrame, printed: Printed) -> list[Table]:
    captions = (
        "Variance of a minibatch's gradient, times its number of images, in its parts.",
        "What precision costs, at the best weights: relative to pathwise with S = 1.",
        "The encoder's Monte Carlo part by itself.",
    )
    cost = ["variant", "estimator", "S"]
    best = select(rows, stage="best")
    return [
        table("gradient_split", captions[0], printed, CELL, _entries(rows, SPLIT), 2),
        table("gradient_cost", captions[1], printed, cost, _entries(best, COST), 1),
        table("gradient_variance", captions[2], printed, CELL, _entries(rows, ENCODER), 2),
    ]


def _entries(rows: pd.DataFrame, columns: dict[str, Column]) -> dict[Column, pd.DataFrame]:
    entries = {column: select(rows, metric=metric) for metric, column in columns.items()}
    return {column: found for column, found in entries.items() if len(found)}


# --- figures -----------------------------------------------------------------------------------


def _parts_figure(rows: pd.DataFrame, printed: Printed) -> Figure | None:
    """The parts' shares of the whole, a bar an estimator and S, a panel a stage."""
    whole = select(rows, metric="whole_variance")[[*CELL, "value"]]
    frame = select(rows, metric=[*PARTS]).merge(whole, on=CELL, suffixes=("", "_whole"))
    if frame.empty:
        return None
    names = _with_s(frame, printed)
    frame = pd.DataFrame(
        {
            "stage": frame.stage.map(STAGES),
            "estimator": [names[key] for key in zip(frame.estimator, frame.S)],
            "part": frame.metric.map(PARTS),
            "share": (100 * frame.value / frame.value_whole).clip(lower=0).round(2),
            "place": frame.metric.map({metric: place for place, metric in enumerate(PARTS)}),
        }
    )
    axis = alt.Axis(labelOverlap=False)
    share = alt.X("share:Q", title="share of the variance, %", scale=alt.Scale(domain=[0, 100]))
    colours = alt.Scale(domain=[*PARTS.values()], range=[*COLOURS])
    bars = alt.Chart(frame).encode(
        x=share,
        y=alt.Y("estimator:N", sort=[*names.values()], title=None, axis=axis),
        color=alt.Color("part:N", scale=colours, legend=alt.Legend(title=None)),
        order="place:O",
        tooltip=tooltips(frame.drop(columns="place")),
    )
    stages = [stage for stage in STAGES.values() if stage in set(frame.stage)]
    size = {"width": 250, "height": alt.Step(15)}
    chart = panels(bars.mark_bar().properties(**size), "stage", stages)
    noise = frame[frame.part.str.contains("Monte")]
    noise = noise.groupby(["stage", "estimator"], sort=False).share.sum()
    seen = ". ".join(
        f"{stage}, {'; '.join(f'{name} {short(part)}' for name, part in noise[stage].items())}"
        for stage in stages
    )
    of, filters = title(rows.variant.iloc[0]), ("estimator", "stage")
    return captioned(__file__, "gradient_parts", chart, filters, variant=of, seen=seen)


def _with_s(frame: pd.DataFrame, printed: Printed) -> dict[tuple[str, int], str]:
    """(estimator, S) → what both are called, in the order of the tables."""
    present = set(zip(frame.estimator, frame.S))
    return {
        (name, s): f"{label} (S = {s})"
        for name, label in printed["estimator"].items()
        for s in printed["S"]
        if (name, s) in present
    }


def _stages_figure(rows: pd.DataFrame, printed: Printed) -> Figure | None:
    """Whole variance relative to the reference's at equal S, a panel a stage."""
    rows = select(rows, metric="whole_variance_ratio").dropna(subset="value")
    frame, names = _named(rows[rows.groupby("estimator").S.transform("min") == rows.S], printed)
    if frame.empty:
        return None
    points = _points(frame, "whole variance ÷ pathwise's", names, printed, 300)
    stages = [stage for stage in STAGES.values() if stage in set(frame.stage)]
    seen = [f"{stage}, {estimators.ranking(select(frame, stage=stage))}" for stage in stages]
    chart = panels(points, "stage", stages).resolve_scale(x="independent")
    filters, medians = ("estimator", "stage"), ". ".join(seen)
    return captioned(__file__, "gradient_variance_by_stage", chart, filters, medians=medians)


def _precision_figure(rows: pd.DataFrame, printed: Printed) -> Figure | None:
    """Precision of the whole gradient per second, a point a variant, at its best S."""
    rows = select(rows, metric="precision_per_second", stage="best")
    # a row without a number comes first
    order = rows.sort_values("value", na_position="first")
    best = order.drop_duplicates(["estimator", "variant"], keep="last")
    settings = {name: printed[name] for name in ("variant", "estimator", "S")}
    frame, names = for_chart(best, settings), printed["estimator"].values()
    if frame.empty:
        return None
    axis = estimators.axis_at([*(10.0**power for power in range(-9, 4)), 0.5, 2, 3, 5])
    chart = _points(
        frame, "precision per second ÷ that of pathwise, S = 1", names, printed, 560, axis
    )
    medians = estimators.ranking(frame)
    return captioned(__file__, "gradient_efficiency", chart, ("estimator",), medians=medians)


def _named(rows: pd.DataFrame, printed: Printed) -> tuple[pd.DataFrame, list[str]]:
    """Positive values for a chart, an estimator called with its S; and these names in order."""
    names = _with_s(rows, printed)
    called = [names[key] for key in zip(rows.estimator, rows.S)]
    settings = {"variant": printed["variant"], "stage": printed["stage"]}
    own = {"estimator": {name: name for name in names.values()}}
    return for_chart(rows.assign(estimator=called), settings | own), [*names.values()]


def _points(
    frame: pd.DataFrame,
    x: str,
    names: Iterable[str],
    printed: Printed,
    width: int,
    axis: alt.Axis | None = None,
) -> alt.LayerChart:
    """A row an estimator on a logarithmic axis, in it a point a variant, and a line at 1."""
    scale = alt.Scale(type="log", nice=False, padding=10)
    bounds = alt.Axis(grid=True, tickBand="extent")
    base = alt.Chart(frame).encode(
        y=alt.Y("estimator:N", sort=[*names], title=None, axis=bounds),
        yOffset=alt.YOffset("variant:N", sort=[*printed["variant"].values()]),
        color=by_variant(printed["variant"]),
    )
    axis = axis or estimators.tens(also=(0.3, 3))
    low, point = (alt.X(c, title=x, scale=scale, axis=axis) for c in ("low:Q", "value:Q"))
    return alt.layer(
        alt.Chart(frame).mark_rule(color="#888", strokeDash=[4, 3]).encode(x=alt.datum(1)),
        base.mark_rule(strokeWidth=2).encode(x=low, x2="high"),
        base.mark_point(filled=True, size=40, opacity=1).encode(x=point, tooltip=tooltips(frame)),
    ).properties(width=width, height=alt.Step(9))
