"""From simple to flexible: what each posterior costs and what it buys."""

from __future__ import annotations

import math

import pandas as pd

from bench.report.common import (
    Estimate,
    Results,
    Section,
    colour,
    embolden,
    markdown,
    new_figure,
    number,
    over_seeds,
    save,
    title,
    write_table,
)

PLACE = 55
REFERENCE = "input_dependent"
GAPS = ("inference_gap", "approximation_gap", "amortization_gap")
NOTES = (
    "One line a variant, from simple to flexible. ELBO and IW bound: test set, means over seeds "
    "with 95 % t-intervals. Gaps: first seed, over {images} test images with 95 % intervals; "
    "log p(x) is an IW bound with samples of q and of q*. The approximation gap is "
    "log p(x) − L[q*], q* the best posterior of the variant's family for each image with the "
    "decoder fixed ({steps} gradient steps: a q* that is not the very best makes the first gap an "
    "upper and the second a lower bound); the amortization gap L[q*] − L[q] is what the encoder "
    "misses of it (Cremer et al. 2018). Free in q* is what depends on the image: a common scale "
    "and a flow's networks stay as trained. A step is one batch of {batch}, forward, backward and "
    "Adam, the shortest of {timed}; *relative* to a step of input-dependent timed in turn with it, "
    "whose own ratio shows the error of timing. Gradient variance: tr Cov of the estimator each "
    "variant trains with, at the best weights, S = 1."
)


def sections(results: Results) -> list[Section]:
    """The section on flexibility; [] where it was not measured."""
    table = flexibility_table(results)
    if table.empty:
        return []
    takeaway, text = takeaway_of(table), _markdown(table)
    notes = _notes(results)
    write_table(results, "flexibility", table, takeaway, f"{text}\n\n{notes}")
    figures = [f for f in (_cost_figure(results, table), _gap_figure(results, table)) if f]
    files = ["flexibility.csv", "flexibility.md"]
    return [Section("Simple to flexible", takeaway, text, figures, files, notes)]


def flexibility_table(results: Results) -> pd.DataFrame:
    """One line a variant; every quantity as value and 95 % half-width."""
    rows = results.measured("flexibility")
    lines = [
        _line(results, rows[rows.variant == variant])
        for variant in results.variants()
        if (rows.variant == variant).any()
    ]
    return pd.DataFrame(lines)


def _line(results: Results, mine: pd.DataFrame) -> dict[str, object]:
    variant = mine.variant.iloc[0]
    step = mine[mine.metric == "step_time"].iloc[0]
    found = {
        "parameters": over_seeds(_elbo_rows(results, variant, "parameters").value.head(1)),
        "step_time": Estimate(step.value, math.nan, 1),
        "step_time_ratio": over_seeds(mine[mine.metric == "step_time_ratio"].value),
        "elbo": over_seeds(_elbo_rows(results, variant, "elbo").value),
        "iw_bound": _largest_bound(_elbo_rows(results, variant, "iw_bound")),
        "elbo_difference": over_seeds(_elbo_rows(results, variant, "elbo_difference").value),
        "gradient_variance": _gradient_variance(results, variant, step.get("estimator")),
    }
    found |= {metric: _over_images(mine, metric) for metric in GAPS}
    line: dict[str, object] = {"variant": variant, "estimator": step.get("estimator")}
    for name, estimate in found.items():
        line[name], line[f"{name}_half_width"] = estimate.mean, estimate.half_width
    return line


def _elbo_rows(results: Results, variant: str, metric: str) -> pd.DataFrame:
    rows = results.measured("elbo", metric)
    return rows[rows.variant == variant]


def _largest_bound(rows: pd.DataFrame) -> Estimate:
    return over_seeds(rows[rows.K.eq(rows.K.max())].value if len(rows) else [])


def _over_images(rows: pd.DataFrame, metric: str) -> Estimate:
    """Mean over images and normal 95 % half-width."""
    chosen = rows[rows.metric == metric]
    if chosen.empty:
        return Estimate(math.nan, math.nan, 0)
    row = chosen.iloc[0]
    return Estimate(row.value, 1.96 * row.standard_error, int(row.n))


def _gradient_variance(results: Results, variant: str, estimator: str | None) -> Estimate:
    rows = results.measured("gradient_variance", "total_variance")
    if rows.empty or estimator is None:
        return Estimate(math.nan, math.nan, 0)
    chosen = rows[
        (rows.variant == variant) & (rows.stage == "best") & (rows.estimator == estimator)
    ]
    return _over_images(chosen[chosen.S == 1], "total_variance")


def takeaway_of(table: pd.DataFrame) -> str:
    """What flexibility bought over the reference, and which part of the gap it can reach."""
    lines = table.set_index("variant")
    parts = []
    if REFERENCE in lines.index:
        reference = lines.loc[REFERENCE]
        position = list(lines.index).index(REFERENCE)
        for variant in lines.index[position + 1 :]:
            parts.append(_bought(lines.loc[variant], variant))
        gap = reference.inference_gap
        if math.isfinite(gap) and gap > 0:
            share = reference.amortization_gap / gap
            parts.append(
                f"of {title(REFERENCE)}'s inference gap of {gap:.2f} nats, "
                f"{100 * share:.0f} % is the encoder's (amortization), which no richer family mends"
                if share > 0.5
                else f"of {title(REFERENCE)}'s inference gap of {gap:.2f} nats, "
                f"{100 * (1 - share):.0f} % is the family's (approximation)"
            )
    if not parts:
        gaps = table[table.inference_gap.notna()]
        if gaps.empty:
            return "No variant with a posterior was measured, so there is no inference gap."
        best = gaps.loc[gaps.inference_gap.idxmin()]
        parts = [f"{title(best.variant)} has the smallest gap: {best.inference_gap:.2f} nats"]
    text = "; ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."


