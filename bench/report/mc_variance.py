"""How noisy the loss is: ELBO estimators by stage, KL and S, and the IW bound by K."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import stats

from bench.report.common import (
    Results,
    Section,
    colour,
    embolden,
    markdown,
    new_figure,
    number,
    save,
    title,
    write_table,
)
from bench.report.estimators import one, where

PLACE = 20

MEASUREMENT = "mc_variance"
STAGES = {"initialisation": "initialisation", "epoch_1": "epoch 1", "best": "best"}
KLS = ("analytic", "sampled")
SAMPLINGS = {
    "independent": "independent",
    "antithetic": "antithetic pairs",
    "sobol": "Sobol points",
}
MARKERS = "os^DvP"
SETTINGS = ["stage", "kl", "sampling", "S", "K", "reference"]
COLUMNS = ["variant", *SETTINGS, "metric", "value", "standard_error", "n", "unit", "reason"]

NOTES = (
    "Variance over the noise of q(z|x) at fixed x, averaged over test images (first seed); "
    "intervals are 95 %, by a jackknife over images. *Gain* is the variance of independent samples "
    "over that of the scheme at equal decoder passes: below 1 it is a loss. *Time* is that of an "
    "estimate on one thread, noise and encoder included. The IW bound's *bias* is its distance to "
    "the estimate with the largest K from the same samples."
)


def sections(results: Results) -> list[Section]:
    """The section on the loss's variance; [] where it was not measured."""
    rows = _rows(results)
    if rows.empty:
        return []
    variants = [v for v in results.variants() if v in set(rows.variant)]
    takeaway = " ".join(filter(None, [_order_sentence(rows, variants), _gain_sentence(rows)]))
    order, bounds = _order_table(rows, variants), _iw_table(rows, variants)
    iw = "\n\n".join(filter(None, [_iw_sentence(rows, variants), bounds]))
    tables = [_samples_table(rows, v, stage) for stage in STAGES for v in variants]
    parts = [order, iw, *tables, _time_table(rows, variants), _absences(rows), NOTES]
    write_table(results, MEASUREMENT, rows[COLUMNS], takeaway, "\n\n".join(filter(None, parts)))
    figures = [
        _samples_figure(results, rows, variants),
        _stages_figure(results, rows, variants),
        _iw_figure(results, rows, variants),
    ]
    files = [f"{MEASUREMENT}.md", f"{MEASUREMENT}.csv"]
    notes = "\n\n".join(filter(None, [iw, NOTES]))
    return [Section("How noisy the loss is", takeaway, order, figures, files, notes)]


def _rows(results: Results) -> pd.DataFrame:
    """The measurement's rows with every setting a column, and 95 % half-widths."""
    rows = results.measured(MEASUREMENT)
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *COLUMNS])))
    quantile = stats.t.ppf(0.975, (rows.n - 1).clip(lower=1))
    return rows.assign(half_width=rows.standard_error * quantile)


def _values(found: Sequence[pd.Series | None]) -> list[float]:
    return [math.nan if row is None else row.value for row in found]


def _cell(row: pd.Series | None, interval: bool = True) -> str:
    """A row as text; n/a where there is no such estimator, NaN where it broke."""
    if row is None:
        return "–"
    if math.isnan(row.value) and row.n == 0:
        return "n/a"
    return number(row.value, row.half_width if interval else math.nan)


def _quieter(rows: pd.DataFrame, variant: str, stage: str) -> str:
    """The KL of lower one-sample variance, `undecided` within the ratio's interval, or n/a."""
    settings = dict(variant=variant, stage=stage, sampling="independent", S=1)
    ratio = one(rows, "sampled_to_analytic_variance", **settings)
    if ratio is None or not math.isfinite(ratio.value):
        return "n/a"
    if abs(ratio.value - 1) <= ratio.half_width:
        return "undecided"
    return "sampled" if ratio.value < 1 else "analytic"


