"""Two folders of results compared: what changed beyond noise.

Every metric that both hold, at the same settings, with two seeds or more each is compared variant
by variant: seed by seed where both folders are of the same data and configuration, else by
Welch's t-test. What was chosen on validation (learning rates, hyperparameters) is no setting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace

import pandas as pd

from bench.config import Run
from bench.errors import BenchError, nearest
from bench.grid import FAILURE, TUNING
from bench.report.claims import BEATS, TRAILS, Claim, claims, sentence, sentence_case
from bench.report.results import FREE, Results
from bench.report.rows import SETTINGS
from bench.report.style import ordered, title, words
from bench.report.table import DASH, PAGE_LINES, Column, Table
from bench.statistics import Estimate, interval, welch_difference

METRICS = {"headline": ("elbo", "iw_bound", "distortion", "rate")}
"""Of a question whose other metrics follow from these; an autoencoder's distortion is its
cross-entropy. Of any other question all are compared."""
TIMED = ("s", "µs", "µs/image", "µs/sample")
TIMED_METRICS = ("step_time_ratio", "efficiency", "elapsed")
"""Units and metrics of time, which no two machines share."""
ROUNDING = 2e-6
"""Relative; rows are stored with eight digits, and computed in float32."""
SPOKEN = 10
"""As many changes are listed in the sentence; the table has them all."""

Key = tuple[str, str, tuple[tuple[str, object], ...]]
"""Variant, metric and settings of a value."""


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        differ: how the folders were made differently, a line each.
        paired: whether values were compared seed by seed.
        table: a line each variant, metric and setting; of more than a page those that changed.
        sentence: what changed beyond noise.
        changed: whether anything did.
    """

    differ: list[str]
    paired: bool
    table: Table
    sentence: str
    changed: bool


def compare(one: Results, other: Results, question: str = "headline") -> Comparison:
    """Compare `other` with `one`. Verdicts hold together over all of the question (Holm).

    Raises BenchError where there is nothing to compare, or their data are others.
    """
    data = {results.environment.get("config", {}).get("dataset") for results in (one, other)}
    if len(data - {None}) > 1:
        raise BenchError(
            f"{one.folder} and {other.folder} are of different data ({', '.join(sorted(data))}), "
            "whose nats do not compare: name two folders of one data set"
        )
    made = [_made(results) for results in (one, other)]
    paired = bool(made[0]) and not _differing(_configuration(one), _configuration(other))
    values = [_values(results, question) for results in (one, other)]
    differences = {
        key: difference
        for key in values[0]
        if key in values[1] and (difference := _difference(values[0][key], values[1][key], paired))
    }
    if not differences:
        raise _nothing_of(question, one, other)
    found = claims(differences)
    differ = [f"{name}: {_told(a)} | {_told(b)}" for name, (a, b) in _differing(*made).items()]
    differ += [f"{name} in one of them alone" for name in _alone(*values)]
    changed = [claim for claim in found if claim.decided]
    table = _table(question, found if len(found) <= PAGE_LINES else changed, *values)
    return Comparison(differ, paired, table, _said(changed, len(found)), bool(changed))


def _values(results: Results, question: str) -> dict[Key, pd.Series]:
    """The question's values by seed, those of time left out."""
    rows = results.of(question)
    rows = rows[~rows.question.isin((TUNING, FAILURE))]  # of choices, not of what was measured
    timed = rows.unit.isin(TIMED) | rows.metric.isin(TIMED_METRICS)
    rows = rows[~timed & rows.value.notna() & rows.metric.isin(METRICS.get(question, rows.metric))]
    settings = [c for c in SETTINGS if c != "learning_rate" and rows[c].notna().any()]
    told = zip(*(rows[c] for c in settings)) if settings else [()] * len(rows)
    keys = [
        tuple((name, value) for name, value in zip(settings, line) if not pd.isna(value))
        for line in told
    ]
    by_seed: dict[Key, dict[int, float]] = {}
    for variant, metric, key, seed, value in zip(
        rows.variant, rows.metric, keys, rows.seed, rows.value, strict=True
    ):
        by_seed.setdefault((variant, metric, key), {})[seed] = value
    return {key: pd.Series(values) for key, values in by_seed.items()}


def _difference(one: pd.Series, other: pd.Series, paired: bool) -> Estimate | None:
    """`other` − `one`; 0 where it is no more than rounding; None where seeds are too few."""
    each = (other - one).dropna()
    if paired and len(each) > 1:
        found = interval(each)
    elif min(len(one), len(other)) > 1:
        found = welch_difference(other, one)
    else:
        return None
    largest = max(abs(one.mean()), abs(other.mean()))
    return replace(found, mean=0.0) if abs(found.mean) <= ROUNDING * largest else found


