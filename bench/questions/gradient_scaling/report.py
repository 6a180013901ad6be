"""How the gradient's noise grows with the number of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping

import altair as alt
import pandas as pd

from bench.config import REFERENCE, preset
from bench.report import estimators
from bench.report.claims import BEATS, TRAILS, UNDECIDED, Claim, claims, listing, sentence_case
from bench.report.estimators import Printed, for_chart, table, tens
from bench.report.figure import Figure, panels
from bench.report.results import Results
from bench.report.rows import most_images, select
from bench.report.section import Section, captioned, paragraphs, points, prose
from bench.report.style import STAGES, title
from bench.report.table import Column, spoken
from bench.statistics import STRAIGHT, Estimate, PowerLaw, interval, power_law, ratio_of_means

FLAT = 0.1
"""A power of L whose whole interval lies this close to 0 is hardly a dependence: less than half as
much again from the least to the largest L."""
SIGNS = {BEATS: "above", TRAILS: "below", UNDECIDED: "undecided"}
LAWS = {
    "power": "yes",
    "flat": "hardly depends on L",
    "none": "not claimed",
}


def sections(results: Results) -> list[Section]:
    """The section on latent dimension; [] where it was not measured."""
    every = results.of("gradient_scaling", "total_variance")
    if every.empty:
        return []
    printed: Printed = {
        "stage": STAGES,
        "estimator": estimators.labels(every.estimator.unique()),
    }
    laws = {
        key: power_law(group.L.astype(float), group.value)
        for key, group in every.groupby([*printed])
    }
    totals = estimators.over_seeds(every)
    entries = {
        Column(f"L = {dim}, nats²", None): select(totals, L=int(dim))
        for dim in sorted(totals.L.unique())
    }
    told = _told(laws)
    entries[Column("exponent")] = {key: law.exponent for key, law in laws.items()}
    entries[Column("against 0 (Holm)")] = {key: SIGNS[claim.verdict] for key, claim in told.items()}
    entries[Column("R²", 4)] = {key: law.r_squared for key, law in laws.items()}
    entries[Column("power law")] = {key: LAWS.get(_kind(law), "") for key, law in laws.items()}
    caption = "The encoder's Monte Carlo variance at S = 2 by number of latents L."
    tables = [table("gradient_scaling", caption, printed, [*printed], entries)]
    steps = preset(results.environment.get("config", {}).get("preset", "default")).scaling_steps
    amounts = {"reference": title(REFERENCE), "images": most_images(every), "steps": steps}
    notes = prose(__file__, **amounts), estimators.absences(totals, "estimator")
    heading, takeaway = "Gradient noise and latent dimension", _takeaway(every, laws, told, printed)
    figures = [_figure(totals, printed)]
    return [Section(heading, takeaway, "", tables, figures, paragraphs(*notes))]


def _kind(law: PowerLaw) -> str:
    """One of `LAWS`; "" where fewer than three L are known."""
    if not math.isfinite(law.r_squared):
        return ""
    if law.exponent.low >= -FLAT and law.exponent.high <= FLAT:
        return "flat"
    return "power" if law.holds else "none"


def _told(laws: Mapping[tuple, PowerLaw]) -> dict[tuple, Claim]:
    """Which exponents are above or below 0: verdicts on all of them together."""
    exponents = {key: law.exponent for key, law in laws.items() if _kind(law)}
    return {claim.subject: claim for claim in claims(exponents)}


def _takeaway(
    every: pd.DataFrame,
    laws: Mapping[tuple, PowerLaw],
    told: Mapping[tuple, Claim],
    printed: Printed,
) -> str:
    """By stage the lowest and highest exponents measured of power laws, what hardly depends on L,
    and the slopes of what is neither; and the gap at either end.
    """
    parts = []
    unsure = {key for key, claim in told.items() if not claim.decided}

    def ends(keys: list[tuple]) -> str:
        order = sorted(keys, key=lambda key: laws[key].exponent.mean)
        return " to ".join(
            f"{spoken(laws[key].exponent)} (`{printed['estimator'][key[1]]}`"
            + ", undecided against 0" * (key in unsure)
            + ")"
            for key in dict.fromkeys(order[:1] + order[-1:])
        )

    for stage, label in printed["stage"].items():
        mine = [(where, name) for where, name in laws if where == stage]
        kinds = {kind: [key for key in mine if _kind(laws[key]) == kind] for kind in LAWS}
        names = {
            kind: listing(f"`{printed['estimator'][name]}`" for _, name in keys)
            for kind, keys in kinds.items()
        }
        said = []
        if kinds["power"]:
            said.append(
                f"goes as a power of L for {len(kinds['power'])} of {len(mine)} estimators, with "
                f"measured exponents of {ends(kinds['power'])}"
            )
        if kinds["flat"]:
            said.append(f"hardly depends on L (power within ±{FLAT}) for {names['flat']}")
        if kinds["none"]:
            said.append(
                f"fits no power of L well enough to be called one (R² < {STRAIGHT}) for "
                f"{names['none']}, with slopes of {ends(kinds['none'])}"
            )
        if said:
            when = label if label.startswith("after") else f"at {label}"
            parts.append(f"{when}, the encoder's variance at S = 2 {listing(said)}")
    if not parts:
        return "No variance is finite at three numbers of latents."
    return points(*map(sentence_case, [*parts, *_gap(every)]))


def _gap(every: pd.DataFrame) -> list[str]:
    """The raw score function's variance over pathwise's, at the ends, trained, paired by seed; the
    verdicts hold together for all L."""
    trained = select(every, stage="trained", estimator=["score_function", "pathwise"])
    wide = trained.pivot_table(index=["L", "seed"], columns="estimator", values="value").dropna()
    if len(wide.columns) < 2:
        return []
    ratios = {L: _ratio(pairs) for L, pairs in wide.groupby("L")}
    if len(ratios) < 2:
        return []
    first, *_, last = claims(ratios, equal=1)
    said = [
        f"{claim.spoken(None)} at L = {claim.subject}"
        + (" (undecided)" if claim.difference.n > 1 else " (one seed)") * (not claim.decided)
        for claim in (first, last)
    ]
    return [
        f"{STAGES['trained']} the raw score function's variance as a "
        f"multiple of pathwise's is {' and '.join(said)}"
    ]


def _ratio(pairs: pd.DataFrame) -> Estimate:
    above, below = pairs.score_function, pairs.pathwise
    return ratio_of_means(above, below) if len(pairs) > 1 else interval(above / below)


def _figure(totals: pd.DataFrame, printed: Printed) -> Figure | None:
    frame = for_chart(totals, printed, "L")
    if frame.empty:
        return None
    across, up = estimators.amount_axis("L", "latent dimension L", frame.L), "variance, nats²"
    up = alt.Y("value:Q", title=up, scale=alt.Scale(type="log"), axis=tens())
    chart = estimators.lines(frame, across, up, printed["estimator"], width=330, height=300)
    last = select(frame, L=frame.L.max())
    seen = (
        f"{stage}, {estimators.ranking(rows)}" for stage, rows in last.groupby("stage", sort=False)
    )
    chart = panels(chart, "stage", [*printed["stage"].values()])
    values = {"largest": frame.L.max(), "seen": ". ".join(seen)}
    return captioned(__file__, "gradient_scaling", chart, ("estimator", "stage"), **values)
