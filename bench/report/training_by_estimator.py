"""Does the gradient's noise matter? Training with each estimator."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes

from bench.report.common import (
    Estimate,
    Results,
    Section,
    embolden,
    markdown,
    new_figure,
    over_seeds,
    save,
    write_table,
)
from bench.report.estimators import known, ordered, spoken, style

PLACE = 36
MEASUREMENT = "training_by_estimator"
MOST_NATS = 120
"""Below the best, what the figure still shows."""
BUDGETS = {"equal_steps": "equal steps", "equal_time": "equal wall time"}
REFERENCE = "pathwise"
COLUMNS = ["variant", "seed", "budget", "estimator", "S", "steps", "step", "metric", "value",
           "standard_error", "n", "unit", "reason"]  # fmt: skip

NOTES = (
    "Test ELBO after the last step, mean over seeds with 95 % t-intervals; *difference* is paired "
    "with pathwise (same seed, data order and test images). Each estimator has the least S it "
    "admits and its own full learning-rate schedule. Equal wall time gives an estimator the steps "
    "that a cost model from its decoder passes predicts to take as long as pathwise's; the seconds "
    "really taken stand beside, and depend on what else the machine did."
)


def sections(results: Results) -> list[Section]:
    """The section on training by estimator; [] where it was not measured."""
    rows = known(results, MEASUREMENT, COLUMNS)
    if rows.empty:
        return []
    table = summary(rows)
    takeaway, text = _takeaway(table), _table(table)
    reasons = _reasons(rows)
    notes = "\n\n".join(filter(None, [reasons, NOTES]))
    write_table(results, MEASUREMENT, rows[COLUMNS], takeaway, f"{text}\n\n{notes}")
    files = [f"{MEASUREMENT}.md", f"{MEASUREMENT}.csv"]
    return [
        Section("Does the gradient's noise matter?", takeaway, text, [_curves(results, rows)],
                files, notes)
    ]  # fmt: skip


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a budget and estimator, with `Estimate`s over seeds."""
    final = rows[rows.metric == "elbo"]
    seconds = rows[rows.metric == "training_seconds"]
    lines = []
    for budget in BUDGETS:
        mine = final[final.budget == budget]
        reference = mine[mine.estimator == REFERENCE].set_index("seed").value
        for name in ordered(final.estimator.unique()):
            chosen = mine[(mine.estimator == name) & mine.value.notna()]
            if chosen.empty:
                lines.append(dict(budget=budget, estimator=name, elbo=over_seeds([])))
                continue
            by_seed = chosen.set_index("seed").value
            took = seconds[(seconds.budget == budget) & (seconds.estimator == name)].value
            lines.append(dict(
                budget=budget, estimator=name, S=int(chosen.S.iloc[0]),
                steps=int(chosen.steps.iloc[0]), elbo=over_seeds(by_seed),
                difference=over_seeds(by_seed - reference), seconds=took.mean(),
            ))  # fmt: skip
    return pd.DataFrame(lines)


def _is_estimate(value: object) -> bool:
    return isinstance(value, Estimate) and math.isfinite(value.mean)


def _table(table: pd.DataFrame) -> str:
    lines = []
    for budget, label in BUDGETS.items():
        mine = table[table.budget == budget]
        texts = [line.elbo.text() for line in mine.itertuples()]
        texts = embolden(texts, [line.elbo.mean for line in mine.itertuples()])
        for text, (_, line) in zip(texts, mine.iterrows()):
            name = f"{label}: {spoken(line.estimator)}"
            if not _is_estimate(line.elbo):
                lines.append([name, *["–"] * 5])
                continue
            difference = "" if line.estimator == REFERENCE else line.difference.text()
            lines.append([name, f"{line.S:.0f}", f"{line.steps:.0f}", text, difference,
                          f"{line.seconds:.1f}"])  # fmt: skip
    header = ["input-dependent", "S", "steps", "test ELBO, nats", "difference to pathwise",
              "seconds"]  # fmt: skip
    return markdown(header, lines)