def _order_table(rows: pd.DataFrame, variants: Sequence[str]) -> str:
    """One-sample variances of both KLs by variant and stage, and where their order flips."""
    lines = []
    for variant in variants:
        before = ""
        for stage, label in STAGES.items():
            settings = dict(variant=variant, stage=stage, sampling="independent", S=1)
            found = [one(rows, "elbo_variance", kl=kl, **settings) for kl in KLS]
            ratio = one(rows, "sampled_to_analytic_variance", **settings)
            quieter = _quieter(rows, variant, stage)
            flipped = quieter in KLS and before in KLS and quieter != before
            before = quieter if quieter in KLS else before
            cells = [_cell(row) for row in found]
            if quieter in KLS:
                cells = embolden(cells, _values(found), "min")
            verdict = f"{quieter} KL" if quieter in KLS else quieter
            verdict += " (flipped)" if flipped else ""
            lines.append([f"{title(variant)}, {label}", *cells, _cell(ratio), verdict])
    header = ["One sample (S = 1), variance in nats²", "analytic KL", "sampled KL"]
    return markdown([*header, "sampled / analytic", "quieter"], lines)


def _samples(rows: pd.DataFrame) -> list[int]:
    return sorted(int(s) for s in rows.S.dropna().unique())


def _samples_table(rows: pd.DataFrame, variant: str, stage: str) -> str:
    """Variance, slope, gain and time of every estimator, for one variant and stage."""
    samples, names = _samples(rows), [(kl, s) for kl in KLS for s in SAMPLINGS]
    here = dict(variant=variant, stage=stage)
    columns = []
    for s in samples:
        found = [one(rows, "elbo_variance", kl=kl, sampling=n, S=s, **here) for kl, n in names]
        texts = [_cell(row, interval=False) for row in found]
        columns.append(embolden(texts, _values(found), "min"))
    lines = []
    for place, (kl, name) in enumerate(names):
        settings = dict(variant=variant, kl=kl, sampling=name)
        slope = one(rows, "elbo_variance_slope", stage=stage, **settings)
        gain = one(rows, "elbo_variance_reduction", stage=stage, S=samples[-1], **settings)
        gain = "1" if name == "independent" else _cell(gain)
        label = f"{kl} KL, {SAMPLINGS[name]}"
        lines.append([label, *(column[place] for column in columns), _cell(slope), gain])
    header = [f"{title(variant)}, {STAGES[stage]}: variance in nats²"]
    header += [f"S = {s}" for s in samples]
    return markdown([*header, "slope", f"gain at S = {samples[-1]}"], lines)


def _time_table(rows: pd.DataFrame, variants: Sequence[str]) -> str:
    """Time of one estimate by S."""
    samples, lines = _samples(rows), []
    for variant in variants:
        for kl in KLS:
            for name, label in SAMPLINGS.items():
                settings = dict(variant=variant, kl=kl, sampling=name)
                found = [one(rows, "elbo_estimate_time", S=s, **settings) for s in samples]
                lines.append([f"{title(variant)}, {kl} KL, {label}", *map(_cell, found)])
    return markdown(["Time in µs/image", *(f"S = {s}" for s in samples)], lines)


def _iw_table(rows: pd.DataFrame, variants: Sequence[str]) -> str:
    """Bias, variance and effective sample size of the IW bound at the best weights."""
    ks = sorted(int(k) for k in rows.K.dropna().unique())
    names = {
        "iw_bias": "bias in nats",
        "iw_variance": "variance in nats²",
        "iw_effective_sample_size": "effective sample size",
    }
    lines = [
        [f"{title(v)}, {label}"]
        + [_cell(one(rows, metric, variant=v, stage="best", K=k)) for k in ks]
        for v in variants
        for metric, label in names.items()
    ]
    return markdown(["IW bound, best weights", *(f"K = {k}" for k in ks)], lines) if ks else ""


