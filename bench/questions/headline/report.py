"""The headline: what each choice of posterior variance buys, in nats."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE, Run
from bench.questions.exact_likelihood import TOLERANCE, tolerance_of
from bench.questions.flexibility.compared import changes
from bench.report.claims import Claim, claims, sentence
from bench.report.figure import Figure, by_variant, named, variant_axis, variant_intervals
from bench.report.provenance import schedule_of
from bench.report.results import FAILURE, Results
from bench.report.rows import HYPERPARAMETER, hyperparameters, select
from bench.report.section import Section, captioned, item, points, prose
from bench.report.style import ordered, title
from bench.report.table import Column, Table, decimal, escaped, spoken, spoken_each
from bench.statistics import Estimate, from_error, interval, paired_difference, summary
from vaes.base import INITIAL_LOG_SCALE

LATE = 0.02
"""Of the epochs: a run that is best within the last of them may not have ended improving."""
BITS = (
    " *Bits/pixel* is −ELBO / (D ln 2), what a lossless code of the zeros and ones needs at most."
)
DENSITY = (
    " *Bits/pixel* is −ELBO / (D ln 2): of a density it is no code's length, and may be negative."
)
KNOWN = (
    " log p(x) is known exactly (a linear decoder with Gaussian noise): variants within "
    f"{TOLERANCE} nats, interval and all, count as equal, each by itself and outside Holm."
)


def sections(results: Results) -> list[Section]:
    """The headline, where anything was evaluated, and what failed, where anything did."""
    rows, failed, per = results.of("headline"), results.of(FAILURE), item(results)
    reasons = "\n".join(f"- {escaped(str(reason))}" for reason in failed.reason)
    failures = [Section("What failed", reasons)] if reasons else []
    if rows.empty:
        return failures
    found, bounds = elbo_claims(results), bound_claims(results)
    likelihoods = likelihood_claims(results)
    exact = not results.of("exact_likelihood", "exact_log_likelihood").empty
    said, answer = _sentences(rows, found, bounds, likelihoods, exact)
    said += _on_training_images(results, rows)
    best = select(rows, metric="best_epoch").value
    last = results.history.reindex(columns=["epoch"]).epoch.max()
    if results.of("budget").empty and len(best):
        said.append(
            "All this is of one length of training: what a longer one does was not measured."
        )
    if late := int((best > (1 - LATE) * last).sum()):
        runs = f"{late} of {len(best)} runs had their best epoch in the last {LATE:.0%}"
        said.append(f"{runs} of the {last} epochs.".replace("%", " %"))
    if (sample := _test_sample(rows)) and found:
        said.append(
            "The ± of means, and of differences of ELBO and L_K, is over trainings, on these test "
            f"{per}s. Other test {per}s would move all means{sample} and, independently of its ±, "
            f"each difference of ELBO by its *± from test {per}s*. The ± of the generalization "
            "gap includes both."
        )
    tables = [_table(results, rows, found), _split_table(rows, bounds, likelihoods)]
    tables += [_pairs_table(results, rows)]
    notes = prose(
        __file__,
        item=per,
        sample=sample,
        known=KNOWN if tolerance_of(results) else "",
        bits=_bits(results),
        rise=_rise(rows),
        start=f"{math.exp(INITIAL_LOG_SCALE):g}",
    )
    figures = [_elbo_figure(rows, per), _plane(rows, per), _learning_curves(results)]
    asked = "What the posterior's variance buys"
    return [Section(asked, points(*said), answer, tables, figures, notes), *failures]


def _on_training_images(results: Results, rows: pd.DataFrame) -> list[str]:
    """The same comparison where nothing need generalize, and the gap from there to test images,
    which are one sample of those it is lost on: their error is part of how much that is."""
    keys, within = ["variant", "seed"], tolerance_of(results)
    trained = select(rows, metric="train_elbo").dropna(subset="value")
    tested = select(rows, metric="elbo").set_index(keys).value
    lead = (trained.set_index(keys).value - tested).dropna().reset_index()
    lost = {
        variant: replace(found, half_width=math.hypot(found.half_width, _of_pairs(rows, variant)))
        for variant, found in _less_reference(lead).items()
    }
    compared = {
        "By the ELBO of training images": _less_reference(trained),
        "By the generalization gap, training less test ELBO (smaller is better)": lost,
    }
    said = {
        what: _verdicts(claims({title(v): e for v, e in found.items()}, tolerance=within))
        for what, found in compared.items()
    }
    return [f"{what}: {text}." for what, text in said.items() if text]


def _less_reference(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Of each variant the paired difference to the reference's, where both have a seed."""
    found = {
        variant: paired_difference(rows, variant, REFERENCE)
        for variant in ordered(rows.variant.unique())
        if variant != REFERENCE
    }
    return {variant: difference for variant, difference in found.items() if difference}


