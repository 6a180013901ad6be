"""The signal-to-noise ratio of the encoder's gradient of L_K by K, beside theory's exponents."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import altair as alt
import pandas as pd

from bench.config import REFERENCE as VARIANT
from bench.questions.multi_sample import REFERENCE, THEORY
from bench.report import estimators
from bench.report.claims import BEATS, TRAILS, UNDECIDED, claims, grouped, listing, sentence
from bench.report.estimators import Printed, amount_axis, axis_at, estimates, for_chart, table
from bench.report.figure import Figure, panels
from bench.report.results import Results
from bench.report.rows import most_images, select
from bench.report.section import Section, captioned, paragraphs, points, prose
from bench.report.style import STAGES, title
from bench.report.table import Column, Table, decimal, spoken
from bench.statistics import Estimate

FRACTIONS = {-0.5: "−½", 0.5: "½"}
KEYS = ["stage", "estimator"]


def sections(results: Results) -> list[Section]:
    """The section on bounds of several samples; [] where it was not measured."""
    rows = results.of("multi_sample")
    if select(rows, metric="signal_to_noise").empty:
        return []
    found = Found(rows)
    notes = paragraphs(
        prose(__file__, variant=title(VARIANT), beyond=found.beyond, images=most_images(rows)),
        estimators.citations(found.labels),
        estimators.absences(rows, "estimator"),
    )
    heading = "Tighter bounds and the encoder's gradient"
    tables, figures = [_table(found)], [_figure(found)]
    return [Section(heading, _takeaway(found), _answer(found), tables, figures, notes)]


@dataclass(frozen=True)
class Found:
    """The rows, and what is read of them more than once."""

    rows: pd.DataFrame

    def of(self, metric: str, *columns: str, **settings: object) -> dict[tuple, Estimate]:
        """Setting → number of a metric."""
        return estimates(select(self.rows, metric=metric, **settings), *columns)

    @cached_property
    def labels(self) -> dict[str, str]:
        return estimators.labels(self.rows.estimator.dropna())

    @cached_property
    def printed(self) -> Printed:
        present = set(self.rows.stage)
        stages = {stage: text for stage, text in STAGES.items() if stage in present}
        return {"stage": stages, "estimator": self.labels}

    @cached_property
    def exponents(self) -> dict[tuple, Estimate]:
        """(stage, estimator, least K of the fit) → exponent."""
        return self.of("exponent", *KEYS, "K")

    @property
    def last(self) -> int:
        return int(self.rows.K.max())

    @property
    def latest(self) -> str:
        """The stage that the answer is of."""
        return list(self.printed["stage"])[-1]

    def are_few(self, size: Estimate) -> bool:
        """Whether an effective sample size at the most samples is far from theory's limit, in
        which it grows as K."""
        return size.mean < self.last / 2

    @property
    def beyond(self) -> int:
        """The K from which the exponent is fitted that is held against theory's."""
        return max((least for _, _, least in self.exponents), default=self.last)

    @cached_property
    def beside_theory(self) -> dict[tuple, Estimate]:
        """(stage, estimator) → its exponent from the K that theory is held beside."""
        return {
            (stage, name): self.exponents[stage, name, self.beyond]
            for stage, name in itertools.product(*self.printed.values())
            if name in THEORY and self.exponents.get((stage, name, self.beyond))
        }


def _takeaway(found: Found) -> str:
    """What the most samples do to the ratio; by stage: exponents beside theory's, how even the
    weights are, what a bias amounts to."""
    change = _change(found)[1]
    parts = [f"In one training, {change}."] * bool(change)
    for stage, printed in found.printed["stage"].items():
        fits = [
            f"{spoken(exponent)} for `{found.labels[name]}` "
            f"(theory's limit {FRACTIONS[THEORY[name]]}{_locally(found, where, name)})"
            for (where, name), exponent in found.beside_theory.items()
            if where == stage
        ]
        span = f"from K = {found.beyond} to {found.last}"
        power = f"the exponent of K in the signal-to-noise ratio, {span},"
        said = [f"{power} is {listing(fits)}"] * bool(fits)
        here = {"stage": stage, "K": found.last}
        for size in found.of("effective_sample_size", **here).values():
            text = f"the effective sample size of K = {found.last} is {spoken(size, 1)}"
            far = " (in theory's limit it grows as K, which is far off here)"
            said.append(text + far * found.are_few(size))
        for (name,), bias in found.of("relative_bias", "estimator", **here).items():
            said.append(
                f"at K = {found.last} the bias of `{found.labels[name]}` has {spoken(bias)} times "
                "the gradient's length"
            )
        parts += [f"At {printed}, {listing(said)}."] * bool(said)
    return points(*parts) or "No exponent could be fitted."


