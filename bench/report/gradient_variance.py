"""How noisy the gradient is, by estimator, stage and S, and what the quiet ones cost."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from bench.report.common import (
    Results,
    Section,
    colour,
    decimal,
    embolden,
    markdown,
    new_figure,
    number,
    save,
    title,
    write_table,
)
from bench.report.estimators import MARKERS, VARIANT, known, one, ordered, slope, spoken, style

PLACE = 30
MEASUREMENT = "gradient_variance"
STAGES = {"initialisation": "initialisation", "epoch_1": "epoch 1", "best": "best weights"}
SETTINGS = ["stage", "estimator", "S", "reference", "capped", "cause", "reason"]
COLUMNS = ["variant", "stage", "estimator", "S", "metric", "value", "standard_error", "n", "unit",
           "reference", "capped", "cause", "reason"]  # fmt: skip
COMPARED_AT = 4
"""S at which every estimator is admitted, for the figures that compare all."""

NOTES = (
    "Total variance tr Cov[g] of one example's estimated ELBO gradient with respect to everything "
    "its posterior depends on, averaged over test images (first seed); intervals are 95 %, over "
    "the noise of q. The ratio is to the first estimator that the posterior admits, at the same "
    "S. An estimator that needs more than one sample is shown at the S named. † sampling reached "
    "its cap before a relative standard error of 5 %. *Efficiency* is 1 / (variance × time of a "
    "training step), relative to that estimator. Location and scale parts are the variances from "
    "the location parameters alone and from all other parameters alone; their sum misses twice a "
    "covariance. Every S and stage is in `gradient_variance.csv`."
)


def sections(results: Results) -> list[Section]:
    """The section on the gradient's variance; [] where it was not measured."""
    rows = known(results, MEASUREMENT, COLUMNS)
    if rows.empty:
        return []
    variants = [v for v in results.variants() if v in set(rows.variant)]
    takeaway, table = _takeaway(rows, variants), _ratios(rows, variants)
    details = {v: _details(rows, v) for v in variants}
    write_table(
        results, MEASUREMENT, rows[COLUMNS], takeaway,
        "\n\n".join([table, *details.values(), _decoder(rows, variants), _absences(rows), NOTES]),
    )  # fmt: skip
    figures = [
        _stages_figure(results, rows, variants),
        _samples_figure(results, rows, variants),
        _efficiency_figure(results, rows, variants),
    ]
    shown = VARIANT if VARIANT in details else variants[0]
    files = [f"{MEASUREMENT}.md", f"{MEASUREMENT}.csv"]
    notes = f"{details[shown]}\n\n{_decoder(rows, variants)}\n\n{NOTES}"
    return [Section("How noisy the gradient is", takeaway, table, figures, files, notes)]


def _least(rows: pd.DataFrame, name: str) -> int:
    """The least S at which any variant admits the estimator (1 where none does)."""
    numbers = rows[(rows.metric == "total_variance") & (rows.estimator == name) & (rows.n > 0)]
    return int(numbers.S.min()) if len(numbers) else 1


def _label(rows: pd.DataFrame, name: str) -> str:
    least = _least(rows, name)
    return spoken(name) + (f" (S = {least})" if least > 1 else "")


def _names(rows: pd.DataFrame) -> list[str]:
    return ordered(rows.estimator.dropna().unique())


def _cell(row: pd.Series | None, capped: bool = False) -> str:
    """A number with its interval, n/a where the estimator is not admitted."""
    if row is None or (math.isnan(row.value) and row.n == 0):
        return "n/a"
    return number(row.value, row.half_width) + ("†" if capped else "")


def _ratios(rows: pd.DataFrame, variants: list[str]) -> str:
    """Variance ratios by stage and estimator (lines) and variant (columns)."""
    lines = []
    for stage, label in STAGES.items():
        columns = []
        for variant in variants:
            cells, values = [], []
            for name in _names(rows):
                here = dict(variant=variant, stage=stage, estimator=name, S=_least(rows, name))
                ratio, total = (
                    one(rows, "variance_ratio", **here),
                    one(rows, "total_variance", **here),
                )
                if ratio is None:
                    cells.append("n/a" if total is None or total.n == 0 else f"{total.value:g}")
                    values.append(math.nan)
                elif ratio.reference == name:
                    cells.append(f"1 ({number(total.value)} nats²)")
                    values.append(1.0)
                else:
                    cells.append(_cell(ratio, total.capped == 1))
                    values.append(ratio.value)
            columns.append(embolden(cells, values, "min"))
        for place, name in enumerate(_names(rows)):
            lines.append([f"{label}: {_label(rows, name)}", *(c[place] for c in columns)])
    return markdown(["variance ratio, S = 1", *map(title, variants)], lines)


