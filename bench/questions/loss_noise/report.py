"""How noisy the loss is: ELBO estimators by stage, KL and S, and the IW bound by K."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd

from bench.config import REFERENCE
from bench.inference.elbo import KLS, SAMPLINGS
from bench.report import estimators
from bench.report.claims import BEATS, TRAILS, UNDECIDED, Claim, claims, listing, sentence
from bench.report.estimators import Printed, estimates, for_chart, short, table, tens
from bench.report.figure import Figure, by_variant, curves
from bench.report.results import Results
from bench.report.rows import most_images, select
from bench.report.section import Section, captioned, paragraphs, points, prose
from bench.report.style import STAGES, title, words
from bench.report.table import Column, Table, spoken
from bench.statistics import Estimate

SCHEMES = {name: words(name) for name in SAMPLINGS}
SCHEMES |= {"antithetic": "antithetic pairs", "sobol": "Sobol points"}
QUIETER = {BEATS: "analytic KL", TRAILS: "sampled KL", UNDECIDED: UNDECIDED}
"""Verdict on the analytic KL, from the ratio of the sampled one's variance → the quieter one."""
ONE = {"sampling": "independent", "S": 1}
IW = {
    "iw_bias": "L_{} − L_K, nats",
    "iw_variance": "variance, nats²",
    "iw_effective_sample_size": "effective sample size",
}
EVERY = ("variant", "stage", "kl", "sampling")
QUIETER_FOR = (
    "the analytic KL is quieter for",
    "the sampled KL is quieter for",
    "undecided for",
)
MOMENTS = {"initialisation": "at initialisation", "best": "at the best weights"}


def sections(results: Results) -> list[Section]:
    """The section on the loss's variance; [] where it was not measured."""
    rows = results.of("loss_noise")
    if rows.empty:
        return []
    printed: Printed = {
        "variant": {variant: title(variant) for variant in results.variants(rows)},
        "stage": STAGES,
        "kl": {kl: f"{kl} KL" for kl in KLS},
        "sampling": SCHEMES,
        "K": {k: k for k in sorted(rows.K.dropna().unique())},
    }
    one = select(rows, **ONE)
    ratios = estimates(select(one, metric="sampled_to_analytic_variance"), "variant", "stage")
    found = claims(ratios, equal=1)
    takeaway = points(_order_sentence(found), *_gain_sentences(rows))
    takeaway = takeaway or "No two ELBO estimates can be compared."
    iw = pd.concat([select(rows, metric=metric, stage="best") for metric in IW])
    iw = iw.dropna(subset=["K", "value"])
    # the bias is negative, and has no logarithm
    iw = iw.assign(value=iw.value.where(iw.metric != "iw_bias", -iw.value))
    names = {key: name.format(iw.reference_K.max()) for key, name in IW.items()}
    iw["metric"] = iw.metric.map(names)
    answer, tables = _answer(one, printed["variant"], found), _tables(rows, iw, printed, found)
    figures = [_samples_figure(rows, printed), _iw_figure(iw, printed["variant"])]
    notes = (
        prose(__file__, images=most_images(select(rows, metric="elbo_variance"))),
        estimators.absences(rows),
    )
    return [Section("How noisy the loss is", takeaway, answer, tables, figures, paragraphs(*notes))]


def _tables(rows: pd.DataFrame, iw: pd.DataFrame, printed: Printed, found: list) -> list[Table]:
    of, samples = functools.partial(select, rows), sorted(rows.S.dropna().unique())
    order = {
        **{Column(f"{kl} KL, nats²", None): of(metric="elbo_variance", kl=kl, **ONE) for kl in KLS},
        Column("sampled / analytic", None): of(metric="sampled_to_analytic_variance", **ONE),
        Column("quieter"): _order(found),
    }
    variance = {
        Column(f"S = {s}, nats²", None, "min", interval=False): of(metric="elbo_variance", S=s)
        for s in samples
    }
    variance[Column("slope in S", 3)] = of(metric="elbo_variance_slope")
    for s in samples[-1:]:
        variance[Column(f"gain at S = {s}", None)] = of(metric="elbo_variance_reduction", S=s)
    time = {
        Column(f"S = {s}, µs/image", None): of(metric="elbo_estimate_time", S=s) for s in samples
    }
    bound = {Column(name, None): select(iw, metric=name) for name in iw.metric.unique()}
    captions = (
        "Variance of the ELBO estimate from one sample.",
        "Variance of every ELBO estimate by S.",
        "Time of an ELBO estimate at the best weights.",
        "The importance-weighted bound L_K at the best weights.",
    )
    return [
        table("loss_order", captions[0], printed, ("variant", "stage"), order),
        table("loss_variance", captions[1], printed, EVERY, variance, 2),
        table("loss_time", captions[2], printed, ("variant", "kl", "sampling"), time),
        table("iw_bound", captions[3], printed, ("variant", "K"), bound),
    ]


