"""A claim is a comparison with its interval and its verdict; every sentence is made of claims."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.report.table import spoken
from bench.statistics import Estimate, holm, interval, p_value

BEATS, TRAILS, EQUAL, UNDECIDED = "beats", "trails", "equal", "undecided"


@dataclass(frozen=True)
class Claim:
    """A subject compared with a reference.

    Attributes:
        subject: what is compared, as it is printed.
        difference: subject − reference, or ÷, with its 95 % interval.
        verdict: `beats`, `trails` or `undecided`; those of one table hold together (family-wise
            95 %, Holm 1979), so a single interval may exclude no difference and its verdict be
            undecided. `equal` is that comparison's own, outside Holm: its whole interval lies
            within a tolerance, whatever its sign.
        equal: the difference of equals: 0, or of a ratio 1.
        note: what a sentence adds to the number.
    """

    subject: Hashable
    difference: Estimate
    verdict: str
    equal: float = 0
    note: str = ""

    def spoken(self, digits: int | None = 2, sign: bool = False) -> str:
        """The difference in a sentence: its size alone where the verdict says the sign."""
        sign = not self.equal and (sign or self.verdict not in (BEATS, TRAILS))
        size = self.difference if sign else replace(self.difference, mean=abs(self.difference.mean))
        return spoken(size, digits, sign=sign) + self.note

    @property
    def decided(self) -> bool:
        return self.verdict != UNDECIDED


def claims(
    differences: Mapping[Hashable, Sequence[float] | Estimate],
    higher_is_better: bool = True,
    equal: float = 0,
    tolerance: float = 0,
) -> list[Claim]:
    """One claim a subject, from its paired differences to the reference (one a seed) or their mean.

    Verdicts hold together (Holm). A difference that is the same in every seed is certain, one of a
    single seed undecided. Of ratios, `equal` is 1.

    Within a `tolerance` (0: none) the verdict is `equal` instead, which each comparison has by
    itself: a difference larger than that is called so with probability 2.5 % at most (two
    one-sided t-tests, Schuirmann 1987), but one of several may be with more.
    """
    found = {s: d if isinstance(d, Estimate) else interval(d) for s, d in differences.items()}
    found = {subject: difference for subject, difference in found.items() if difference}
    sure = holm([p_value(replace(d, mean=d.mean - equal)) for d in found.values()])
    good, bad = (BEATS, TRAILS) if higher_is_better else (TRAILS, BEATS)
    verdicts = [
        (good if d.mean > equal else bad) if told else UNDECIDED
        for d, told in zip(found.values(), sure, strict=True)
    ]
    alike = (abs(d.mean - equal) + d.half_width <= tolerance for d in found.values())
    return [
        Claim(subject, d, EQUAL if tolerance and same else verdict, equal)
        for (subject, d), verdict, same in zip(found.items(), verdicts, alike, strict=True)
    ]


def signs(differences: Mapping[Hashable, Estimate]) -> dict[Hashable, int]:
    """1 or −1 where a difference is told from zero, else 0; all of them hold together."""
    sign = {BEATS: 1, TRAILS: -1, UNDECIDED: 0}
    return {claim.subject: sign[claim.verdict] for claim in claims(differences)}


def sentence(
    found: Sequence[Claim],
    beats: str,
    trails: str,
    undecided: str,
    digits: int | None = 2,
    sign: bool = False,
    every: str = "",
    alike: str = "equal to",
) -> str:
    """Claims grouped by verdict, from phrases that end where the subjects are listed.

    With a name of `every` subject, those that all have one verdict are its range.

    `sentence(found, "beaten by", "above", "undecided against")` gives
    `beaten by \\`flow\\` (0.86 ± 0.25); undecided against \\`full-covariance\\` (−0.01 ± 0.20)`.
    """
    phrases = {BEATS: beats, TRAILS: trails, EQUAL: alike, UNDECIDED: undecided}
    for verdict in phrases:
        if all(claim.difference.n == 1 for claim in found if claim.verdict == verdict):
            phrases[verdict] += " (one seed)"
    said = [(c.verdict, f"`{c.subject}` ({c.spoken(digits, sign)})") for c in found]
    if every and len(found) > 1 and len({claim.verdict for claim in found}) == 1:
        low, *_, high = sorted(found, key=lambda claim: claim.difference.mean)
        said = [
            (low.verdict, f"{every} ({low.spoken(digits, sign)} to {high.spoken(digits, sign)})")
        ]
    return grouped(said, phrases)


def grouped(said: Iterable[tuple[str, str]], phrases: Mapping[str, str]) -> str:
    """`phrase a, b and c; phrase d` from pairs of a verdict and what has it."""
    said = list(said)
    groups = {v: [text for its, text in said if its == v] for v in phrases}
    return "; ".join(f"{phrases[v]} {listing(group)}" for v, group in groups.items() if group)


def listing(items: Iterable[str]) -> str:
    """`a, b and c`."""
    *others, last = [*items] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def sentence_case(text: str) -> str:
    """A sentence of these words: a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""