def _absences(rows: pd.DataFrame) -> str:
    """Why cells are n/a or not finite, each reason once."""
    given = rows[rows.reason.notna()]
    lines = [
        f"- {reason} ({', '.join(title(v) for v in group.variant.unique())})"
        for reason, group in given.groupby("reason")
    ]
    return "\n".join(["Cells that are n/a or not finite:", "", *lines]) if lines else ""


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _order_sentence(rows: pd.DataFrame, variants: Sequence[str]) -> str:
    """Which KL is quieter at initialisation and at the best weights, and by how much."""
    known = [v for v in variants if _quieter(rows, v, "best") != "n/a"]
    everyone = "every variant" if known == list(variants) else "every variant of known KL"
    parts = []
    for stage, when in (("initialisation", "At initialisation"), ("best", "at the best weights")):
        for kl in KLS:
            names = [v for v in variants if _quieter(rows, v, stage) == kl]
            settings = dict(stage=stage, sampling="independent", S=1)
            ratio = where(rows, "sampled_to_analytic_variance", **settings)
            factors = ratio[ratio.variant.isin(names)].value
            if names:
                factors = factors if kl == "analytic" else 1 / factors
                who = everyone if names == known else _list([title(v) for v in names])
                parts.append(
                    f"{when} the {kl} KL gives the quieter ELBO estimate for {who} (one-sample "
                    f"variance lower by a factor of {_range(factors)})"
                )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if parts else ""


def _when(stage: str) -> str:
    return {"best": "the best weights", "epoch_1": "epoch 1"}.get(stage, stage)


