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
    it is the noise's and what the KL's, and what is told on the longest list. Also the answer in a
    few words.
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
        measured = {
            "gap": select(common, metric="cross_entropy_gap", stage="end"),
            "test": select(common, metric="test_cross_entropy", stage="end"),
            "stopped": select(common, metric="test_cross_entropy", stage="best"),
        }
        chains = {v: chain(fewest, plain, v) for v in ordered(set(fewest.variant)) if v != plain}
        steps = {(v, *what): e for v, found in chains.items() for what, e in found.items()}
        # one family: what the table is read for
        told = claims(against(plain, measured) | steps, higher_is_better=False)
        compared = [claim for claim in told if len(claim.subject) == 2]
        if compared:
            of = {quantity: of_quantity(compared, quantity) for quantity in measured}
            unturned = f" ({last})" if (last := _last_by_kind(fewest, plain)) else ""
            sentences += [
                f"Against the `{title(plain)}`'s, at the mean code, the gap is "
                f"{claimed(of['gap'], 'smaller', 'larger')}.",
                f"The test cross-entropy itself is {claimed(of['test'], 'lower', 'higher')}; with "
                f"all stopped early{unturned} it is "
                f"{claimed(of['stopped'], 'lower', 'higher')}.",
            ]
        parts = {c.subject: c for c in told if len(c.subject) == 3}
        sentences += [_of_chain(fewest, v, parts) for v, found in chains.items() if found]
        said, counted = _of_longest(staged, plain)
        sentences.append(said)
        claim = positive[plain]
        verdict = "yes" if claim.verdict == BEATS else "no" if claim.decided else "undecided"
        answer = f"{verdict}: its gap (test − train cross-entropy) with {images} is {own} nats"
        if verdict == "yes" and not turn.startswith(SAVED):
            answer = f"gap of {own} nats with {images}, but {turn}"
        answer += "".join(f"; {text}" for text in more)
        added = [
            f"for {title(v)} {_part(parts[v, 'noise', 'gap'])} and {_part(parts[v, 'KL', 'gap'])}"
            for v in (v for v, found in chains.items() if found)
        ]
        if added:
            few = f"{fewest.images.min():,} images"
            answer += (
                f"; added to the gap with {few} by {STEPS['noise']} and then by {STEPS['KL']}: "
                f"{'; '.join(added)}"
            )
        if compared:
            few = f"with {fewest.images.min():,} images"
            early = f"{_counts(of['stopped'])} {few} when all are stopped early; "
            at_end = ", and ".join([f"{_counts(of['test'])} {few}", *counted])
            answer += (
                f"; the VAEs' test cross-entropy, against the {title(plain)}'s, is "
                f"{early if of['stopped'] else ''}at the last step {at_end}"
            )
    if not sentences:
        known = f"{spoken_of(gaps)} nats" if gaps else "unknown at the mean code"
        sentences = [f"Test − train cross-entropy with {images}: {known}."]
    return points(*sentences), answer


def _of_longest(staged: pd.DataFrame, plain: str) -> tuple[str, list[str]]:
    """The paired differences to `plain` on the longest list, a family of their own, as a sentence
    and counted; of one list alone nothing more."""
    most = staged.images.max()
    longest = select(staged[staged.images == most], code="mean", kl_weight=1, stage="end")
    names = {"gap": "cross_entropy_gap", "test": "test_cross_entropy"}
    measured = {name: select(longest, metric=metric) for name, metric in names.items()}
    told = claims(against(plain, measured), higher_is_better=False)
    if most == staged.images.min() or not told:
        return "", []
    gap, test = (of_quantity(told, name) for name in names)
    text = (
        f"With {most:,} images ({longest.steps.max():,} steps) the gap is "
        f"{claimed(gap, 'smaller', 'larger')}; the test cross-entropy is "
        f"{claimed(test, 'lower', 'higher')}."
    )
    return text, [f"{_counts(test)} with {most:,} images"]


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
        f"Step by step from the autoencoder to `{title(variant)}`, to the gap and the test "
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
