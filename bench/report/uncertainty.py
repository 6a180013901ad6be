"""Does noise raise the encoder's uncertainty? Verdicts by corruption, and whose change it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from bench.corruptions import LEVELS
from bench.report.common import (
    Estimate,
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

PLACE = 50
MEASUREMENT = "uncertainty"
REFERENCE = "input_dependent"
"""The variant whose intervals the takeaway gives; the table has the others'."""
KINDS = {
    "rises": "entropy rises with",
    "falls": "falls with",
    "turns": "turns (falls, then rises, or the reverse) with",
    "undecided": "undecided with",
    "flat": "flat with",
}
TURN = 0.1
"""Nats; a mean entropy nearer to the clean one is on neither side of it."""
HELD = {"entropy": "entropy", "log_scale": "mean log σ", "rate": "rate", "iw_bound": "IW bound"}


@dataclass(frozen=True)
class Model:
    """A variant and what it was trained on."""

    variant: str
    trained_on: str

    @property
    def label(self) -> str:
        noise = "" if self.trained_on == "clean" else f" + {words(self.trained_on)}"
        return title(self.variant) + noise

    @property
    def line(self) -> dict:
        """How it is drawn: the variant's colour, dashed where noise was in the training data."""
        dashed = self.trained_on != "clean"
        return {"color": colour(self.variant), "ls": "--" if dashed else "-", "lw": 2}

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows.variant == self.variant) & (rows.trained_on == self.trained_on)]


def words(name: str) -> str:
    """`bit_flips` → `bit flips`."""
    return name.replace("_", " ")


def sections(results: Results) -> list[Section]:
    """One section; [] where uncertainty was not measured."""
    rows = results.measured(MEASUREMENT)
    if rows.empty:
        return []
    models = [
        Model(variant, trained_on)
        for variant in results.variants()
        for trained_on in sorted(
            set(rows[rows.variant == variant].trained_on), key=lambda t: (t != "clean", t)
        )
    ]
    corruptions = [c for c in LEVELS if c in set(rows.corruption)]
    table = verdicts(rows, models, corruptions)
    takeaway, text = takeaway_of(table, models), _markdown(table, models, corruptions)
    whose = whose_change(rows, models, corruptions)
    notes = "\n\n".join([NOTES, *_other_images(rows), *_whose_text(whose, models, corruptions)])
    write_table(results, "uncertainty", table, takeaway, f"{text}\n\n{notes}")
    whose.to_csv(results.folder / "uncertainty_refitted.csv", index=False)
    _write_levels(results, rows, models, takeaway)
    figures = [
        _levels_figure(results, rows, models, corruptions, "entropy", "uncertainty"),
        _levels_figure(results, rows, models, corruptions, "log_scale", "sigma_by_level"),
        *_refitted_figure(results, rows, models, corruptions),
    ]
    files = ["uncertainty.csv", "uncertainty.md", "uncertainty_refitted.csv",
             "uncertainty_levels.csv", "uncertainty_levels.md"]  # fmt: skip
    name = "Does noise raise the encoder's uncertainty?"
    return [Section(name, takeaway, text, figures, files, notes)]


NOTES = (
    "Each cell: Spearman's ρ of posterior entropy with the level of corruption, the mean over test "
    "images [95 % bootstrap interval over images, averaged over seeds], and the share of images "
    "whose entropy is higher at the strongest level than clean. **Bold**: the entropy rises, the "
    "interval lying above 0 and the share above 50 % for every seed, and at no level do all seeds' "
    f"mean entropies lie {TURN} nats or more below the clean ones. It *turns* where these "
    "disagree: down and up again, or the reverse. *flat*: no image's entropy moves at any level."
)


# --- verdicts ------------------------------------------------------------------------------