def _range(values: pd.Series) -> str:
    low, high = (f"{float(f'{v:.2g}'):,g}" for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _gain_sentence(rows: pd.DataFrame) -> str:
    """What the better sampling schemes give at equal decoder passes, at the best weights."""
    last = _samples(rows)[-1]
    parts = []
    for name, label in SAMPLINGS.items():
        settings = dict(stage="best", sampling=name, S=last)
        gains = where(rows, "elbo_variance_reduction", **settings).value.dropna()
        if len(gains):
            parts.append(f"{label} {_range(gains)}")
    if not parts:
        return ""
    losses = where(rows, "elbo_variance_reduction")
    losses = losses[losses.value + losses.half_width < 1]
    warning = ""
    if len(losses):
        worst = losses.loc[losses.value.idxmin()]
        warning = (
            f" A scheme can also lose: {SAMPLINGS[worst.sampling]} with the {worst.kl} KL at "
            f"{_when(worst.stage)} multiply it by {1 / worst.value:.2g} ({title(worst.variant)})."
        )
    return (
        f"At equal decoder passes (S = {last}, best weights) the variance is that of independent "
        f"samples divided by: {'; '.join(parts)}.{warning}"
    )


def _iw_sentence(rows: pd.DataFrame, variants: Sequence[str]) -> str:
    """How far the IW bound with the largest tabled K still is from the reference."""
    found = where(rows, "iw_bias", stage="best")
    if found.empty:
        return ""
    k, reference = int(found.K.max()), int(found.reference.max())
    parts = []
    for variant in variants:
        bias = one(found, "iw_bias", variant=variant, K=k)
        size = one(rows, "iw_effective_sample_size", variant=variant, stage="best", K=k)
        if bias is not None and size is not None:
            parts.append(f"{title(variant)} {-bias.value:.2f} nats ({size.value:.3g})")
    return (
        f"With K = {k} the IW bound is still below its K = {reference} estimate (in brackets its "
        f"effective sample size): {', '.join(parts)}."
    )


def _draw(axes: Axes, rows: pd.DataFrame, across: str, **style) -> None:
    """A line of values with 95 % intervals against a setting."""
    rows = rows[np.isfinite(rows.value)].sort_values(across)
    if len(rows):
        axes.errorbar(rows[across], rows.value, rows.half_width, capsize=2, **style)


def _style(variants: Sequence[str], variant: str) -> dict:
    marker = MARKERS[variants.index(variant) % len(MARKERS)]
    return dict(color=colour(variant), marker=marker, markersize=5)


def _samples_figure(
    results: Results, rows: pd.DataFrame, variants: Sequence[str]
) -> tuple[str, str]:
    """Variance against S at the best weights, a panel a KL and scheme, slopes in the legends."""
    figure, grid = new_figure(13, 8.5, nrows=2, ncols=3, sharex=True, sharey=True)
    samples = _samples(rows)
    for line, kl in zip(grid, KLS):
        for axes, (name, label) in zip(line, SAMPLINGS.items()):
            for variant in variants:
                settings = dict(variant=variant, stage="best", kl=kl, sampling=name)
                slope = one(rows, "elbo_variance_slope", **settings)
                value = math.nan if slope is None else slope.value
                text = f"{title(variant)} {f'{value:.2f}'.replace('-', '−')}"
                values = where(rows, "elbo_variance", **settings)
                _draw(axes, values, "S", label=text, **_style(variants, variant))
            axes.set(title=f"{kl} KL, {label}", xscale="log", yscale="log")
            axes.set_xticks(samples, [str(s) for s in samples])
            axes.minorticks_off()
    top = 1.6 * where(rows, "elbo_variance", stage="best", S=samples[0]).value.max()
    for axes in grid.flat:
        guide = [top / (s / samples[0]) for s in samples]
        axes.plot(samples, guide, color="0.6", linestyle=":", zorder=0)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(title="slope", loc="lower left", fontsize=11)
    figure.supxlabel("samples S (decoder passes per image)")
    figure.supylabel("variance of the ELBO estimate, nats²")
    return (
        save(results, figure, "mc_variance_by_samples"),
        "Variance of the ELBO estimate against S at the best weights; the dotted line has slope "
        "−1, the rate of independent samples. Sobol points fall faster where the integrand is "
        "smooth, antithetic pairs keep the rate but start lower or higher.",
    )


def _stages_figure(
    results: Results, rows: pd.DataFrame, variants: Sequence[str]
) -> tuple[str, str]:
    """One-sample variance of both KLs by stage."""
    figure, axes = new_figure(8, 5)
    places = {stage: place for place, stage in enumerate(STAGES)}
    for variant in variants:
        for kl, line in zip(KLS, ("-", "--")):
            settings = dict(variant=variant, kl=kl, sampling="independent", S=1)
            values = where(rows, "elbo_variance", **settings)
            values = values.assign(place=values.stage.map(places))
            _draw(axes, values, "place", linestyle=line, **_style(variants, variant))
    handles = [Line2D([], [], label=title(v), **_style(variants, v)) for v in variants]
    handles += [
        Line2D([], [], color="0.3", linestyle=line, label=f"{kl} KL")
        for kl, line in zip(KLS, ("-", "--"))
    ]
    axes.set(yscale="log", xlabel="weights", ylabel="variance at S = 1, nats²")
    axes.set_xticks(list(places.values()), list(STAGES.values()))
    axes.legend(handles=handles, fontsize=11)
    return (
        save(results, figure, "mc_variance_by_stage"),
        "Variance of a one-sample ELBO estimate through training. Where the solid and dashed line "
        "of one colour cross, the order of analytic and sampled KL flips.",
    )


def _iw_figure(results: Results, rows: pd.DataFrame, variants: Sequence[str]) -> tuple[str, str]:
    """Bias, variance and effective sample size of the IW bound against K."""
    figure, panels = new_figure(13, 4.6, ncols=3)
    names = ("iw_bias", "iw_variance", "iw_effective_sample_size")
    reference = rows.reference.max()
    labels = (rf"$L_{{{reference:.0f}}} - L_K$, nats", "variance of $L_K$, nats²",
              "effective sample size")  # fmt: skip
    for axes, metric, label in zip(panels, names, labels):
        for variant in variants:
            values = where(rows, metric, variant=variant, stage="best")
            values = values.assign(value=values.value.abs())
            _draw(axes, values, "K", label=title(variant), **_style(variants, variant))
        axes.set(xscale="log", yscale="log", xlabel="samples $K$", ylabel=label)
    ks = sorted(rows.K.dropna().unique())
    panels[-1].plot(ks, ks, color="0.6", linestyle=":", label="$K$", zorder=0)
    panels[-1].legend(fontsize=11)
    return (
        save(results, figure, "mc_variance_iw_bound"),
        "The IW bound at the best weights against K: distance to the largest-K estimate, variance "
        "over noise, effective sample size. An effective sample size far below the dotted line "
        "says that few samples carry all the weight.",
    )
