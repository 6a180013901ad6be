"""The headline: what each choice of posterior variance buys, in nats."""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.report.claims import BEATS, Claim, claims, listing, sentence
from bench.report.figure import Figure, by_variant, named, variant_axis, variant_intervals
from bench.report.results import FAILURE, Results
from bench.report.rows import HYPERPARAMETER, hyperparameters, select
from bench.report.section import Section, item, prose
from bench.report.style import title
from bench.report.table import Column, Table, decimal, escaped, spoken, spoken_each
from bench.statistics import from_error, interval, summary


def sections(results: Results) -> list[Section]:
    """The headline, where anything was evaluated, and what failed, where anything did."""
    rows, failed, per = results.of("headline"), results.of(FAILURE), item(results)
    reasons = "\n".join(f"- {escaped(str(reason))}" for reason in failed.reason)
    failures = [Section("What failed", reasons)] if reasons else []
    if rows.empty:
        return failures
    found = elbo_claims(results)
    headline = Section(
        "What the posterior's variance buys",
        f"{_takeaway(rows, found)}{_still_rising(results, rows)}",
        _answer(rows, found),
        [_table(results, rows)],
        [_elbo_figure(rows, per), _plane(rows, per), _learning_curves(results)],
        prose(__file__, item=per),
    )
    return [headline, *failures]


def elbo_claims(results: Results) -> list[Claim]:
    """ELBO of every variant against the reference's, paired by seed; from simple to flexible."""
    rows = results.of("headline", "elbo_difference", reference=REFERENCE)
    return claims({title(v): select(rows, variant=v).value for v in results.variants(rows)})


def _takeaway(rows: pd.DataFrame, found: list[Claim]) -> str:
    reference = interval(select(rows, metric="elbo", variant=REFERENCE).value)
    if not reference:
        return f"No `{title(REFERENCE)}` runs here, so no differences to it."
    text = f"`{title(REFERENCE)}` reaches a test ELBO of {spoken(reference)} nats"
    verdicts = sentence(found, "beaten by", "above", "undecided against")
    return f"{text}, {verdicts}." if verdicts else f"{text}."


def _still_rising(results: Results, rows: pd.DataFrame) -> str:
    """How many trainings were best in their last epoch; "" for none."""
    best = select(rows, metric="best_epoch").value
    last = results.history.reindex(columns=["epoch"]).epoch.max()
    rising = int((best == last).sum())
    text = f" After {last} epochs, {rising} of {len(best)} runs were still improving."
    return text if rising else ""


def _answer(rows: pd.DataFrame, found: list[Claim]) -> str:
    """The reference against the simplest variant, and every other one that beats it."""
    if not found:
        elbo = interval(select(rows, metric="elbo", variant=REFERENCE).value)
        return f"{title(REFERENCE)} reaches {spoken(elbo)} nats" if elbo else ""
    simplest, *others = found
    verb = "trails" if simplest.verdict == BEATS else "beats"
    text = f"{title(REFERENCE)} {verb} {simplest.subject} by {spoken(simplest.size)} nats"
    if not simplest.decided:
        size = spoken(simplest.difference, sign=True)
        text = f"{simplest.subject} undecided against {title(REFERENCE)} ({size} nats)"
    better = [f"{c.subject} ({spoken(c.size)})" for c in others if c.verdict == BEATS]
    verb = "beats" if len(better) == 1 else "beat"
    return f"{text}; {listing(better)} {verb} {title(REFERENCE)}" if better else text


def _table(results: Results, rows: pd.DataFrame) -> Table:
    """One line a variant; of the IW bound the largest K."""
    most = rows.K.max()
    rows = rows[(rows.K.isna() | rows.K.eq(most)).to_numpy(dtype=bool)]
    per = item(results)
    columns = {
        "elbo": Column("ELBO", best="max"),
        "elbo_difference": Column(f"difference to {title(REFERENCE)}", sign=True),
        "image_pairs": Column(f"± of {per} pairs", 3),
        "iw_bound": Column("L_K" if pd.isna(most) else f"L_{most}", best="max"),
        "effective_sample_size": Column("ESS", 0, interval=False),
        "distortion": Column("distortion"),
        "rate": Column("rate"),
        "active_units": Column("active units", 1, interval=False),
        "bits_per_dim": Column("bits/pixel", 4),
        "elbo_train_minus_test": Column("train − test"),
        "best_epoch": Column("best epoch", 0, interval=False),
        "training_seconds": Column("training s", 0, interval=False),
        "seeds": Column("seeds", 0),
    }
    if per != "image":
        del columns["bits_per_dim"]  # of real-valued x there are none
    entries = summary(rows, ["variant", "metric"])
    for variant, mine in rows.groupby("variant"):
        entries[variant, "variant"] = _name(results, variant)
        entries[variant, "image_pairs"] = _image_pairs(select(mine, metric="elbo_difference"))
        entries[variant, "seeds"] = mine.seed.nunique()
    caption = "Test ELBO and its parts, one line a variant, from simple to flexible"
    return Table.of_variants("elbo", columns, entries, caption)


def _image_pairs(rows: pd.DataFrame) -> float:
    """Mean over seeds of the half-width of a difference over the images of one training."""
    pairs = zip(rows.value, rows.standard_error, rows.n, strict=True)
    return interval(from_error(*pair).half_width for pair in pairs).mean


def _name(results: Results, variant: str) -> str:
    """The variant with its chosen hyperparameters, e.g. `fixed-variance (scale 0.3)`."""
    chosen = results.of("tuning", variant=variant, chosen=True)
    pairs = [f"{n} {chosen[HYPERPARAMETER + n].iloc[0]:g}" for n in hyperparameters(chosen)]
    return f"{title(variant)} ({', '.join(pairs)})" if pairs else title(variant)