def verdicts(rows: pd.DataFrame, models: list[Model], corruptions: list[str]) -> pd.DataFrame:
    """One line a model and corruption: ρ, its interval, shares, and the computed verdict."""
    lines = []
    for model in models:
        for corruption in corruptions:
            mine = model.of(rows[rows.corruption == corruption])
            by_metric = {m: group.value for m, group in mine.groupby("metric")}
            low, high = (by_metric[f"entropy_spearman_{end}"] for end in ("low", "high"))
            flat = by_metric["entropy_flat"].min() == 1
            lines.append({
                "variant": model.variant, "trained_on": model.trained_on,
                "corruption": corruption,
                "verdict": verdict(
                    low, high, by_metric["entropy_rises"], changes(model.of(rows), corruption), flat
                ),
                "spearman": by_metric["entropy_spearman"].mean(), "low": low.mean(),
                "high": high.mean(), "rises": by_metric["entropy_rises"].mean(),
                "change": by_metric["entropy_change"].mean(),
                "largest_change": by_metric["entropy_largest_change"].max(), "seeds": len(low),
            })  # fmt: skip
    return pd.DataFrame(lines)


def changes(rows: pd.DataFrame, corruption: str, metric: str = "entropy") -> pd.DataFrame:
    """Mean change of a model's metric from clean images: a line a seed, a column a level."""
    rows = rows[rows.metric == metric]
    clean = rows[rows.corruption == "none"].groupby("seed").value.first()
    here = rows[rows.corruption == corruption]
    return here.pivot_table(index="seed", columns="level", values="value").sub(clean, axis=0)


def verdict(
    low: pd.Series, high: pd.Series, rises: pd.Series, changes: pd.DataFrame, flat: bool
) -> str:
    """What the entropy does, where the seeds agree.

    `flat`; `rises` or `falls` where each seed's interval and the majority of its images, clean
    against strongest, say so, and its mean entropy lies at no level on the other side of the
    clean one; `turns` where these contradict one another; else `undecided`.
    """
    if flat:
        return "flat"
    if low.min() > 0:
        dips = (changes <= -TURN).all().any()
        return "rises" if rises.min() > 0.5 and not dips else "turns"
    if high.max() < 0:
        climbs = (changes >= TURN).all().any()
        return "falls" if rises.max() < 0.5 and not climbs else "turns"
    return "undecided"


def takeaway_of(table: pd.DataFrame, models: list[Model]) -> str:
    """Yes, no or sometimes, for every model, with its intervals."""
    sentences, flat = [], []
    for model in models:
        mine = model.of(table)
        if (mine.verdict == "flat").all():
            flat.append(model)
            continue
        counts = mine.verdict.value_counts()
        rising = int(counts.get("rises", 0))
        answer = {0: "no", len(mine): "yes"}.get(rising, "sometimes")
        parts = [
            f"{text} {_listed(mine[mine.verdict == kind], intervals=model.variant == REFERENCE)}"
            for kind, text in KINDS.items()
            if kind in counts
        ]
        sentences.append(f"`{model.label}`: **{answer}**; {'; '.join(parts)}.")
    if flat:
        names = " and ".join(f"`{m.label}`" for m in flat)
        largest = max(m.of(table).largest_change.max() for m in flat)
        sentences.append(
            f"{names}: **flat** by construction, no image's entropy moves by more than "
            f"{largest:.1g} nats."
        )
    return " ".join(sentences)


def _listed(lines: pd.DataFrame, intervals: bool) -> str:
    if not intervals:
        return ", ".join(map(words, lines.corruption))
    return ", ".join(
        f"{words(line.corruption)} (ρ {decimal(line.spearman)} "
        f"[{decimal(line.low)}, {decimal(line.high)}])"
        for line in lines.itertuples()
    )


def _markdown(table: pd.DataFrame, models: list[Model], corruptions: list[str]) -> str:
    def cell(line: pd.Series) -> str:
        if line.verdict == "flat":
            return "*flat*"
        rho = f"{decimal(line.spearman)} [{decimal(line.low)}, {decimal(line.high)}]"
        return (f"**{rho}**" if line.verdict == "rises" else rho) + f" · {line.rises:.0%}"

    lines = []
    for model in models:
        mine = model.of(table).set_index("corruption")
        lines.append([model.label, *(cell(mine.loc[c]) for c in corruptions)])
    return markdown(["posterior", *map(words, corruptions)], lines)


def _other_images(rows: pd.DataFrame) -> list[str]:
    """What the other images were; a note, or none."""
    sources = rows.source.dropna().unique() if "source" in rows else []
    return [f"Other images: {', '.join(map(words, sources))}."] if len(sources) else []