def _of_pairs(rows: pd.DataFrame, variant: str) -> float:
    """Half-width of its difference to the reference over the image pairs of one training, the mean
    over seeds; 0 where there is none."""
    pairs = select(rows, metric="elbo_difference", variant=variant)
    each = map(from_error, pairs.value, pairs.standard_error, pairs.n)
    return float(np.nan_to_num(interval(pair.half_width for pair in each).mean))


def elbo_claims(results: Results) -> list[Claim]:
    """ELBO of every variant against the reference's, paired by seed; from simple to flexible."""
    return _claims(results, "elbo_difference")


def bound_claims(results: Results) -> list[Claim]:
    """The same of the IW bound of the largest K: of the models, whatever their encoders."""
    return _claims(results, "iw_bound_difference")


def _claims(results: Results, metric: str) -> list[Claim]:
    """Where log p(x) is known, what differs by less than theory is held to is equal."""
    rows = results.of("headline", metric, reference=REFERENCE)
    differences = {title(v): select(rows, variant=v).value for v in results.variants(rows)}
    return claims(differences, tolerance=tolerance_of(results))


def likelihood_claims(results: Results) -> list[Claim]:
    """The same of log p(x) itself: exact where it is known, else as *Simple to flexible* has it; []
    where that was not measured."""
    exact = _less_reference(results.of("exact_likelihood", "exact_log_likelihood"))
    if exact:
        return claims({title(v): d for v, d in exact.items()}, tolerance=tolerance_of(results))
    found = [claim for claim in changes(results) if claim.subject[1] == "log_likelihood"]
    return [replace(claim, subject=title(claim.subject[0])) for claim in found]


def _sentences(
    rows: pd.DataFrame,
    found: list[Claim],
    bounds: list[Claim],
    likelihoods: list[Claim],
    exact: bool,
) -> tuple[list[str], str]:
    """Every other variant less the reference, by ELBO, IW bound and log p(x); in short, the simpler
    ones, those that beat it and those undecided."""
    name = title(REFERENCE)
    reference = interval(select(rows, metric="elbo", variant=REFERENCE).value)
    if not reference:
        return [f"No `{name}` runs here, so no differences to it."], ""
    text = f"`{name}` reaches a test ELBO of {spoken(reference)} nats"
    if not found:
        return [f"{text}."], f"{name} reaches {spoken(reference)} nats"
    said = [f"{text}; against it, in nats: {_verdicts(found)}."]
    short = f"ELBO against {name}'s, in nats: {_verdicts(found)}"
    if bounds:
        bound = bound_name(rows)
        said.append(f"By {bound}, a lower bound of log p(x): {_verdicts(bounds)}.")
    if likelihoods:
        whose = "log p(x) itself" if exact else "log p(x) as *Simple to flexible* estimates it"
        said.append(f"By {whose}: {_verdicts(likelihoods)}.")
    if model := likelihoods or bounds:
        short += f". {'log p(x)' if likelihoods else bound}: {_verdicts(model)}"
    return said, short


def _verdicts(found: list[Claim]) -> str:
    phrases = ("above it", "below it", "undecided against it")
    return sentence(found, *phrases, sign=True, alike=f"within {TOLERANCE} nats of it")


def bound_name(rows: pd.DataFrame) -> str:
    """The name of the IW bound of the largest K."""
    most = rows.K.max()
    return "L_K" if pd.isna(most) else f"L_{most}"


def _bits(results: Results) -> str:
    """What bits/pixel are, of images."""
    config = results.environment.get("config", {})
    if item(results) != "image":
        return ""
    if config.get("likelihood", Run.likelihood) != Run.likelihood:
        return DENSITY
    # what is lost on grey pixels is no code's length
    return BITS * (config.get("binarization") != "none")


def _rise(rows: pd.DataFrame) -> str:
    """What the last step of K still adds to the IW bound: a sign of how much it lacks."""
    bounds = select(rows, metric="iw_bound").pivot_table("value", ["variant", "seed"], "K")
    if len(bounds.columns) < 2:
        return ""
    less, most = sorted(bounds.columns)[-2:]
    rises = (bounds[most] - bounds[less]).groupby("variant").mean().dropna().sort_values()
    if not (rises >= 0.005).any():
        return ""
    said = [f"{decimal(rise)} (`{title(variant)}`)" for variant, rise in rises.items()]
    between = said[0] if len(said) == 1 else f"{said[0]} to {said[-1]}"
    alike = "" if len(said) == 1 else ", a sign that the slacks differ"
    return f" From K = {less:,} to {most:,} L_K still rises by {between} nats{alike}."


def _test_sample(rows: pd.DataFrame) -> str:
    """How far another test sample would move an ELBO, where it was measured."""
    errors = select(rows, metric="elbo_test_sample_error")
    half = interval(from_error(0, e, n).half_width for e, n in zip(errors.value, errors.n))
    return f" (± {decimal(half.mean, 1)} nats, variants alike)" if half else ""