def _locally(found: Found, stage: str, name: str) -> str:
    """The exponent of the last doubling of K alone, nearest to theory's limit."""
    here = {"stage": stage, "estimator": name}
    ratios = found.of("signal_to_noise", "K", **here)
    known = {K: ratio.mean for (K,), ratio in ratios.items() if ratio.mean > 0}
    if not {found.last, found.last // 2} <= known.keys():
        return ""
    slope = math.log2(known[found.last] / known[found.last // 2])
    return f"; {decimal(slope)} in the last doubling"


def _answer(found: Found) -> str:
    """Whether the most samples lower the ratio of unbiased estimators, and what they do to all."""
    word, change = _change(found)
    sizes = found.of("effective_sample_size", stage=found.latest, K=found.last).values()
    few = [spoken(size, 1) for size in sizes if found.are_few(size)]
    far = f"; the effective sample size is {few[0]} there, far from theory's limit" if few else ""
    return f"{word}, in one training: {change}{far}" if change else ""


def _change(found: Found) -> tuple[str, str]:
    """Whether, and for which unbiased estimators, the most samples lower the ratio at the latest
    stage; and what they do to those of all. Both "" where the plain estimator's is not known."""
    stage = found.latest
    here = {"stage": stage, "K": found.last}
    changes = found.of("signal_to_noise_change", "estimator", "reference_K", **here)
    first = min((least for _, least in changes), default=0)
    compared = claims({name: change for (name, _), change in changes.items()}, equal=1)
    if REFERENCE not in {claim.subject for claim in compared}:
        return "", ""
    biased = {name for (name,) in found.of("relative_bias", "estimator", stage=stage)}
    words = {TRAILS: "yes for", BEATS: "no for", UNDECIDED: "undecided for"}
    unbiased = [claim for claim in compared if claim.subject not in biased]
    word = grouped(((c.verdict, f"`{found.labels[c.subject]}`") for c in unbiased), words)
    named = [
        replace(
            claim,
            subject=found.labels[claim.subject],
            note=", of its own, biased mean" if claim.subject in biased else "",
        )
        for claim in compared
    ]
    phrases = ("rises for", "falls for", "is undecided for")
    where = found.printed["stage"][stage]
    return word, (
        f"at {where}, from K = {first} to {found.last}, the signal-to-noise ratio (numbers: last ÷ "
        f"first) {sentence(named, *phrases)}"
    )


def _table(found: Found) -> Table:
    last, labels = found.last, found.labels
    entries: dict[Column, Mapping[tuple, object]] = {
        Column(f"ratio at K = {K}"): found.of("signal_to_noise", *KEYS, K=K)
        for K in dict.fromkeys((int(found.rows.K.min()), found.beyond, last))
    }
    over = Column(f"at K = {last} over {labels.get(REFERENCE, REFERENCE)}'s")
    entries[over] = found.of("signal_to_noise_ratio", *KEYS, K=last)
    for least in sorted({K for _, _, K in found.exponents}):
        column = Column(f"exponent from K = {least} on", sign=True)
        entries[column] = {(s, n): e for (s, n, K), e in found.exponents.items() if least == K}
    entries[Column("theory's limit")] = {
        key: FRACTIONS[THEORY[key[1]]] for key in found.beside_theory
    }
    entries[Column(f"relative bias at K = {last}")] = found.of("relative_bias", *KEYS, K=last)
    caption = f"Signal-to-noise ratio of one example's encoder gradient of L_K, {title(VARIANT)}."
    return table("multi_sample", caption, found.printed, KEYS, entries)


def _figure(found: Found) -> Figure | None:
    ratios = select(found.rows, metric="signal_to_noise")
    frame = for_chart(ratios, found.printed, "K")
    if frame.empty:
        return None
    frame = frame.assign(theory=_theory(frame, found))
    across = amount_axis("K", "samples K", frame.K)
    ticks = [m * 10.0**power for power in range(-4, 4) for m in (1, 2, 5)]
    scale = alt.Scale(type="log", domain=[0.8 * frame.low.min(), 1.25 * frame.high.max()])
    up = alt.Y("value:Q", title="signal-to-noise ratio", scale=scale, axis=axis_at(ticks))
    chart = estimators.lines(frame, across, up, found.labels, width=400, height=340)
    guides = alt.Chart(frame).mark_line(clip=True, strokeWidth=1.5)
    guides = guides.transform_filter("isValid(datum.theory)").encode(
        x=across, y=alt.Y("theory:Q", scale=scale), color=chart.layer[0].encoding.color
    )
    guides = guides.encode(strokeDash=alt.value([2, 3]))
    chart = panels(guides + chart, "stage", [*found.printed["stage"].values()])
    last = frame[frame.K.max() == frame.K]
    seen = (
        f"{stage}, {estimators.ranking(rows)}" for stage, rows in last.groupby("stage", sort=False)
    )
    values = {"last": found.last, "seen": ". ".join(seen)}
    return captioned(__file__, "multi_sample", chart, ("estimator", "stage"), **values)


def _theory(frame: pd.DataFrame, found: Found) -> pd.Series:
    """Theory's power of K through each estimator's point at the K that it is fitted from."""
    powers = {found.labels[name]: power for name, power in THEORY.items() if name in found.labels}
    start = frame[found.beyond == frame.K].set_index(["stage", "estimator"]).value
    at = pd.MultiIndex.from_frame(frame[["stage", "estimator"]])
    steps = (frame.K.astype(float) / found.beyond).to_numpy()
    along = start.reindex(at).to_numpy() * steps ** frame.estimator.map(powers).to_numpy(float)
    return pd.Series(along, index=frame.index).where(found.beyond <= frame.K).round(4)