# --- the encoder beside the locally optimised posterior --------------------------------------


def whose_change(rows: pd.DataFrame, models: list[Model], corruptions: list[str]) -> pd.DataFrame:
    """One line a model, corruption and level: entropy changes of the encoder and after refitting.

    Half-widths are over images, which the seeds share: they do not shrink with more seeds.
    """
    lines = []
    changes = ("encoder", "fitted", "fitted_minus_encoder")
    fitted = rows[rows.metric.isin([f"{name}_entropy_change" for name in changes])]
    for model in models:
        for corruption in corruptions:
            mine = model.of(fitted[fitted.corruption == corruption])
            for level, group in mine.groupby("level"):
                found = {
                    name: _over_images(group[group.metric == f"{name}_entropy_change"])
                    for name in changes
                }
                line = {"variant": model.variant, "trained_on": model.trained_on,
                        "corruption": corruption, "level": level,
                        "whose": whose(found["encoder"], found["fitted"])}  # fmt: skip
                for name, estimate in found.items():
                    line[name], line[f"{name}_half_width"] = estimate.mean, estimate.half_width
                lines.append(line | {"images": int(group.n.max()), "seeds": group.seed.nunique()})
    return pd.DataFrame(lines)


def _over_images(rows: pd.DataFrame) -> Estimate:
    error = math.sqrt((rows.standard_error**2).mean())
    return Estimate(rows.value.mean(), stats.t.ppf(0.975, rows.n.min() - 1) * error, len(rows))


def whose(encoder: Estimate, fitted: Estimate) -> str:
    """Who moves the entropy, by 95 % intervals.

    `model` where the best posterior moves as the encoder's does, `encoder` where it does not,
    `missed` where it alone moves, `none` where neither does.
    """
    signs = [int(e.low > 0) - int(e.high < 0) for e in (encoder, fitted)]
    if signs[0] == signs[1]:
        return "model" if signs[0] else "none"
    return "encoder" if signs[0] else "missed"


def _whose_text(table: pd.DataFrame, models: list[Model], corruptions: list[str]) -> list[str]:
    """The takeaway and the matrix of changes; none where nothing was refitted."""
    if table.empty:
        return []
    counts = table.whose.value_counts()
    parts = [
        f"{counts[kind]} {text}"
        for kind, text in {
            "model": "are the model's (refitting moves the entropy the same way)",
            "encoder": "the encoder's alone (refitting leaves it or moves it the other way)",
            "missed": "are missed by the encoder (only refitting moves it)",
            "none": "are within the interval of no change",
        }.items()
        if kind in counts
    ]
    takeaway = (
        f"**The model's change or the encoder's?** Of {len(table)} changes of entropy from clean "
        f"to corrupted images, {', '.join(parts)}."
    )
    lines = []
    for model in models:
        mine = model.of(table)
        strength = mine.groupby("corruption")["level"].rank().astype(int)
        for place in sorted(strength.unique()):
            at = mine[strength == place].set_index("corruption")
            name = f"{model.label}, {'strongest' if place == strength.max() else 'middle'} level"
            lines.append([name, *(_whose_cell(at, c) for c in corruptions)])
    note = (
        f"Each cell: change of entropy in nats from clean to corrupted images, the encoder's / "
        f"that of the locally optimised posterior of the same family, decoder and images "
        f"({table.images.max()} a seed, {table.seeds.max()} seed(s)); then whose change it is, by "
        "95 % intervals over images, which are in `uncertainty_refitted.csv`."
    )
    return [takeaway, markdown(["posterior", *map(words, corruptions)], lines), note]


def _whose_cell(at: pd.DataFrame, corruption: str) -> str:
    if corruption not in at.index:
        return "–"
    line = at.loc[corruption]
    return f"{decimal(line.encoder, 1, '+')} / {decimal(line.fitted, 1, '+')} {line.whose}"


# --- all levels ------------------------------------------------------------------------------