def _table(results: Results, rows: pd.DataFrame, found: list[Claim]) -> Table:
    """One line a variant; of the IW bound the largest K."""
    rows = _of_largest(rows)
    per = item(results)
    columns = {
        "elbo": Column("ELBO", best="max"),
        "elbo_difference": Column(f"difference to {title(REFERENCE)}", sign=True),
        "verdict": Column("verdict"),
        "image_pairs": Column(f"± from test {per}s", 3),
        "iw_bound": Column(bound_name(rows), best="max"),
        "effective_sample_size": Column("ESS", 0, interval=False),
        "distortion": Column("distortion"),
        "rate": Column("rate"),
        "active_directions": Column("active directions", 1, interval=False),
        "active_units": Column("active units", 1, interval=False),
        "bits_per_dim": Column("bits/pixel", 4),
        "elbo_train_minus_test": Column("train − test"),
        "learning_rate": Column("learning rate", exact=True),
        "best_epoch": Column("best epoch", 0, interval=False),
        "training_seconds": Column("training s", 0, interval=False),
        "seeds": Column("seeds", 0),
    }
    if per != "image":
        del columns["bits_per_dim"]  # of real-valued x there are none
    entries = summary(rows, ["variant", "metric"])
    for variant, mine in rows.groupby("variant"):
        entries[variant, "image_pairs"] = _of_pairs(mine, variant) or math.nan
        entries[variant, "variant"] = _name(results, variant)
        entries[variant, "seeds"] = mine.seed.nunique()
    verdicts = {claim.subject: claim.verdict for claim in found}
    entries |= {(v, "verdict"): verdicts.get(title(v), "") for v in results.variants(rows)}
    caption = "Test ELBO and its parts, one line a variant, from simple to flexible"
    return Table.of_variants("elbo", columns, entries, caption)


def _of_largest(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that have no K, or the largest."""
    return rows[(rows.K.isna() | rows.K.eq(rows.K.max())).to_numpy(dtype=bool)]


def _split_table(rows: pd.DataFrame, bounds: list[Claim], likelihoods: list[Claim]) -> Table:
    """A difference of ELBO as that of L_K and that of the rest, beside that of log p(x)."""
    rows, bound = select(rows, reference=REFERENCE), bound_name(rows)
    columns = {
        "elbo_difference": Column("difference of ELBO", sign=True),
        "distortion_difference": Column("difference of distortion", sign=True),
        "rate_difference": Column("difference of rate", sign=True),
        "iw_bound_difference": Column(f"difference of {bound}", sign=True),
        "verdict": Column(f"verdict on {bound}"),
        "narrower": Column(f"difference of ELBO − {bound}", sign=True),
    }
    if likelihoods:
        columns["likelihood"] = Column("difference of log p(x)", sign=True)
        columns["likelihood_verdict"] = Column("verdict on log p(x)")
    entries = summary(select(rows, metric=[*columns]), ["variant", "metric"])
    gaps = summary(select(rows, metric="inference_gap_difference"), "variant")
    entries |= {(v, "narrower"): replace(gap, mean=-gap.mean) for v, gap in gaps.items()}
    verdicts = {claim.subject: claim.verdict for claim in bounds}
    entries |= {(v, "verdict"): verdicts.get(title(v), "") for v in gaps}
    known = {claim.subject: claim for claim in likelihoods}
    for v in (v for v in gaps if title(v) in known):
        entries[v, "likelihood"] = known[title(v)].difference
        entries[v, "likelihood_verdict"] = known[title(v)].verdict
    entries = {key: entry for key, entry in entries.items() if key[0] in gaps}
    caption = (
        f"Differences to {title(REFERENCE)}: that of the ELBO is minus the sum of those of "
        f"distortion and rate, and the sum of that of {bound} and the rest"
    )
    caption += "; beside them that of log p(x)" if likelihoods else ""
    return Table.of_variants("elbo_split", columns, entries, caption)


def _pairs_table(results: Results, rows: pd.DataFrame) -> Table:
    """Every variant against every simpler one: a family of verdicts of its own."""
    elbos = select(rows, metric="elbo").dropna(subset="value")
    pairs = combinations(results.variants(elbos), 2)
    differences = {(v, w): paired_difference(elbos, w, v) for v, w in pairs}
    columns = ["variant", "minus"]
    columns += [Column("difference of ELBO", sign=True), Column("verdict (Holm)")]
    lines = [
        [title(claim.subject[1]), title(claim.subject[0]), claim.difference, claim.verdict]
        for claim in claims(differences, tolerance=tolerance_of(results))
    ]
    names = [line[0] for line in lines]
    caption = "Every pair of variants: the ELBO of the first less that of the second"
    return Table("elbo_pairs", columns, lines, caption, variants=names)


def _name(results: Results, variant: str) -> str:
    """The variant with its chosen hyperparameters, e.g. `fixed-variance (scale 0.3)`."""
    chosen = results.of("headline", "epochs", variant=variant)
    if chosen.empty:
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
    return captioned(__file__, "learning_curves", chart, ends=ends, schedule=schedule_of(results))