def _order(found: list[Claim]) -> dict[tuple, str]:
    """(variant, stage) → the quieter KL, and whether that changed since it was last decided."""
    order, last = {}, {}
    for claim in sorted(found, key=lambda claim: [*STAGES].index(claim.subject[1])):
        variant, verdict = claim.subject[0], claim.verdict
        changed = claim.decided and last.get(variant, verdict) != verdict
        order[claim.subject] = QUIETER[verdict] + " (reversed)" * changed
        last |= {variant: verdict} if claim.decided else {}
    return order


# --- sentences ---------------------------------------------------------------------------------


def _answer(one: pd.DataFrame, variants: Iterable[str], found: list[Claim]) -> str:
    """Both KLs' variance of one variant, and the verdict on them."""
    variant = REFERENCE if REFERENCE in variants else next(iter(variants))
    each = estimates(select(one, metric="elbo_variance", variant=variant, stage="best"), "kl")
    parts = [f"{spoken(each[kl,], None)} nats² with the {kl} KL" for kl in KLS if (kl,) in each]
    unsure = any(c.subject == (variant, "best") and not c.decided for c in found)
    of = f"in one training of `{title(variant)}`"
    text = f"variance of the one-sample ELBO estimate, {of}: {listing(parts)}" if parts else ""
    return text + f" ({UNDECIDED})" * bool(parts and unsure)


def _order_sentence(found: list[Claim]) -> str:
    """Which KL is quieter at initialisation and at the best weights, and by how much."""
    parts = []
    for stage, when in MOMENTS.items():
        here = [replace(c, subject=title(c.subject[0])) for c in found if c.subject[1] == stage]
        if here:
            every = "every variant with a closed-form KL"
            said = sentence(here, *QUIETER_FOR, digits=None, every=every)
            parts.append(f"{when} {said}{_twins(here)}")
    text = (
        "The variance of one sample with the sampled KL, as a multiple of that with the analytic "
        "KL: "
        f"{'; '.join(parts)}."
    )
    return text if parts else ""


def _twins(found: list[Claim]) -> str:
    """Which variants have the same number but for rounding, so that it is one measurement; "" for
    none."""
    same: list[list[Claim]] = []
    for claim in found:
        twin = next((group for group in same if _equal(claim.difference, group[0].difference)), [])
        same += [] if twin else [twin]
        twin.append(claim)
    twins = [" = ".join(f"`{c.subject}`" for c in group) for group in same if len(group) > 1]
    several = f"{len(same)} measurement{'s' * (len(same) > 1)} for {len(found)} variants"
    return f", {several}, since {listing(twins)}" if twins else ""


def _equal(one: Estimate, other: Estimate) -> bool:
    """Whether mean and interval are the same to single precision's rounding."""
    return np.allclose([one.mean, one.half_width], [other.mean, other.half_width], 1e-5, 0)


def _range(values: Iterable[float]) -> str:
    low, high = map(short, (min(values := [*values]), max(values)))
    return low if low == high else f"{low} to {high}"