def _bought(line: pd.Series, variant: str) -> str:
    """`flow gains 0.40 ± 0.10 nats of ELBO over input-dependent at 1.3 × the cost of a step`."""
    change = Estimate(line.elbo_difference, line.elbo_difference_half_width, 0)
    if not math.isfinite(change.mean):
        return ""
    cost = f"at {line.step_time_ratio:.2f} × the cost of a step"
    interval = change.text()
    if math.isnan(change.half_width):
        return f"{title(variant)} differs by {interval} nats of ELBO from {title(REFERENCE)} {cost}"
    if change.low <= 0 <= change.high:
        other = title(REFERENCE)
        return f"{title(variant)} cannot be told from {other} by its ELBO ({interval} nats) {cost}"
    verb = "gains" if change.mean > 0 else "loses"
    size = Estimate(abs(change.mean), change.half_width, 0).text()
    return f"{title(variant)} {verb} {size} nats of ELBO against {title(REFERENCE)} {cost}"


def _markdown(table: pd.DataFrame) -> str:
    def cells(name: str, digits: int, best: str = "") -> list[str]:
        estimates = [Estimate(*pair, 0) for pair in zip(table[name], table[f"{name}_half_width"])]
        text = [e.text(digits) for e in estimates]
        return embolden(text, list(table[name]), best) if best else text

    variance = [
        number(value, width) if math.isfinite(value) else "–"
        for value, width in zip(table.gradient_variance, table.gradient_variance_half_width)
    ]
    columns = {
        "variant": [title(v) for v in table.variant],
        "parameters": [f"{p:,.0f}" if math.isfinite(p) else "–" for p in table.parameters],
        "step, µs": [f"{t:,.0f}" for t in table.step_time],
        "relative": [f"{r:.2f}" for r in table.step_time_ratio],
        "ELBO": cells("elbo", 2, "max"),
        "IW bound": cells("iw_bound", 2, "max"),
        "inference gap": cells("inference_gap", 2, "min"),
        "approximation gap": cells("approximation_gap", 2),
        "amortization gap": cells("amortization_gap", 2),
        "gradient variance, nats²": variance,
    }
    return markdown(list(columns), zip(*columns.values()))


def _notes(results: Results) -> str:
    rows = results.measured("flexibility")
    images = rows[rows.metric == "inference_gap"]
    timed = rows[rows.metric == "step_time"].iloc[0]
    steps = f"{images.steps.iloc[0]:.0f}" if len(images) else "–"
    return NOTES.format(
        images=int(images.n.max()) if len(images) else 0,
        steps=steps, batch=int(timed.batch_size), timed=int(timed.n),
    )  # fmt: skip


def _cost_figure(results: Results, table: pd.DataFrame) -> tuple[str, str] | None:
    shown = table[table.elbo.notna()]
    if shown.empty:
        return None
    figure, axes = new_figure()
    for line in shown.itertuples():
        width = 0 if math.isnan(line.elbo_half_width) else line.elbo_half_width
        paint = colour(line.variant)
        axes.errorbar(line.step_time_ratio, line.elbo, width, fmt="o", ms=9, capsize=4,
                      color=paint, label=title(line.variant))  # fmt: skip
        axes.plot(line.step_time_ratio, line.iw_bound, "^", ms=9, mfc="none", mew=2, color=paint)
        axes.plot([line.step_time_ratio] * 2, [line.elbo, line.iw_bound], lw=1, color=paint)
    axes.plot([], [], "ko", label="ELBO")
    axes.plot([], [], "k^", mfc="none", mew=2, label="IW bound, largest K")
    axes.set_xlabel(f"time of a training step, relative to {title(REFERENCE)}")
    axes.set_ylabel("nats per test image")
    figure.legend(loc="outside right upper")
    reading = (
        "Up is better, right is dearer; the line between the two markers is the inference gap. "
        "Bars: 95 % t-interval of the ELBO over seeds."
    )
    return save(results, figure, "flexibility"), reading


def _gap_figure(results: Results, table: pd.DataFrame) -> tuple[str, str] | None:
    shown = table[table.inference_gap.notna()]
    if shown.empty:
        return None
    figure, axes = new_figure(8, 0.7 * len(shown) + 1.8)
    for place, line in enumerate(shown.itertuples()):
        paint = colour(line.variant)
        axes.barh(place, line.approximation_gap, color=paint)
        axes.barh(place, line.amortization_gap, left=line.approximation_gap, color=paint,
                  alpha=0.35, xerr=line.inference_gap_half_width, capsize=4)  # fmt: skip
    axes.barh(0, 0, color="0.3", label="approximation: the family")
    axes.barh(0, 0, color="0.3", alpha=0.35, label="amortization: the encoder")
    axes.set_yticks(range(len(shown)), [title(v) for v in shown.variant])
    axes.invert_yaxis()
    axes.set_xlabel("inference gap log p(x) − ELBO, nats per test image")
    figure.legend(loc="outside upper center", ncols=2)
    reading = (
        "The full colour is what the best posterior of the family leaves, the pale one what the "
        "encoder loses on top of it. Bars: 95 % interval over images."
    )
    return save(results, figure, "inference_gap"), reading
