"""How a hyperparameter such as the fixed variance's s was chosen: the whole sweep."""

from __future__ import annotations

import pandas as pd

from bench.report.common import (
    Results,
    Section,
    colour,
    decimal,
    markdown,
    new_figure,
    over_seeds,
    save,
    title,
    write_table,
)

PLACE = 12


def sections(results: Results) -> list[Section]:
    """One section a variant that had hyperparameters to choose."""
    rows = results.measured("sweep", "valid_elbo")
    return [
        _section(results, variant, rows[rows.variant == variant])
        for variant in results.variants()
        if variant in set(rows.variant)
    ]


def _section(results: Results, variant: str, rows: pd.DataFrame) -> Section:
    names = [c for c in rows.columns[rows.columns.get_loc("unit") + 1 :] if rows[c].notna().any()]
    names = [name for name in names if name != "chosen"]
    lines = []
    for candidate, group in rows.groupby(names):
        estimate = over_seeds(group.value)
        lines.append(dict(zip(names, candidate)) | {
            "valid_elbo": estimate.mean, "half_width": estimate.half_width, "seeds": estimate.n,
            "lowest": group.value.min(), "highest": group.value.max(),
            "chosen": bool(group.chosen.iloc[0]),
        })  # fmt: skip
    table = pd.DataFrame(lines)
    best, worst = table[table.chosen].iloc[0], table.loc[table.valid_elbo.idxmin()]
    at_edge = any(best[n] in (table[n].min(), table[n].max()) for n in names)
    takeaway = (
        f"`{title(variant)}`: {_text(best, names)} has the highest validation ELBO "
        f"({decimal(best.valid_elbo)} nats); {_text(worst, names)} would cost "
        f"{best.valid_elbo - worst.valid_elbo:.1f} nats"
        + ("; the best lies at the edge of the grid." if at_edge else ".")
    )
    text = markdown(
        [*names, "validation ELBO", "lowest … highest seed", "loss against the best"],
        [
            [
                *(f"{line[n]:g}" for n in names),
                f"**{decimal(line.valid_elbo)}**" if line.chosen else decimal(line.valid_elbo),
                f"{decimal(line.lowest)} … {decimal(line.highest)}",
                decimal(best.valid_elbo - line.valid_elbo),
            ]
            for _, line in table.iterrows()
        ],
    )
    name = f"{variant}_sweep"
    write_table(results, name, table, takeaway, text)
    figures = [_figure(results, variant, names[0], rows, table)] if len(names) == 1 else []
    return Section(f"How {title(variant)}'s {' and '.join(names)} was chosen", takeaway, text,
                   figures, [f"{name}.csv", f"{name}.md"])  # fmt: skip


def _text(line: pd.Series, names: list[str]) -> str:
    return ", ".join(f"{name} {line[name]:g}" for name in names)


def _figure(
    results: Results, variant: str, name: str, rows: pd.DataFrame, table: pd.DataFrame
) -> tuple[str, str]:
    figure, axes = new_figure(7.5, 4.5)
    axes.plot(table[name], -table.valid_elbo, color=colour(variant), lw=2)
    axes.scatter(rows[name], -rows.value, color=colour(variant), s=40, label="a seed")
    best = table[table.chosen].iloc[0]
    axes.scatter([best[name]], [-best.valid_elbo], s=220, facecolors="none", edgecolors="black",
                 linewidths=2, label="chosen")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(table[name], [f"{v:g}" for v in table[name]])
    axes.minorticks_off()
    axes.set_xlabel(f"posterior {name} s (same for all latents and images)")
    axes.set_ylabel("−validation ELBO (nats per image)")
    axes.legend()
    how = "Lower is better; the line joins the means over the sweep's seeds. The circle marks the value chosen on validation data and used in every table."  # noqa: E501
    return save(results, figure, f"{variant}_sweep"), how