def _details(rows: pd.DataFrame, variant: str) -> str:
    """Everything about one variant's gradient at the best weights."""
    metrics = {
        "total_variance": "total variance, nats²",
        "location_variance": "location part",
        "scale_variance": "scale part",
        "signal_to_noise": "signal-to-noise",
        "step_microseconds": "µs per sample",
        "efficiency": "efficiency",
    }
    names, columns = _names(rows), []
    for metric in metrics:
        found = [
            one(rows, metric, variant=variant, stage="best", estimator=n, S=_least(rows, n))
            for n in names
        ]
        cells = [_cell(row) for row in found]
        if metric in ("total_variance", "efficiency"):
            values = [math.nan if row is None else row.value for row in found]
            cells = embolden(cells, values, "min" if metric == "total_variance" else "max")
        columns.append(cells)
    lines = [[_label(rows, n), *(c[i] for c in columns)] for i, n in enumerate(names)]
    return markdown([f"{title(variant)}, best weights, S = 1", *metrics.values()], lines)


def _decoder(rows: pd.DataFrame, variants: list[str]) -> str:
    """The decoder's gradient, the same estimator beside every one of the encoder's."""
    lines = [
        [label] + [_cell(one(rows, "decoder_variance", variant=v, stage=stage)) for v in variants]
        for stage, label in STAGES.items()
    ]
    return markdown(["decoder's gradient: total variance at S = 1, nats²", *map(title, variants)],
                    lines)  # fmt: skip


def _absences(rows: pd.DataFrame) -> str:
    """Why cells are n/a or not finite, each reason once."""
    given = rows.assign(why=rows.reason.fillna(rows.cause)).dropna(subset="why")
    lines = [
        f"- {why} ({', '.join(title(v) for v in group.variant.unique())})"
        for why, group in given.groupby("why")
    ]
    return "\n".join(["Cells that are n/a or not finite:", "", *lines]) if lines else ""


def _takeaway(rows: pd.DataFrame, variants: list[str]) -> str:
    """Who is quietest, who is loudest and who is worth its cost, at the best weights."""
    variant = VARIANT if VARIANT in variants else variants[0]
    found = {}
    for name in _names(rows):
        here = dict(variant=variant, stage="best", estimator=name, S=_least(rows, name))
        found[name] = (one(rows, "variance_ratio", **here), one(rows, "efficiency", **here))
    ratios = {n: r for n, (r, _) in found.items() if r is not None and math.isfinite(r.value)}
    if not ratios:
        return f"No estimator of `{title(variant)}`'s gradient has a finite variance."
    reference = next(iter(ratios.values())).reference
    quiet = min(ratios, key=lambda n: ratios[n].value)
    loud = max(ratios, key=lambda n: ratios[n].value)
    parts = [
        f"At the best weights of `{title(variant)}` the quietest gradient is that of "
        f"{_label(rows, quiet)}, with {number(ratios[quiet].value, ratios[quiet].half_width)} "
        f"times the variance of {spoken(reference)} at equal S; the noisiest is "
        f"{_label(rows, loud)} with {number(ratios[loud].value, ratios[loud].half_width)} times"
    ]
    centred = [n for n in ("score_function_baseline", "rloo") if n in ratios and n != loud]
    if centred:
        better = min(centred, key=lambda n: ratios[n].value)
        parts.append(
            f"among score-function estimators {_label(rows, better)} does best, with "
            f"{number(ratios[better].value, ratios[better].half_width)} times"
        )
    worth = {n: e for n, (_, e) in found.items() if e is not None and math.isfinite(e.value)}
    if worth:
        best = max(worth, key=lambda n: worth[n].value)
        parts.append(
            f"for its cost {_label(rows, best)} gives most, "
            f"{number(worth[best].value, worth[best].half_width)} times the precision of "
            f"{spoken(reference)} a second"
        )
    return "; ".join(parts) + "."