# --- how they were made ----------------------------------------------------------------------


def _configuration(results: Results) -> Mapping[str, object]:
    """What must be the same for values to be compared seed by seed."""
    config = results.environment.get("config", {})
    return {name: value for name, value in config.items() if name not in FREE}


def _made(results: Results) -> dict[str, object]:
    """Where, by what and how they were made; {} where that is unknown."""
    environment = results.environment
    if not environment:
        return {}
    commits = dict.fromkeys(str(run.get("commit")) for run in environment["runs"])
    return {
        "commit": ", ".join(commits),
        "device": results.device,
        "processor": environment.get("gpu") or environment.get("cpu"),
        "torch": environment.get("packages", {}).get("torch"),
        "seeds": environment["config"].get("seeds"),
        **_configuration(results),
    }


def _differing(one: Mapping, other: Mapping) -> dict[str, tuple[object, object]]:
    """Name → its two values, where they are not equal."""
    defaults = {field.name: field.default for field in fields(Run) if field.default is not MISSING}
    # an option not given is its default, but for the former protocol, which had others
    known = [(defaults if "learning_rate" in made else {}) | dict(made) for made in (one, other)]
    names = dict.fromkeys([*one, *other])
    pairs = {name: tuple(made.get(name, "unknown") for made in known) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _told(value: object) -> str:
    """As one types it, a fingerprint by its beginning."""
    return "auto" if value is None else f"{value!s:.40}"


def _alone(one: Mapping[Key, pd.Series], other: Mapping[Key, pd.Series]) -> Iterator[str]:
    """Variants of one folder alone, then metrics."""
    for place in (0, 1):
        yield from sorted({key[place] for key in one} ^ {key[place] for key in other})


def _nothing_of(question: str, one: Results, other: Results) -> BenchError:
    """What to say where a question's values cannot be compared."""
    held = [set(results.rows.question) - {TUNING, FAILURE} for results in (one, other)]
    if question not in held[0] | held[1] | {TUNING}:
        return nearest("question", question, sorted(held[0] | held[1]))
    shared = [name for name in sorted(held[0] & held[1]) if _comparable(name, one, other)]
    remedy = (
        f"name one of both with --question ({', '.join(shared)})" if shared else "nor any other"
    )
    return BenchError(
        f"{one.folder} and {other.folder} have no values of '{question}' in common with two seeds "
        f"each: {remedy}"
    )


def _comparable(question: str, one: Results, other: Results) -> bool:
    """Whether two folders have a value of it in common with two seeds each."""
    a, b = (_values(results, question) for results in (one, other))
    return any(_difference(a[key], b[key], False) for key in a if key in b)


# --- what is said ----------------------------------------------------------------------------


def _table(
    question: str,
    found: list[Claim],
    one: Mapping[Key, pd.Series],
    other: Mapping[Key, pd.Series],
) -> Table:
    digits = 2 if question in METRICS else None
    columns = [
        "metric",
        "variant",
        *(Column(name, digits, interval=False) for name in "AB"),
        Column("B − A", digits, sign=True),
        "verdict",
    ]
    place = {variant: i for i, variant in enumerate(ordered({c.subject[0] for c in found}))}
    lines = [
        [
            _measured(claim.subject),
            title(claim.subject[0]),
            float(one[claim.subject].mean()),
            float(other[claim.subject].mean()),
            claim.difference,
            {BEATS: "higher", TRAILS: "lower"}.get(claim.verdict, DASH),
        ]
        for claim in sorted(found, key=lambda c: (c.subject[1:], place[c.subject[0]]))
    ]
    return Table("comparison", columns, lines)


def _measured(key: Key) -> str:
    """`iw_bound K 1000`."""
    _, metric, settings = key
    return f"{metric} {', '.join(f'{words(name)} {value}' for name, value in settings)}".strip()


def _said(changed: list[Claim], compared: int) -> str:
    """What changed beyond noise, in one sentence."""
    counted = f"{len(changed) or 'none'} of {compared} comparisons changed beyond noise"
    if 0 < len(changed) <= SPOKEN:
        named = [
            replace(claim, subject=f"{_measured(claim.subject)} of {title(claim.subject[0])}")
            for claim in changed
        ]
        counted += ": " + sentence(named, "higher in B", "lower in B", "")
    return sentence_case(counted)
