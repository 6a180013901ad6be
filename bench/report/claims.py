"""A claim is a comparison with its interval and its verdict; every sentence is made of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.report.table import spoken
from bench.statistics import Estimate, holm, interval, p_value

BEATS, TRAILS, UNDECIDED = "beats", "trails", "undecided"


@dataclass(frozen=True)
class Claim:
    """A subject compared with a reference.

    Attributes:
        subject: what is compared, as it is printed.
        difference: subject − reference, with its 95 % interval.
        verdict: `beats`, `trails` or `undecided`; those of one table hold together (family-wise
            95 %, Holm 1979), so a single interval may exclude zero and its verdict be undecided.
    """

    subject: str
    difference: Estimate
    verdict: str

    @property
    def size(self) -> Estimate:
        """How large the difference is, whatever its sign."""
        return replace(self.difference, mean=abs(self.difference.mean))

    @property
    def decided(self) -> bool:
        return self.verdict != UNDECIDED


def claims(
    differences: Mapping[str, Sequence[float] | Estimate], higher_is_better: bool = True
) -> list[Claim]:
    """One claim a subject, from its paired differences to the reference (one a seed) or their mean.

    Verdicts hold together. A difference that is the same in every seed is certain, one of a single
    seed undecided.
    """
    found = {s: d if isinstance(d, Estimate) else interval(d) for s, d in differences.items()}
    found = {subject: difference for subject, difference in found.items() if difference}
    decided = holm([p_value(difference) for difference in found.values()])
    return [
        Claim(subject, difference, _verdict(difference, sure, higher_is_better))
        for (subject, difference), sure in zip(found.items(), decided, strict=True)
    ]


def _verdict(difference: Estimate, sure: bool, higher_is_better: bool) -> str:
    if not sure:
        return UNDECIDED
    return BEATS if (difference.mean > 0) == higher_is_better else TRAILS


def sentence(
    found: Sequence[Claim],
    beats: str,
    trails: str,
    undecided: str,
    digits: int = 2,
    sign: bool = False,
) -> str:
    """Claims grouped by verdict, from three phrases that end where the subjects are listed.

    `sentence(found, "beaten by", "above", "undecided against")` gives
    `beaten by \\`flow\\` (0.86 ± 0.25); undecided against \\`full-covariance\\` (−0.01 ± 0.20)`.
    """
    parts = []
    for verdict, phrase in ((BEATS, beats), (TRAILS, trails), (UNDECIDED, undecided)):
        group = [claim for claim in found if claim.verdict == verdict]
        if not group:
            continue
        plain = verdict == UNDECIDED or sign
        listed = [
            f"`{c.subject}` ({spoken(c.difference if plain else c.size, digits, sign=plain)})"
            for c in group
        ]
        one_seed = " (one seed)" if all(c.difference.n == 1 for c in group) else ""
        parts.append(f"{phrase}{one_seed} {listing(listed)}")
    return "; ".join(parts)


def listing(items: Sequence[str]) -> str:
    """`a, b and c`."""
    items = list(items)
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def sentence_case(text: str) -> str:
    """A sentence of these words: a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""
