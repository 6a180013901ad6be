"""The headline: what each choice of posterior variance buys, in nats."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bench.report.common import (
    Estimate,
    Results,
    Section,
    colour,
    embolden,
    markdown,
    new_figure,
    over_seeds,
    save,
    title,
    write_table,
)

PLACE = 10
REFERENCE = "input_dependent"
MEASURED = ("elbo", "distortion", "rate", "active_units", "bits_per_dim", "elbo_train_minus_test",
            "distortion_train_minus_test", "best_epoch", "training_seconds", "parameters",
            "elbo_difference", "distortion_difference")  # fmt: skip


def sections(results: Results) -> list[Section]:
    """The headline section; [] where nothing was evaluated."""
    table = headline_table(results)
    if table.empty:
        return []
    takeaway, text = takeaway_of(table), headline_markdown(results, table)
    notes = "\n\n".join(part for part in (NOTES, failures(results)) if part)
    write_table(results, "elbo", table, takeaway, f"{text}\n\n{notes}")
    figures = [_elbo_figure(results, table), _plane(results), _learning_curves(results)]
    return [
        Section("What the posterior's variance buys", takeaway, text,
                [figure for figure in figures if figure], ["elbo.csv", "elbo.md"], notes)
    ]  # fmt: skip


NOTES = (
    "Means over seeds with 95 % t-intervals, nats per test image, at the weights of the best "
    "validation epoch. *Difference* is paired: same seed, data order and test images; in brackets "
    "the interval from the per-image pairs of one training (the mean over seeds of its "
    "half-width), which leaves out the seeds' spread. L_K is the IW bound with K samples, ESS its "
    "effective sample size. A plain autoencoder has no posterior, hence no ELBO; its distortion "
    "is the cross-entropy. *Training s* is wall time on a machine that may have been shared: for "
    "speeds see the throughput table. Monte Carlo errors are in `elbo.csv`."
)


def headline_table(results: Results) -> pd.DataFrame:
    """One line a variant; every metric as mean, 95 % half-width and Monte Carlo error."""
    rows = results.measured("elbo")
    lines = []
    for variant in results.variants():
        mine = rows[rows.variant == variant]
        if mine.empty:
            continue
        line: dict[str, object] = {"variant": variant, "seeds": mine.seed.nunique()}
        metrics = [(m, mine[mine.metric == m]) for m in MEASURED]
        if "K" in mine:
            for metric in ("iw_bound", "effective_sample_size"):
                for k, group in mine[mine.metric == metric].groupby("K"):
                    metrics.append((f"{metric}_{int(k)}", group))
        for name, group in metrics:
            estimate = over_seeds(group.value)
            line[name], line[f"{name}_half_width"] = estimate.mean, estimate.half_width
            errors = group.standard_error.dropna()
            if name.endswith("_difference"):
                line[f"{name}_image_half_width"] = 1.96 * errors.mean()
            elif len(errors):
                line[f"{name}_monte_carlo_error"] = _combined(errors)
        lines.append(line)
    return pd.DataFrame(lines)


def _combined(errors: pd.Series) -> float:
    """Standard error of a mean of independent numbers."""
    return math.sqrt((errors**2).sum()) / len(errors)


def estimate(line: pd.Series, metric: str) -> Estimate:
    """The estimate of a metric in a line of the headline table."""
    return Estimate(
        line.get(metric, math.nan), line.get(f"{metric}_half_width", math.nan), int(line.seeds)
    )


def takeaway_of(table: pd.DataFrame) -> str:
    """Who trails the reference by how much, in words computed from the table."""
    by_variant = table.set_index("variant", drop=False)
    if REFERENCE not in by_variant.index:
        return "No `input-dependent` runs here, so no differences to it."
    reference = estimate(by_variant.loc[REFERENCE], "elbo").text()
    parts = []
    for variant, line in by_variant.iterrows():
        difference = estimate(line, "elbo_difference")
        if not math.isfinite(difference.mean):
            continue
        size = Estimate(abs(difference.mean), difference.half_width, difference.n).text()
        if difference.low <= 0 <= difference.high:
            verdict = f"cannot be told from it (difference {difference.text()})"
        elif math.isnan(difference.half_width):
            verdict = f"{'trails' if difference.mean < 0 else 'beats'} it by {size} (one seed)"
        else:
            verdict = f"{'trails' if difference.mean < 0 else 'beats'} it by {size}"
        parts.append(f"`{title(variant)}` {verdict}")
    if not parts:
        return f"`input-dependent` reaches a test ELBO of {reference} nats."
    return f"`input-dependent` reaches a test ELBO of {reference} nats; {', '.join(parts)}."


def headline_markdown(results: Results, table: pd.DataFrame) -> str:
    """The table people read: best ELBO and bound in bold."""
    most = max((int(c.rsplit("_", 1)[1]) for c in table if c.startswith("iw_bound_")
                and c.rsplit("_", 1)[1].isdigit()), default=0)  # fmt: skip
    bound, size = f"iw_bound_{most}", f"effective_sample_size_{most}"
    columns = [
        ("ELBO", "elbo", 2, "max"),
        ("difference to input-dependent", "elbo_difference", 2, None),
        (f"L_{most or 'K'}", bound, 2, "max"),
        ("ESS", size, 0, None),
        ("distortion", "distortion", 2, None),
        ("rate", "rate", 2, None),
        ("active units", "active_units", 1, None),
        ("bits/pixel", "bits_per_dim", 4, None),
        ("train − test", "elbo_train_minus_test", 2, None),
        ("best epoch", "best_epoch", 0, None),
        ("training s", "training_seconds", 0, None),
    ]
    cells = []
    for header, metric, digits, best in columns:
        column = [estimate(line, metric).text(digits) for _, line in table.iterrows()]
        if metric == "elbo_difference":
            column = [_with_pairs(text, line) for text, (_, line) in zip(column, table.iterrows())]
        if metric == "best_epoch":
            column = [f"{line[metric]:.0f}" for _, line in table.iterrows()]
        if metric in ("training_seconds", "active_units", size):
            column = [text.split(" ± ")[0] for text in column]
        if best:
            values = [line.get(metric, math.nan) for _, line in table.iterrows()]
            column = embolden(column, values, best)
        cells.append([header, *column])
    cells.append(["seeds", *(str(n) for n in table.seeds)])
    names = ["variant", *(f"{title(v)}{_hyperparameters(results, v)}" for v in table.variant)]
    lines = list(zip(names, *cells))
    return markdown(lines[0], lines[1:])


def _with_pairs(text: str, line: pd.Series) -> str:
    pairs = line.get("elbo_difference_image_half_width", math.nan)
    return text if math.isnan(pairs) else f"{text} (pairs ± {pairs:.2f})"


def _hyperparameters(results: Results, variant: str) -> str:
    """The chosen hyperparameters, e.g. ` (scale 0.3)`."""
    sweep = results.measured("sweep")
    chosen = sweep[(sweep.variant == variant) & (sweep.get("chosen") == 1)]
    if chosen.empty:
        return ""
    first = chosen.iloc[0].setting
    pairs = [p.split("=") for p in first.split(";") if not p.startswith("chosen")]
    return " (" + ", ".join(f"{key} {float(value):g}" for key, value in pairs) + ")"


def failures(results: Results) -> str:
    """What failed and why, as a list; empty where nothing did."""
    failed = results.rows[results.rows.measurement == "failure"]
    return "\n".join(f"- **failed**: {reason}" for reason in failed.setting)


def _elbo_figure(results: Results, table: pd.DataFrame) -> tuple[str, str] | None:
    shown = table[table.elbo.notna()]
    if shown.empty:
        return None
    figure, axes = new_figure(8, 4.5)
    rows = results.measured("elbo", "elbo")
    for place, (_, line) in enumerate(shown.iterrows()):
        value = estimate(line, "elbo")
        seeds = rows[rows.variant == line.variant].value
        axes.scatter(seeds, np.full(len(seeds), place + 0.15), s=18, alpha=0.5,
                     color=colour(line.variant))  # fmt: skip
        axes.errorbar(value.mean, place, xerr=np.nan_to_num(value.half_width), fmt="o", ms=9,
                      capsize=6, lw=2, color=colour(line.variant))  # fmt: skip
    axes.set_yticks(range(len(shown)), [title(v) for v in shown.variant])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("test ELBO (nats per image; right is better)")
    how = "Large points: mean over seeds with its 95 % interval; small points: the seeds. Further right is better."  # noqa: E501
    return save(results, figure, "elbo"), how


def _plane(results: Results) -> tuple[str, str] | None:
    rows = results.measured("elbo")
    wide = rows[rows.metric.isin(["rate", "distortion"])].pivot_table(
        index=["variant", "seed"], columns="metric", values="value"
    )
    if "rate" not in wide or wide.rate.dropna().empty:
        return None
    figure, axes = new_figure(7.5, 5.5)
    for variant in results.variants():
        if variant not in wide.index:
            continue
        mine = wide.loc[variant].dropna()
        if mine.empty:
            continue
        axes.scatter(mine.rate, mine.distortion, s=60, alpha=0.8, color=colour(variant),
                     label=title(variant))  # fmt: skip
    low, high = axes.get_xlim()
    bottom, top = axes.get_ylim()
    wide = wide.dropna()
    sums = np.arange(math.floor((wide.rate + wide.distortion).min()) - 2,
                     (wide.rate + wide.distortion).max() + 3)  # fmt: skip
    for total in sums:
        axes.plot([low, high], [total - low, total - high], color="0.75", lw=0.8, zorder=0)
    axes.set(xlim=(low, high), ylim=(bottom, top))
    axes.set_xlabel("rate KL(q || p) (nats per image)")
    axes.set_ylabel("distortion −E log p(x|z) (nats per image)")
    axes.legend()
    how = "Each point is a seed; grey diagonals are lines of equal ELBO, one nat apart (lower left is better). Along a diagonal a model trades code length against reconstruction."  # noqa: E501
    return save(results, figure, "rate_distortion"), how


def _learning_curves(results: Results) -> tuple[str, str] | None:
    history = results.history
    if history.empty or "valid_elbo" not in history:
        return None
    figure, axes = new_figure(8, 5)
    for variant in results.variants():
        mine = history[(history.variant == variant) & history.valid_elbo.notna()]
        if mine.empty:
            continue
        curve = mine.groupby("epoch").valid_elbo
        mean = curve.mean()
        axes.plot(mean.index, mean, color=colour(variant), lw=2, label=title(variant))
        axes.fill_between(mean.index, curve.min(), curve.max(), color=colour(variant), alpha=0.2)
    finite = history.valid_elbo.dropna()
    if finite.empty:
        return None
    axes.set_ylim(finite.quantile(0.1), finite.max() + 0.05 * (finite.max() - finite.quantile(0.1)))
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation ELBO (nats per image)")
    axes.legend()
    how = "Mean over seeds, band from the lowest to the highest seed; the first epochs lie below the frame. The learning rate starts to fall at half time."  # noqa: E501
    return save(results, figure, "learning_curves"), how