def _reasons(rows: pd.DataFrame) -> str:
    """Trainings left out, each with its reason."""
    left = rows[rows.reason.notna()].drop_duplicates(["budget", "estimator"])
    lines = [
        f"- {spoken(row.estimator)}, {BUDGETS.get(row.budget, 'any budget')}: {row.reason}"
        for row in left.itertuples()
    ]
    return "\n".join(["Left out:", "", *lines]) if lines else ""


def _takeaway(table: pd.DataFrame) -> str:
    """Best and worst estimator at each budget."""
    parts = []
    for budget, label in BUDGETS.items():
        mine = table[(table.budget == budget) & table.elbo.map(_is_estimate)]
        if len(mine) < 2:
            continue
        order = mine.elbo.map(lambda e: e.mean).sort_values(ascending=False)
        best, worst = mine.loc[order.index[0]], mine.loc[order.index[-1]]
        parts.append(
            f"at {label} {spoken(best.estimator)}{_against(best)} reaches the highest test ELBO, "
            f"{best.elbo.text()} nats, and {spoken(worst.estimator)}{_against(worst)} the lowest, "
            f"{worst.elbo.text()}"
        )
    text = "; ".join(parts)
    return (
        f"{text[0].upper()}{text[1:]}." if text else "Too few estimators were trained to compare."
    )


def _against(line: pd.Series) -> str:
    """How the best or worst compares with pathwise."""
    if line.estimator == REFERENCE or not _is_estimate(line.difference):
        return ""
    if line.difference.low <= 0 <= line.difference.high:
        return f" (not told from pathwise: {line.difference.text()})"
    side = "above" if line.difference.mean > 0 else "below"
    distance = replace(line.difference, mean=abs(line.difference.mean))
    return f" ({distance.text()} {side} pathwise)"


def _curves(results: Results, rows: pd.DataFrame) -> tuple[str, str]:
    """Validation ELBO against steps and against seconds, mean over seeds."""
    figure, panels = new_figure(13, 5.5, ncols=2, sharey=True)
    for axes, budget in zip(panels, BUDGETS):
        for name in ordered(rows.estimator.dropna().unique()):
            mine = rows[(rows.budget == budget) & (rows.estimator == name) & rows.step.notna()]
            curve = mine.pivot_table(index="step", columns="metric", values="value")
            if len(curve) and "valid_elbo" in curve:
                _curve(axes, curve, budget, name)
        axes.set(title=BUDGETS[budget])
    panels[0].set(xlabel="steps", ylabel="validation ELBO, nats")
    panels[1].set(xlabel="seconds of training", ylabel="")
    handles = {h.get_label(): h for axes in panels for h in axes.get_lines()}
    panels[1].legend(handles=handles.values(), loc="center left", bbox_to_anchor=(1, 0.5),
                     fontsize=11)  # fmt: skip
    _leave_out_the_start(panels[0], rows)
    return (
        save(results, figure, "learning_curves_by_estimator"),
        "Validation ELBO of the input-dependent variant while training with each estimator, mean "
        "over seeds. Left as many steps for all, right as much predicted wall time. Curves more "
        f"than {MOST_NATS} nats below the best lie under the axis.",
    )


def _curve(axes: Axes, curve: pd.DataFrame, budget: str, name: str) -> None:
    across = curve.index if budget == "equal_steps" else curve.elapsed
    axes.plot(across, curve.valid_elbo, **style(name))


def _leave_out_the_start(axes: Axes, rows: pd.DataFrame) -> None:
    """Limit the axis to where mean curves end: the first steps can be far below them."""
    curves = rows[rows.metric == "valid_elbo"]
    means = curves.groupby(["budget", "estimator", "step"]).value.mean()
    last = means.groupby(["budget", "estimator"]).last()
    if len(last):
        # a diverging estimator would flatten all others
        lowest = max(last.min(), last.max() - MOST_NATS)
        margin = 0.1 * (last.max() - lowest) + 1
        axes.set_ylim(lowest - 2 * margin, last.max() + margin)
