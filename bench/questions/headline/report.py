"""The headline: what each choice of posterior variance buys, in nats."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import takewhile

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.report.claims import BEATS, Claim, claims, sentence
from bench.report.figure import Figure, by_variant, named, variant_axis, variant_intervals
from bench.report.results import FAILURE, Results
from bench.report.rows import HYPERPARAMETER, hyperparameters, select
from bench.report.section import Section, captioned, item, prose
from bench.report.style import order, title
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
    takeaway, answer = _sentences(rows, found)
    best = select(rows, metric="best_epoch").value
    last = results.history.reindex(columns=["epoch"]).epoch.max()
    if rising := int((best == last).sum()):
        takeaway += f" After {last} epochs, {rising} of {len(best)} runs were still improving."
    tables, notes = [_table(results, rows, found)], prose(__file__, item=per)
    figures = [_elbo_figure(rows, per), _plane(rows, per), _learning_curves(results)]
    asked = "What the posterior's variance buys"
    return [Section(asked, takeaway, answer, tables, figures, notes), *failures]


def elbo_claims(results: Results) -> list[Claim]:
    """ELBO of every variant against the reference's, paired by seed; from simple to flexible."""
    rows = results.of("headline", "elbo_difference", reference=REFERENCE)
    return claims({title(v): select(rows, variant=v).value for v in results.variants(rows)})


def _sentences(rows: pd.DataFrame, found: list[Claim]) -> tuple[str, str]:
    """The reference against every other variant; in short, against the simpler ones and those that
    beat it. An undecided number has the table's direction, and says so."""
    name = title(REFERENCE)
    reference = interval(select(rows, metric="elbo", variant=REFERENCE).value)
    if not reference:
        return f"No `{name}` runs here, so no differences to it.", ""
    text = f"`{name}` reaches a test ELBO of {spoken(reference)} nats"
    if not found:
        return f"{text}.", f"{name} reaches {spoken(reference)} nats"
    found = [c if c.decided else replace(c, note=" in its favour") for c in found]
    simpler = [title(variant) for variant in takewhile(lambda v: v != REFERENCE, order())]
    telling = [c for c in found if c.subject in simpler or c.verdict == BEATS]
    short = sentence(telling or found[:1], "beaten by", "above", "undecided against")
    verdicts = sentence(found, "beaten by", "above", "undecided against")
    return f"{text}, {verdicts}.", f"{name}, ELBO in nats: {short}"


def _table(results: Results, rows: pd.DataFrame, found: list[Claim]) -> Table:
    """One line a variant; of the IW bound the largest K."""
    most = rows.K.max()
    rows = rows[(rows.K.isna() | rows.K.eq(most)).to_numpy(dtype=bool)]
    per = item(results)
    columns = {
        "elbo": Column("ELBO", best="max"),
        "elbo_difference": Column(f"difference to {title(REFERENCE)}", sign=True),
        "verdict": Column("verdict"),
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
        pairs = select(mine, metric="elbo_difference")
        # over the images of one training, the mean over seeds
        each = map(from_error, pairs.value, pairs.standard_error, pairs.n)
        entries[variant, "image_pairs"] = interval(pair.half_width for pair in each).mean
        entries[variant, "variant"] = _name(results, variant)
        entries[variant, "seeds"] = mine.seed.nunique()
    verdicts = {claim.subject: claim.verdict for claim in found}
    entries |= {(v, "verdict"): verdicts.get(title(v), "") for v in results.variants(rows)}
    caption = "Test ELBO and its parts, one line a variant, from simple to flexible"
    return Table.of_variants("elbo", columns, entries, caption)


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
    chart = alt.layer(variant_intervals(found, x, step=44), points)
    return captioned(__file__, "elbo", chart, found=spoken_each(found))


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
    chart = alt.layer(
        lines.encode(x=x, y=y, detail="total:N"),
        written.encode(x=x, y=y, text=alt.Text("ELBO:Q", format=",~r")),
        seeds.encode(x=x, y=y, color=colours, tooltip=shown),
    ).properties(width=460, height=360)
    rates = spoken_each(summary(wide.assign(value=wide.rate), "variant"))
    return captioned(__file__, "rate_distortion", chart, rates=rates)


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
    chart = alt.layer(
        base.mark_area(clip=True, opacity=0.2).encode(y=low, y2="max:Q"),
        base.mark_line(clip=True).encode(y=y, tooltip=["variant", *over.columns[1:]]),
    ).properties(width=460, height=320)
    last = over.groupby("variant", sort=False)["mean"].last()
    ends = ", ".join(f"{variant} {decimal(value)}" for variant, value in last.items())
    return captioned(__file__, "learning_curves", chart, ends=ends)
