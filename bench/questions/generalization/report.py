"""Does the autoencoder overfit, and does the prior help? Gaps, curves, perturbed codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from bench.questions.generalization import perturbed
from bench.questions.generalization.paired import against, claimed, of_quantity, spoken_of
from bench.report import figure as draw
from bench.report.claims import BEATS, TRAILS, UNDECIDED, Claim, claims, listing
from bench.report.figure import Figure
from bench.report.results import Results
from bench.report.rows import select
from bench.report.section import Section, captioned, points, prose
from bench.report.style import in_order, ordered, title
from bench.report.table import Column, Table, spoken
from bench.statistics import Estimate, interval, paired_difference, summary

QUESTION = "generalization"
COLUMNS = {
    "train_cross_entropy end mean": Column("train, end", 1),
    "test_cross_entropy end mean": Column("test, end", 1, best="min"),
    "cross_entropy_gap end mean": Column("gap, end", 1, best="min"),
    "test_cross_entropy best mean": Column("test, best epoch", 1, best="min"),
    "cross_entropy_gap best mean": Column("gap, best epoch", 1, best="min"),
    "test_cross_entropy end sampled": Column("test, end, sampled code", 1),
    "cross_entropy_gap end sampled": Column("gap, end, sampled code", 1),
    "elbo_gap end sampled": Column("ELBO gap, end", 1),
    "best_step": Column("best at step", 0, interval=False),
    "learning_rate": Column("learning rate", exact=True),
    "code_to_noise end": Column("codes ÷ noise", 1),
}
NO_KL = " without KL"
SAVED = "stopping at the best epoch would have lowered the test cross-entropy by"
NO_TURN = 0.05
"""Nats: saved by early stopping no more than this, interval and all, is no turn."""
STEPS = {
    "noise": "noise on the code, without the KL,",
    "KL": "the KL on top of it",
    "sampled": "a sampled code in place of the mean",
}
"""What is added, one after another, from an autoencoder to a VAE as it is evaluated."""
QUANTITIES = {
    "gap": ("cross_entropy_gap", "end"),
    "test": ("test_cross_entropy", "end"),
    "gap, stopped": ("cross_entropy_gap", "best"),
    "test, stopped": ("test_cross_entropy", "best"),
}
"""What is compared with an autoencoder's: metric and stage."""
CROSS_ENTROPY = "cross-entropy (nats per image)"


def sections(results: Results) -> list[Section]:
    """Two sections, of overfitting and of perturbed codes; [] where nothing was measured."""
    rows = results.of(QUESTION)
    staged, found = arms(rows), []
    bounded = set(select(rows, metric="elbo_gap").variant)
    plain = [variant for variant in results.variants(rows) if variant not in bounded]
    if len(staged):
        asked = "Does the autoencoder overfit, and does the prior help?"
        figures = [_gap_figure(staged), _curves_figure(results, staged)]
        said, notes = overfitting_takeaway(staged, plain), prose(__file__, no_turn=NO_TURN)
        found.append(Section(asked, *said, [_gaps_table(staged)], figures, notes))
    return found + perturbed.sections(results, plain)