def _stages_figure(results: Results, rows: pd.DataFrame, variants: list[str]) -> tuple[str, str]:
    """S × variance by stage, a panel a variant."""
    across = min(3, len(variants) + 1)
    down = -(-(len(variants) + 1) // across)
    figure, grid = new_figure(4.6 * across, 4.2 * down, nrows=down, ncols=across, squeeze=False,
                              sharex=True, sharey=True)  # fmt: skip
    for axes, variant in zip(grid.flat, variants):
        for name in _names(rows):
            samples = _least(rows, name)
            cells = [
                one(rows, "total_variance", variant=variant, stage=s, estimator=name, S=samples)
                for s in STAGES
            ]
            values = [math.nan if c is None else c.value * samples for c in cells]
            errors = [0 if c is None else c.half_width * samples for c in cells]
            if np.isfinite(values).any():
                axes.errorbar(range(len(STAGES)), values, errors, capsize=2, **style(name))
        axes.set(yscale="log", title=title(variant))
        axes.set_xticks(range(len(STAGES)), ["init", "epoch 1", "best"])
        axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(variants) :]:
        axes.axis("off")
    handles = [
        Line2D([], [], **style(name) | {"label": _label(rows, name)}) for name in _names(rows)
    ]
    grid.flat[len(variants)].legend(handles=handles, loc="center", fontsize=12)
    figure.supylabel("S × total variance, nats²")
    return (
        save(results, figure, "gradient_variance_by_stage"),
        "Total variance of one example's gradient times its number of samples, so that estimators "
        "that need more than one compare at equal decoder passes. Dashed lines are score-function "
        "estimators.",
    )


def _samples_figure(results: Results, rows: pd.DataFrame, variants: list[str]) -> tuple[str, str]:
    """Variance against S at the best weights of one variant, slopes in the legend."""
    variant = VARIANT if VARIANT in variants else variants[0]
    chosen = rows[(rows.variant == variant) & (rows.stage == "best")
                  & (rows.metric == "total_variance") & np.isfinite(rows.value)]  # fmt: skip
    figure, axes = new_figure(9.5, 5.5)
    for name in _names(rows):
        values = chosen[chosen.estimator == name].sort_values("S")
        if len(values):
            steep = decimal(slope(values.S, values.value))
            look = style(name) | {"label": f"{spoken(name)} {steep}"}
            axes.errorbar(values.S, values.value, values.half_width, capsize=2, **look)
    samples = sorted(int(s) for s in chosen.S.unique())
    axes.set(xscale="log", yscale="log", xlabel="noise samples S",
             ylabel="total variance, nats²", title=f"{title(variant)}, best weights")  # fmt: skip
    axes.set_xticks(samples, [str(s) for s in samples])
    axes.minorticks_off()
    axes.legend(title="estimator, slope", loc="center left", bbox_to_anchor=(1, 0.5), fontsize=11)
    return (
        save(results, figure, "gradient_variance_by_samples"),
        "Independent samples give slope −1. Leave-one-out falls a little faster at small S, since "
        "its baseline improves too; a baseline from a fixed number of samples does not.",
    )


def _efficiency_figure(
    results: Results, rows: pd.DataFrame, variants: list[str]
) -> tuple[str, str]:
    """Work-normalised efficiency by estimator at S = 4, a marker a variant."""
    figure, axes = new_figure(9, 5.5)
    names = _names(rows)
    for shift, variant in enumerate(variants):
        found = [
            one(rows, "efficiency", variant=variant, stage="best", estimator=n, S=COMPARED_AT)
            for n in names
        ]
        places = [i + 0.14 * (shift - (len(variants) - 1) / 2) for i in range(len(names))]
        values = [math.nan if f is None else f.value for f in found]
        errors = [0 if f is None or math.isnan(f.half_width) else f.half_width for f in found]
        below = [min(e, 0.9 * v) for e, v in zip(errors, values)]  # a logarithmic axis has no 0
        look = dict(color=colour(variant), marker=MARKERS[shift % len(MARKERS)])
        axes.errorbar(values, places, xerr=[below, errors], linestyle="", capsize=2,
                      label=title(variant), **look)  # fmt: skip
    axes.axvline(1, color="0.5", zorder=0)
    axes.set(xscale="log", xlabel="1 / (variance × time), relative to pathwise "
             f"(S = {COMPARED_AT}, best weights)")  # fmt: skip
    axes.set_yticks(range(len(names)), [spoken(n) for n in names])
    axes.invert_yaxis()
    axes.legend(fontsize=11)
    return (
        save(results, figure, "gradient_efficiency"),
        "Right of the line an estimator gives more precision a second than pathwise (or, where "
        "that is not admitted, than the first that is). Time is that of a whole training step.",
    )