def _write_levels(results: Results, rows: pd.DataFrame, models: list[Model], takeaway: str) -> None:
    """Every metric at every level, mean and half-width over seeds."""
    lines, cells = [], []
    for model in models:
        mine = model.of(rows[rows.metric.isin(HELD)])
        for (corruption, level), group in mine.groupby(["corruption", "level"], sort=False):
            line = {"variant": model.variant, "trained_on": model.trained_on,
                    "corruption": corruption, "level": level}  # fmt: skip
            estimates = [over_seeds(group[group.metric == metric].value) for metric in HELD]
            for metric, estimate in zip(HELD, estimates):
                line[metric], line[f"{metric}_half_width"] = estimate.mean, estimate.half_width
            lines.append(line)
            cells.append([model.label, words(corruption), f"{level:g}",
                          *(decimal(e.mean) if e.n else "–" for e in estimates)])  # fmt: skip
    note = "Means over seeds, nats per image. A grey image has no likelihood, hence no bound."
    text = markdown(["posterior", "corruption", "level", *HELD.values()], cells)
    write_table(results, "uncertainty_levels", pd.DataFrame(lines), takeaway, f"{text}\n\n{note}")


AXES = {"entropy": "entropy (nats)", "log_scale": "mean log σ"}


def _levels_figure(
    results: Results,
    rows: pd.DataFrame,
    models: list[Model],
    corruptions: list[str],
    metric: str,
    name: str,
) -> tuple[str, str]:
    """A panel a corruption: the metric's change from clean images against the level."""
    figure, axes = _panels(corruptions, f"change of {AXES[metric]}")
    for corruption, panel in zip(corruptions, axes.flat):
        for place, model in enumerate(models):
            means = changes(model.of(rows), corruption, metric).mean()
            width = {"lw": max(2, 5 - 2 * place)}  # flat lines lie on one another
            panel.plot([0, *means.index], [0, *means], marker="o", ms=4, label=model.label,
                       **model.line | width)  # fmt: skip
    _legend(figure, axes)
    what = "posterior entropy" if metric == "entropy" else "mean log σ over the active units"
    how = (
        f"How the {what} of corrupted test images differs from that of the clean ones; above 0 the "
        "encoder is less sure. Dashed: trained with noisy copies of the training images."
    )
    return save(results, figure, name), how


def _refitted_figure(
    results: Results, rows: pd.DataFrame, models: list[Model], corruptions: list[str]
) -> list[tuple[str, str]]:
    table = whose_change(rows, models, corruptions)
    if table.empty:
        return []
    figure, axes = _panels(corruptions, "change of entropy (nats)")
    shift = {model: place for place, model in enumerate(models)}
    for corruption, panel in zip(corruptions, axes.flat):
        for model in models:
            mine = model.of(table[table.corruption == corruption])
            if mine.empty:
                continue
            levels = [0.0, *(mine.level + 0.008 * shift[model] * table.level.max())]
            panel.plot(levels, [0.0, *mine.encoder], marker="o", ms=5, label=model.label,
                       **model.line)  # fmt: skip
            marker = "D" if model.trained_on == "clean" else "s"
            panel.errorbar(levels[1:], mine.fitted, mine.fitted_half_width, fmt=marker, ms=7,
                           mfc="none", color=colour(model.variant), capsize=3)  # fmt: skip
    _legend(figure, axes)
    how = (
        "Lines: the encoder's entropy; diamonds (squares where trained with noise) with 95 % "
        "intervals: the best posterior of the same family for the same images. Where they part, "
        "the change is the encoder's doing."
    )
    return [(save(results, figure, "uncertainty_refitted"), how)]


def _panels(corruptions: list[str], label: str):
    columns = math.ceil(len(corruptions) / 2)
    figure, axes = new_figure(10.5, 7.2, nrows=2, ncols=columns, squeeze=False)
    for place, panel in enumerate(axes.flat):
        if place >= len(corruptions):
            panel.set_visible(False)
            continue
        panel.axhline(0, color="0.6", lw=1)
        panel.set_title(words(corruptions[place]), fontsize=13)
        panel.set_xlabel("level")
    for panel in axes[:, 0]:
        panel.set_ylabel(label)
    return figure, axes


def _legend(figure, axes) -> None:
    """One legend for all panels, below them."""
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=12)
