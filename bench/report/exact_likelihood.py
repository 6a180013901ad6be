"""Probabilistic PCA: every posterior against the exact log p(x)."""

from __future__ import annotations

import math

import pandas as pd

from bench.report.common import (
    Estimate,
    Results,
    Section,
    colour,
    decimal,
    embolden,
    markdown,
    new_figure,
    over_seeds,
    save,
    title,
    write_table,
)

PLACE = 56
TOLERANCE = 0.05
"""Nats within which theory is said to hold."""
METRICS = ("elbo", "exact_log_likelihood", "exact_gap", "elbo_difference", "noise",
           "maximum_likelihood", "generating_log_likelihood")  # fmt: skip
NOTES = (
    "Linear decoder, Gaussian likelihood N(x | Wz + b, s² I) with s learned: log p(x) is known "
    "exactly, and the true posterior is Gaussian with the same covariance for every x (Tipping & "
    "Bishop 1999). Test set, means over seeds with 95 % t-intervals; a log density of real-valued "
    "x. *Gap* is the model's own exact log p(x) minus its ELBO, the mean KL from the true "
    "posterior; *difference* is paired with input-dependent. What is left of the gap where theory "
    "says zero is the encoder's: it is a network with a nonlinearity, learning a linear map from "
    "finitely many x."
)


def sections(results: Results) -> list[Section]:
    """The section on exact likelihoods; [] where none was measured."""
    table = exact_table(results)
    if table.empty:
        return []
    takeaway, text = takeaway_of(table), _markdown(table)
    notes = f"{_references(table)}\n\n{NOTES}"
    write_table(results, "exact_likelihood", table, takeaway, f"{text}\n\n{notes}")
    files = ["exact_likelihood.csv", "exact_likelihood.md"]
    return [
        Section("Where log p(x) is known", takeaway, text, [_figure(results, table)], files, notes)
    ]


def exact_table(results: Results) -> pd.DataFrame:
    """One line a variant; every metric as mean over seeds and 95 % half-width."""
    rows = results.measured("exact_likelihood")
    lines = []
    for variant in results.variants():
        mine = rows[rows.variant == variant]
        if mine.empty:
            continue
        line: dict[str, object] = {"variant": variant, "seeds": mine.seed.nunique()}
        for metric in METRICS:
            estimate = over_seeds(mine[mine.metric == metric].value)
            line[metric], line[f"{metric}_half_width"] = estimate.mean, estimate.half_width
        lines.append(line)
    return pd.DataFrame(lines)


def _estimate(table: pd.DataFrame, variant: str, metric: str) -> Estimate | None:
    line = table[table.variant == variant]
    if line.empty or not math.isfinite(line[metric].iloc[0]):
        return None
    return Estimate(line[metric].iloc[0], line[f"{metric}_half_width"].iloc[0], 0)


def takeaway_of(table: pd.DataFrame) -> str:
    """Whether theory's two statements hold within the tolerance, intervals included."""
    statements = [
        ("learned_diagonal", "elbo_difference", "learned-diagonal ties input-dependent",
         "learned-diagonal minus input-dependent is {} nats"),
        ("full_covariance", "exact_gap", "full-covariance reaches its exact log p(x)",
         "full-covariance stays {} nats below its exact log p(x)"),
    ]  # fmt: skip
    parts = []
    for variant, metric, holds, found in statements:
        estimate = _estimate(table, variant, metric)
        if estimate is None:
            continue
        width = 0 if math.isnan(estimate.half_width) else estimate.half_width
        within = abs(estimate.mean) + width <= TOLERANCE
        measured = found.format(estimate.text(3))
        verdict = "as theory says" if within else f"which does not show that {holds}"
        parts.append(
            f"{measured}, {verdict} (within {TOLERANCE} nats: {'yes' if within else 'no'})"
        )
    if not parts:
        best = table.loc[table.exact_gap.idxmin()]
        parts = [f"{title(best.variant)} comes closest to its exact log p(x): {best.exact_gap:.3f}"]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _markdown(table: pd.DataFrame) -> str:
    def cells(name: str, digits: int = 3) -> list[str]:
        pairs = zip(table[name], table[f"{name}_half_width"])
        return [Estimate(*pair, 0).text(digits) for pair in pairs]

    columns = {
        "variant": [title(v) for v in table.variant],
        "ELBO": embolden(cells("elbo"), list(table.elbo)),
        "exact log p(x)": cells("exact_log_likelihood"),
        "gap": embolden(cells("exact_gap"), list(table.exact_gap), "min"),
        "difference": cells("elbo_difference"),
        "s": cells("noise"),
    }
    return markdown(list(columns), zip(*columns.values()))


def _references(table: pd.DataFrame) -> str:
    best = table.maximum_likelihood.iloc[0]
    text = f"The maximum-likelihood model of the same training data reaches {decimal(best, 3)}"
    own = table.generating_log_likelihood.iloc[0]
    if math.isfinite(own):
        text += f", the model the data were drawn from {decimal(own, 3)}"
    return f"{text} nats per image on the same test set."


def _figure(results: Results, table: pd.DataFrame) -> tuple[str, str]:
    figure, axes = new_figure(8, 0.7 * len(table) + 1.8)
    for place, line in enumerate(table.itertuples()):
        width = 0 if math.isnan(line.exact_gap_half_width) else line.exact_gap_half_width
        axes.errorbar(line.exact_gap, place, xerr=width, fmt="o", ms=9, capsize=4,
                      color=colour(line.variant))  # fmt: skip
    axes.axvspan(0, TOLERANCE, color="0.9", zorder=0, label=f"within {TOLERANCE} nats of exact")
    axes.set_yticks(range(len(table)), [title(v).replace("-", "-\n", 1) for v in table.variant])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("exact log p(x) − ELBO, nats per test image")
    figure.legend(loc="outside upper right")
    reading = (
        "Distance of each ELBO from the exact log p(x) of the same model; zero is a perfect "
        "posterior. Bars: 95 % t-interval over seeds."
    )
    return save(results, figure, "exact_likelihood"), reading