# --- figures ---------------------------------------------------------------------------------


def _elbo_figure(rows: pd.DataFrame, per: str) -> Figure | None:
    rows = select(rows, metric="elbo").dropna(subset="value")
    if rows.empty:
        return None
    found = summary(rows, "variant")
    axis, colours = variant_axis(found), by_variant(found).legend(None)
    seeds = named(rows[["variant", "seed"]].assign(ELBO=rows.value))
    points = alt.Chart(seeds).mark_point(size=28, opacity=0.7, yOffset=-11)
    points = points.encode(x="ELBO:Q", y=axis, color=colours, tooltip=["variant", "seed", "ELBO"])
    x = ("ELBO", f"test ELBO (nats per {per}; right is better)")
    return Figure(
        "elbo",
        "Test ELBO",
        "Filled points: mean over seeds with its 95 % interval; open points above: the seeds.",
        f"A line a variant, its mean test ELBO and its seeds: {spoken_each(found)}.",
        alt.layer(variant_intervals(found, x, step=44), points),
    )


def _plane(rows: pd.DataFrame, per: str) -> Figure | None:
    wide = rows.pivot_table(index=["variant", "seed"], columns="metric", values="value")
    wide = wide.reindex(columns=["distortion", "rate"]).dropna()
    if wide.empty:
        return None
    points = named(wide.reset_index())
    (left, right), (bottom, top) = (_frame(points[name]) for name in ("rate", "distortion"))
    span = right - left + top - bottom
    power = 10.0 ** math.floor(math.log10(span))
    gap = next(g * power for g in (0.1, 0.2, 0.5, 1) if span < 12 * g * power)
    totals = np.arange(math.ceil((left + bottom) / gap), (right + top) / gap) * gap
    ends = pd.DataFrame({"total": totals}).merge(pd.DataFrame({"rate": [left, right]}), "cross")
    ends = ends.assign(distortion=ends.total - ends.rate)
    starts = np.maximum(left, totals - top)
    labels = pd.DataFrame({"rate": starts, "distortion": totals - starts, "ELBO": -totals})
    labels = labels[starts < 0.9 * right + 0.1 * left]  # the last would be cut
    x = alt.X("rate:Q", title=f"rate KL(q || p) (nats per {per})").scale(domain=[left, right])
    y = alt.Y("distortion:Q", title=f"distortion −E log p(x|z) (nats per {per})")
    y = y.scale(domain=[bottom, top])
    lines = alt.Chart(ends).mark_line(clip=True, color="#888", opacity=0.6, strokeWidth=1)
    text = {"align": "left", "baseline": "top", "dx": 12, "dy": 3, "color": "#777"}
    written = alt.Chart(labels).mark_text(**text, fontSize=12)
    seeds = alt.Chart(points).mark_point(filled=True, size=70, opacity=0.8)
    colours, shown = by_variant(wide.index.unique("variant")), ["variant", "seed", *wide]
    return Figure(
        "rate_distortion",
        "Rate and distortion",
        "A point is a seed; grey diagonals join points of equal ELBO, written beside them (lower "
        "left is better). Along a diagonal a model trades code length against reconstruction.",
        "A point a seed, in clusters by variant. Mean rates: "
        f"{spoken_each(summary(wide.assign(value=wide.rate), 'variant'))}.",
        alt.layer(
            lines.encode(x=x, y=y, detail="total:N"),
            written.encode(x=x, y=y, text=alt.Text("ELBO:Q", format=",~r")),
            seeds.encode(x=x, y=y, color=colours, tooltip=shown),
        ).properties(width=460, height=360),
    )


def _frame(values: pd.Series) -> list[float]:
    margin = 0.08 * np.ptp(values) or 0.5
    return [values.min() - margin, values.max() + margin]


def _learning_curves(results: Results) -> Figure | None:
    history = results.history.reindex(columns=["variant", "epoch", "valid_elbo"]).dropna()
    if history.empty:
        return None
    over = history.groupby(["variant", "epoch"]).valid_elbo.agg(["mean", "min", "max"])
    over = named(over.reset_index().round(3))
    top, bottom = history.valid_elbo.max(), history.valid_elbo.quantile(0.2)
    scale = alt.Scale(domain=[bottom, top + (0.05 * (top - bottom) or 1)])
    y, low = (
        alt.Y(f"{column}:Q", title=f"validation ELBO (nats per {item(results)})", scale=scale)
        for column in ("mean", "min")
    )
    legend = alt.Legend(title=None, symbolType="stroke", symbolOpacity=1)
    base = alt.Chart(over).encode(
        x=alt.X("epoch:Q", title="epoch").scale(nice=False),
        color=by_variant(history.variant).legend(legend),
    )
    last = over.groupby("variant", sort=False)["mean"].last()
    return Figure(
        "learning_curves",
        "Learning curves",
        "Mean over seeds, band from the lowest to the highest seed; the first epochs lie below the "
        "frame. The learning rate starts to fall at half time.",
        "A line a variant, steep at first, then nearly flat. At the end: "
        + ", ".join(f"{v} {decimal(value)}" for v, value in last.items()),
        alt.layer(
            base.mark_area(clip=True, opacity=0.2).encode(y=low, y2="max:Q"),
            base.mark_line(clip=True).encode(y=y, tooltip=["variant", *over.columns[1:]]),
        ).properties(width=460, height=320),
    )
