"""How noisy the loss is: ELBO estimators by stage, KL and S, and the IW bound by K."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping

import altair as alt
import pandas as pd

from bench.config import REFERENCE
from bench.inference.elbo import KLS, SAMPLINGS
from bench.report import estimators
from bench.report.claims import BEATS, TRAILS, UNDECIDED, listing, sentence_case
from bench.report.estimators import Printed, estimates, for_chart, short, table, tens, verdicts
from bench.report.figure import Figure, by_variant, curves
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, paragraphs, prose
from bench.report.style import STAGES, title, words
from bench.report.table import Column, Table, spoken

SCHEMES = {name: words(name) for name in SAMPLINGS}
SCHEMES |= {"antithetic": "antithetic pairs", "sobol": "Sobol points"}
QUIETER = {TRAILS: "analytic KL", BEATS: "sampled KL", UNDECIDED: UNDECIDED}
"""Verdict on the ratio of the sampled to the analytic KL's variance → the quieter one."""
ONE = {"sampling": "independent", "S": 1}
IW = {
    "iw_bias": "L_{} − L_K, nats",
    "iw_variance": "variance, nats²",
    "iw_effective_sample_size": "effective sample size",
}
EVERY = ("variant", "stage", "kl", "sampling")
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
    quieter = verdicts(ratios)
    takeaway = f"{_order_sentence(quieter, ratios)} {_gain_sentence(rows)}".strip()
    takeaway = takeaway or "No two ELBO estimates can be compared."
    iw = pd.concat([select(rows, metric=metric, stage="best") for metric in IW])
    iw = iw.dropna(subset=["K", "value"])
    # the bias is negative, and has no logarithm
    iw = iw.assign(value=iw.value.where(iw.metric != "iw_bias", -iw.value))
    names = {key: name.format(iw.reference_K.max()) for key, name in IW.items()}
    iw["metric"] = iw.metric.map(names)
    return [
        Section(
            "How noisy the loss is",
            takeaway,
            _answer(one, printed["variant"], quieter),
            _tables(rows, iw, printed, quieter),
            [_samples_figure(rows, printed), _iw_figure(iw, printed["variant"])],
            paragraphs(prose(__file__), estimators.absences(rows)),
        )
    ]


def _tables(rows: pd.DataFrame, iw: pd.DataFrame, printed: Printed, quieter: dict) -> list[Table]:
    of, samples = functools.partial(select, rows), sorted(rows.S.dropna().unique())
    order = {
        **{Column(f"{kl} KL, nats²", None): of(metric="elbo_variance", kl=kl, **ONE) for kl in KLS},
        Column("sampled / analytic", None): of(metric="sampled_to_analytic_variance", **ONE),
        Column("quieter"): _order(quieter),
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


def _order(quieter: Mapping[tuple, str]) -> dict[tuple, str]:
    """(variant, stage) → the quieter KL, and whether that changed since it was last decided."""
    found, last = {}, {}
    for variant, stage in sorted(quieter, key=lambda key: [*STAGES].index(key[1])):
        verdict = quieter[variant, stage]
        flipped = verdict != UNDECIDED and last.get(variant, verdict) != verdict
        found[variant, stage] = QUIETER[verdict] + (" (flipped)" if flipped else "")
        if verdict != UNDECIDED:
            last[variant] = verdict
    return found


# --- sentences ---------------------------------------------------------------------------------


def _answer(one: pd.DataFrame, variants: Iterable[str], quieter: dict) -> str:
    """Both KLs' variance of one variant, and the verdict on them."""
    variant = REFERENCE if REFERENCE in variants else next(iter(variants))
    found = estimates(select(one, metric="elbo_variance", variant=variant, stage="best"), "kl")
    parts = [f"{spoken(found[kl,], None)} nats² with {kl} KL" for kl in KLS if (kl,) in found]
    text = f"variance of one sample: {listing(parts)}" if parts else ""
    undecided = text and quieter.get((variant, "best")) == UNDECIDED
    return text + f" ({UNDECIDED})" * bool(undecided)


def _order_sentence(quieter: Mapping, ratios: Mapping) -> str:
    """Which KL is quieter at initialisation and at the best weights, and by how much."""
    factors = {key: max(ratio.mean, 1 / ratio.mean) for key, ratio in ratios.items()}
    parts = []
    for (stage, when), verdict in itertools.product(MOMENTS.items(), QUIETER):
        here = [variant for variant, its in quieter if its == stage]
        variants = [v for v in here if quieter[v, stage] == verdict]
        who = listing(f"`{title(variant)}`" for variant in variants)
        who = "every variant of known KL" if len(variants) == len(here) > 1 else who
        if variants and verdict == UNDECIDED:
            parts.append(f"{when} which KL is quieter is undecided for {who}")
        elif variants:
            lower = _range(factors[variant, stage] for variant in variants)
            parts.append(
                f"{when} the {QUIETER[verdict]} gives the quieter ELBO estimate for {who} "
                f"(one-sample variance lower by a factor of {lower})"
            )
    return sentence_case("; ".join(parts))


def _range(values: Iterable[float]) -> str:
    low, high = map(short, (min(values := [*values]), max(values)))
    return low if low == high else f"{low} to {high}"


def _gain_sentence(rows: pd.DataFrame) -> str:
    """What the better sampling schemes give at equal decoder passes, at the best weights."""
    rows = select(rows, metric="elbo_variance_reduction", sampling=[*SCHEMES])
    best, parts = select(rows, stage="best", S=rows.S.max()).dropna(subset="value"), []
    for scheme, name in SCHEMES.items():
        if scheme in set(best.sampling):
            parts.append(f"{name} {_range(select(best, sampling=scheme).value)}")
    if not parts:
        return ""
    text = (
        f"At equal decoder passes (S = {rows.S.max()}, best weights) the variance of independent "
        f"samples is divided by: {'; '.join(parts)}."
    )
    gains = estimates(rows, "stage", "sampling", "S", "variant", "kl")
    losses = [key for key, verdict in verdicts(gains, below=False).items() if verdict == TRAILS]
    if losses:
        worst = min(losses, key=lambda key: gains[key].mean)
        stage, scheme, s, variant, kl = worst
        text += (
            f" A scheme can also lose: {SCHEMES[scheme]} with the {kl} KL (S = {s}, "
            f"{STAGES[stage]}) multiply it by {1 / gains[worst].mean:.2g} for `{title(variant)}`."
        )
    return text


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
    return Figure(
        "loss_variance_by_samples",
        "S × variance of the ELBO estimate",
        "Lower is quieter at equal decoder passes: independent samples and antithetic pairs stay "
        "level, Sobol points fall where the integrand is smooth. Where solid and dashed lines of a "
        "colour swap places from stage to stage, the order of the KLs flips.",
        "Lines against S, a panel a variant in a row a stage. From the least to the largest S they "
        f"change by a factor of {changes} in the median.",
        alt.vconcat(*charts),
        filters=("sampling", "kl"),
    )


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
    return Figure(
        "iw_bound_by_samples",
        "The IW bound at the best weights",
        "Distance to the estimate with the largest K, variance over noise, effective sample size. "
        "A size far below the grey line, K, says that few samples carry all the weight.",
        f"Three panels against K on logarithmic axes, the ranges over variants: {'; '.join(seen)}.",
        alt.hconcat(*charts),
    )