def _gain_sentences(rows: pd.DataFrame) -> list[str]:
    """What the better sampling schemes give at equal decoder passes, at the best weights; gains and
    losses of all stages, S, KLs and variants hold together."""
    rows = select(rows, metric="elbo_variance_reduction", sampling=[*SCHEMES])
    told = claims(estimates(rows, "sampling", "stage", "S", "variant", "kl"), equal=1)
    parts = []
    for scheme, name in SCHEMES.items():
        here = [c for c in told if c.subject[:3] == (scheme, "best", rows.S.max())]
        if here:
            gains, losses = (sum(c.verdict == v for c in here) for v in (BEATS, TRAILS))
            parts.append(
                f"{name} divide it by {_range(c.difference.mean for c in here)} (of {len(here)} "
                f"combinations of variant and KL, {gains} show a gain and {losses} a loss)"
            )
    said = [
        f"The variance of independent samples at equal decoder passes (S = {rows.S.max()}, best "
        f"weights): {'; '.join(parts)}."
    ] * bool(parts)
    if losses := [claim for claim in told if claim.verdict == TRAILS]:
        worst = min(losses, key=lambda claim: claim.difference.mean)
        scheme, stage, s, variant, kl = worst.subject
        said.append(
            f"The largest significant loss at any stage and S: {SCHEMES[scheme]} with the {kl} KL "
            f"(S = {s}, {STAGES[stage]}) divide that variance by {worst.spoken(None)} for "
            f"`{title(variant)}`."
        )
    return said


# --- figures -----------------------------------------------------------------------------------


def _samples_figure(rows: pd.DataFrame, printed: Printed) -> Figure | None:
    """Variance against S at equal decoder passes, a panel a stage and variant."""
    settings = {column: printed[column] for column in EVERY}
    frame = for_chart(select(rows, metric="elbo_variance"), settings, "S", times="S")
    if frame.empty:
        return None
    # Tol's high-contrast palette, none of the variants' colours
    scale = alt.Scale(domain=[*SCHEMES.values()], range=["#004488", "#BB5566", "#DDAA33"])
    legend = alt.Legend(title=None)
    colours = alt.Color("sampling:N", scale=scale, legend=legend)
    dash = alt.StrokeDash("kl:N", sort=[*printed["kl"].values()], legend=legend)
    options = {"log": "y", "dash": dash, "width": 165, "height": 200}
    across, up = estimators.amount_axis("S", "samples S", frame.S), ("value", "S × variance, nats²")
    column = alt.Column("variant:N", title=None, sort=[*printed["variant"].values()])
    charts = [
        curves(select(frame, stage=stage), across, up, colours, **options)
        .facet(column=column)
        .properties(title=stage)
        for stage in printed["stage"].values()
        if stage in set(frame.stage)
    ]
    ends = frame.sort_values("S").groupby([*EVERY]).value.agg(["first", "last"])
    change = (ends["last"] / ends["first"]).groupby("sampling").median().map(short)
    changes = listing(f"{factor} ({scheme})" for scheme, factor in change.items())
    chart, filters = alt.vconcat(*charts), ("sampling", "kl")
    return captioned(__file__, "loss_variance_by_samples", chart, filters, changes=changes)


def _iw_figure(iw: pd.DataFrame, variants: Mapping[str, str]) -> Figure | None:
    """Distance to the limit, variance and effective sample size of the IW bound against K."""
    if iw.empty:
        return None
    names, span = [*variants.values()], sorted({int(iw.K.min()), int(iw.K.max())})
    # one beside the other, so that bars do not cover each other
    beside = f"datum.K * pow(1.08, indexof({names}, datum.variant) - {(len(names) - 1) / 2})"
    across = estimators.amount_axis("K", "samples K", iw.K)
    across.shorthand = "beside:Q"
    charts, seen = [], []
    for name in iw.metric.unique():
        frame = for_chart(select(iw, metric=name), {"variant": variants}, "K")
        up = alt.Y("value:Q", title=name, scale=alt.Scale(type="log"), axis=tens())
        chart = curves(frame, across, up, by_variant(variants), width=330)
        charts.append(chart.transform_calculate(beside=beside))
        ends = {k: select(frame, K=k).value for k in span}
        ranges = [f"{_range(values)} (K = {k})" for k, values in ends.items() if len(values)]
        seen.append(f"{name}: {', '.join(ranges)}")
    limit = alt.Chart(iw[["K"]].drop_duplicates().astype(float))
    charts[-1] += limit.mark_line(color="#888", strokeDash=[4, 3]).encode(x="K:Q", y="K:Q")
    chart = alt.hconcat(*charts)
    return captioned(__file__, "iw_bound_by_samples", chart, ranges="; ".join(seen))