def arms(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of trainings, with columns `training` and `arm`: the variant, and whether it was
    trained without the KL. An autoencoder's only code, and only objective, is that of its arm."""
    staged = rows[rows.images.notna() & rows.steps.notna()].fillna({"kl_weight": 1.0})
    staged = in_order(staged, "images", "steps", "variant")
    bounded = staged.variant.isin(set(select(staged, metric="elbo_gap").variant))
    code = staged.code.fillna(pd.Series(np.where(bounded, "sampled", "mean"), staged.index))
    arm = staged.variant.map(title) + np.where(staged.kl_weight == 0, NO_KL, "")
    amounts = zip(staged.images, staged.steps)
    training = [f"{n:,} training images, {steps:,} steps" for n, steps in amounts]
    return staged.assign(code=code, arm=arm, training=training)


# --- overfitting -----------------------------------------------------------------------------


def overfitting_takeaway(staged: pd.DataFrame, plain_ones: list[str]) -> tuple[str, str]:
    """The gap on the shortest list without and with a prior, what it does to test images, what of
    it is the noise's and what the KL's, and what of it is told on the longer lists. Also the answer
    in a few words.
    """
    fewest = staged[staged.images == staged.images.min()]
    images = f"{fewest.images.min():,} training images"
    common = select(fewest, code="mean", kl_weight=1)
    gaps = summary(select(common, metric="cross_entropy_gap", stage="end"), "variant")
    sentences, answer = [], ""
    plain_ones = [v for v in plain_ones if gaps.get(v)]
    # one family each: the gaps, and what stopping early would have saved
    positive = {c.subject: c for c in claims({v: gaps[v] for v in plain_ones})}
    stopped = early_stopping(staged, plain_ones)
    for plain in plain_ones:
        own, turns = spoken(gaps[plain], 1), stopped.get(plain, {})
        turn = turns.get(fewest.images.min(), "no turn was looked for")
        more = [f"with {n:,} images {said}" for n, said in turns.items() if said is not turn]
        sentences.append(
            f"With {images} the `{title(plain)}`'s test cross-entropy ends {own} nats above its "
            f"training one ({'; '.join([turn, *more])})."
        )
        first, *longer = _lists(staged, plain, turns)
        sentences += first.compared(f"Against the `{title(plain)}`'s, at the last step, ")
        sentences += first.step_by_step("Step by step")
        for one in longer:
            sentences += one.compared(f"With {one.size} ({one.steps:,} steps) ")
            sentences += one.step_by_step(f"With {one.size}, step by step")
        claim = positive[plain]
        verdict = "yes" if claim.verdict == BEATS else "no" if claim.decided else "undecided"
        length = f"{images} ({first.steps:,} steps)"
        answer = f"{verdict}: its gap (test − train cross-entropy) with {length} is {own} nats"
        if verdict == "yes" and not turn.startswith(SAVED):
            answer = f"gap of {own} nats with {images}, but {turn}"
        answer += "".join(f"; {text}" for text in more)
        if first.chains:
            parts = first.parts
            added = [
                f"for {title(v)} {_part(parts[v, 'noise', 'gap'])} and "
                f"{_part(parts[v, 'KL', 'gap'])}"
                for v in first.chains
            ]
            answer += (
                f"; added to the gap with {first.size} by {STEPS['noise']} and then by "
                f"{STEPS['KL']}: {'; '.join(added)}"
            )
        answer += _counted([first, *longer], plain)
    if not sentences:
        known = f"{spoken_of(gaps)} nats" if gaps else "unknown at the mean code"
        sentences = [f"Test − train cross-entropy with {images}: {known}."]
    return points(*sentences), answer


def _lists(staged: pd.DataFrame, plain: str, turns: Mapping[int, str]) -> list[_List]:
    """Every list of training images, the shortest first; early stopping is compared on it, and
    wherever it would have helped an autoencoder."""
    shortest, *longer = sorted(set(staged.images))
    helped = {shortest, *(n for n in longer if turns.get(n, "").startswith(SAVED))}
    return [_List(staged[staged.images == n], plain, n in helped) for n in (shortest, *longer)]


class _List:
    """What is told of the trainings on one list of images, a family of verdicts of its own.

    Attributes:
        told: claims on (quantity, variant), differences to an autoencoder's.
        chains: variant → what it was made of, step by step.
        parts: (variant, what is added, quantity) → claim.
    """

    def __init__(self, rows: pd.DataFrame, plain: str, stopped: bool) -> None:
        self.rows, self.plain = rows, plain
        self.size, self.steps = f"{rows.images.min():,} images", rows.steps.max()
        common = select(rows, code="mean", kl_weight=1)
        measured = {
            name: select(common, metric=metric, stage=stage)
            for name, (metric, stage) in QUANTITIES.items()
            if stage == "end" or stopped
        }
        found = {v: chain(rows, plain, v) for v in ordered(set(rows.variant)) if v != plain}
        self.chains = {v: effects for v, effects in found.items() if effects}
        steps = {(v, *what): e for v, each in self.chains.items() for what, e in each.items()}
        claimed_here = claims(against(plain, measured) | steps, higher_is_better=False)
        self.told = [claim for claim in claimed_here if len(claim.subject) == 2]
        self.parts = {c.subject: c for c in claimed_here if len(c.subject) == 3}

    def of(self, quantity: str) -> list[Claim]:
        return of_quantity(self.told, quantity)

    def compared(self, lead: str) -> list[str]:
        """The gap and the test cross-entropy against an autoencoder's, also with all stopped."""
        if not self.told:
            return []
        unturned = f" ({last})" if (last := _last_by_kind(self.rows, self.plain)) else ""
        gap = f"the gap is {claimed(self.of('gap'), 'smaller', 'larger')}"
        test = f"is {claimed(self.of('test'), 'lower', 'higher')}"
        if early := claimed(self.of("gap, stopped"), "smaller", "larger"):
            gap += f"; with all stopped early{unturned} it is {early}"
        if early := claimed(self.of("test, stopped"), "lower", "higher"):
            test += f"; with all stopped early it is {early}"
        return [f"{lead}{gap}. The test cross-entropy itself {test}."]

    def step_by_step(self, lead: str) -> list[str]:
        """What noise, KL and a sampled code add, and how far the codes outgrow the noise."""
        return [f"{lead} {_of_chain(self.rows, variant, self.parts)}" for variant in self.chains]


def _counted(lists: Sequence[_List], plain: str) -> str:
    """For how many VAEs the test cross-entropy is lower than an autoencoder's, list by list."""
    early = [
        f"{_counts(found)} with {one.size}" for one in lists if (found := one.of("test, stopped"))
    ]
    at_end = [f"{_counts(found)} with {one.size}" for one in lists if (found := one.of("test"))]
    said = [f"{', and '.join(early)} when all are stopped early"] * bool(early)
    said += [f"at the last step {', and '.join(at_end)}"] * bool(at_end)
    lead = f"; the VAEs' test cross-entropy, against the {title(plain)}'s, is "
    return f"{lead}{'; '.join(said)}" if said else ""


def _counts(found: list[Claim]) -> str:
    """`lower for 4 and undecided for 1 of 5`, by test cross-entropy."""
    words = {BEATS: "lower", TRAILS: "higher", UNDECIDED: "undecided"}
    counts = {word: sum(c.verdict == verdict for c in found) for verdict, word in words.items()}
    said = listing(f"{word} for {count}" for word, count in counts.items() if count)
    return f"{said} of {len(found)}"


def chain(fewest: pd.DataFrame, plain: str, variant: str) -> dict[tuple[str, str], Estimate]:
    """(what is added, quantity) → its paired effect, from `plain` to a variant as it is evaluated;
    {} where the variant was not trained without the KL."""
    path = [(plain, 1, "mean"), (variant, 0, "mean"), (variant, 1, "mean"), (variant, 1, "sampled")]
    quantities = {"gap": "cross_entropy_gap", "test": "test_cross_entropy"}
    found = {}
    for quantity, metric in quantities.items():
        rows = select(fewest, metric=metric, stage="end")
        values = [
            select(rows, variant=name, kl_weight=weight, code=code).set_index("seed").value
            for name, weight, code in path
        ]
        for what, before, after in zip(STEPS, values, values[1:]):
            found[what, quantity] = interval((after - before).dropna())
    return found if all(found.values()) else {}


def _of_chain(fewest: pd.DataFrame, variant: str, parts: Mapping[tuple, Claim]) -> str:
    """What noise, KL and a sampled code add, and how far the codes outgrow the noise."""
    added = [
        f"{text} adds {_part(parts[variant, what, 'gap'])} and "
        f"{_part(parts[variant, what, 'test'])}"
        for what, text in STEPS.items()
    ]
    ratio = select(fewest, metric="code_to_noise", stage="end", variant=variant)
    sizes = [spoken(interval(select(ratio, kl_weight=w).value), 1) for w in (0, 1)]
    return (
        f"from the autoencoder to `{title(variant)}`, to the gap and the test "
        f"cross-entropy: {'; '.join(added)} nats. Its codes are {sizes[0]} times as large as the "
        f"noise without the KL, {sizes[1]} times with it."
    )


def _part(claim: Claim) -> str:
    return spoken(claim.difference, 1, sign=True) + ("" if claim.decided else " (undecided)")


def overtraining(fewest: pd.DataFrame, variant: str) -> Estimate:
    """Test cross-entropy at the end minus at the best epoch: what early stopping would save."""
    mine = select(fewest, metric="test_cross_entropy", variant=variant, code="mean")
    return paired_difference(mine, "end", "best", by="stage")


def early_stopping(staged: pd.DataFrame, variants: Sequence[str]) -> dict[str, dict[int, str]]:
    """Variant → images → whether the test cross-entropy turned up within the steps, in words, and
    how many runs had not begun to overfit: whose best step, by validation, is the last."""
    lists = dict([*select(staged, variant=[*variants], kl_weight=1).groupby(["variant", "images"])])
    saved = {key: overtraining(rows, key[0]) for key, rows in lists.items()}
    found: dict[str, dict[int, str]] = {}
    for claim in claims(saved):
        (variant, images), regret = claim.subject, claim.difference
        rows = lists[variant, images]
        steps, unturned = f"{rows.steps.max():,} steps", _best_at_the_last(rows)
        if claim.verdict == BEATS:
            text = f"{SAVED} {spoken(regret, 1)}"
        elif regret.high <= NO_TURN:
            text = f"no turn of the test cross-entropy within {steps}"
        else:
            text = f"a turn within {steps} is undecided: {spoken(regret, 1, sign=True)} nats"
        found.setdefault(variant, {})[images] = text + f", {unturned}" * bool(unturned)
    return found


def _best_at_the_last(rows: pd.DataFrame) -> str:
    """How many runs had not begun to overfit; "" for none."""
    best = select(rows, metric="best_epoch", kl_weight=1)
    last = int((best.value == best.n).sum())
    return f"{last} of {len(best)} runs being best at the last step" if last else ""


def _last_by_kind(rows: pd.DataFrame, plain: str) -> str:
    """The same of VAEs and of an autoencoder, each by itself; "" for none."""
    best = select(rows, metric="best_epoch", kl_weight=1)
    last, own = best.value == best.n, best.variant == plain
    if not last.any():
        return ""
    vaes = f"{last[~own].sum()} of {(~own).sum()} VAE runs"
    return f"{vaes} and {last[own].sum()} of {own.sum()} of `{title(plain)}` best at the last step"


def _gaps_table(staged: pd.DataFrame) -> Table:
    at = staged[["stage", "code"]].fillna("")
    code = np.where(staged.metric.str.contains("cross_entropy|elbo"), at.code, "")
    column = (staged.metric + " " + at.stage + " " + code).str.strip()
    best = staged.metric == "best_epoch"
    of_epoch = staged.steps.astype(float) / staged.n.astype(float)
    rows = staged.assign(
        column=column.mask(best, "best_step"),
        value=staged.value.where(~best, staged.value * of_epoch),
    )
    found = summary(rows, ["arm", "images", "steps", "column"])
    columns = {key: column for key, column in COLUMNS.items() if key in {*rows.column}}
    settings = ["variant", Column("images", 0), Column("steps", 0)]
    caption = "Cross-entropy of training and test images, at the mean code where nothing is said."
    # no contestants: what has no posterior, or was trained without the KL
    vaes = {title(v) for v in select(staged, metric="elbo_gap").variant}

    def contest(key: tuple) -> object:
        return key[1] if key[0] in vaes else None

    return Table.of_settings("generalization", settings, columns, found, caption, contest)


def _gap_figure(staged: pd.DataFrame) -> Figure | None:
    """The gap at the end, a panel each number of images."""
    ends = select(staged, metric="cross_entropy_gap", stage="end", code="mean")
    if ends.empty:
        return None
    ends = in_order(ends, "images", "steps", "variant")
    keys = ["variant", "arm", "training"]
    frame = draw.named(draw.as_frame(summary(ends, keys), *keys))
    names = [f"{title(v)}{end}" for v in ordered(ends.variant.unique()) for end in ("", NO_KL)]
    chart = draw.intervals(
        frame,
        ("value", "test − train cross-entropy (nats per image)"),
        alt.Y("arm:N", sort=names, title=None),
        draw.by_variant(ends.variant.unique()).legend(None),
        width=330,
        step=26,
    )
    chart = draw.panels(chart, "training", ends.training.unique(), columns=2)
    chart = chart.resolve_scale(x="independent", y="independent")
    gaps = _ranges(frame, "value")
    return captioned(__file__, "generalization", chart, ("training",), gaps=gaps)


def _ranges(frame: pd.DataFrame, column: str) -> str:
    """`1.2 to 3.4 nats with 250 training images, 1,500 steps; …`."""
    found = frame.groupby("training", sort=False)[column].agg(["min", "max"]).itertuples()
    return "; ".join(
        f"{low:.1f} to {high:.1f} nats with {training}" for training, low, high in found
    )


def _curves_figure(results: Results, staged: pd.DataFrame) -> Figure | None:
    """Cross-entropy against training steps, a panel each number of images."""
    lines, keys = [], ["training", "images", "variant"]
    for (training, size, variant), mine in staged.groupby(keys, sort=False):
        names = [f"{QUESTION}/{variant}/{seed}/curves_{size}" for seed in mine.seed.unique()]
        each = [results.pictures[name] for name in names if name in results.pictures]
        train, valid = np.mean(each, axis=0).T[:2] if each else [[]] * 2
        steps = np.arange(1, len(valid) + 1) * mine.steps.max() / max(len(valid), 1)
        lines += [
            (variant, training, split, step, round(value, 1))
            for split, values in {"validation": valid, "train": train}.items()
            for step, value in zip(steps, values)
        ]
    if not lines:
        return None
    frame = pd.DataFrame(lines, columns=["variant", "training", "split", "step", "cross-entropy"])
    chart = draw.curves(
        frame,
        ("step", "training steps"),
        ("cross-entropy", CROSS_ENTROPY),
        dash=alt.StrokeDash("split:N", scale=alt.Scale(domain=["validation", "train"]), title=None),
        width=300,
    )
    ends = frame[(frame.step == frame.step.max()) & (frame.split == "validation")]
    chart, filters = draw.panels(chart, "training", frame.training.unique()), ("training", "split")
    ends = _ranges(ends, "cross-entropy")
    return captioned(__file__, "generalization_curves", chart, filters, ends=ends)
