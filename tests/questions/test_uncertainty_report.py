"""The report of uncertainty: verdicts against made-up rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from bench.data.corruptions import LEVELS
from bench.questions.uncertainty import report
from bench.report import rows as tidy
from bench.report.results import Results
from bench.statistics import p_value

UP = pd.DataFrame({0.1: [0.2, -0.3], 0.2: [1.0, 2.0]})  # one seed's dip is not every seed's
DIP = pd.DataFrame({0.1: [-0.2, -0.3], 0.2: [1.0, 2.0]})


@pytest.mark.parametrize("sign", [1, -1])
def test_a_verdict_needs_rho_and_the_share_of_one_sign_and_no_dip(sign):
    kind = {1: "rises", -1: "falls"}[sign]
    assert report.verdict(sign, sign, sign * UP, flat=False) == kind
    assert report.verdict(sign, -sign, sign * UP, flat=False) == "turns"
    assert report.verdict(sign, sign, sign * DIP, flat=False) == "turns"
    assert report.verdict(sign, 0, sign * UP, flat=False) == "undecided"
    assert report.verdict(0, sign, sign * DIP, flat=False) == "undecided"
    assert report.verdict(0, 0, 0 * UP, flat=True) == "flat"


def seeds_of(*found: tuple[float, float, float]) -> pd.DataFrame:
    """Of each seed ρ, the half-width of its interval, and the share of 1000 images that rise."""
    lines = [(rho, rho - half, rho + half, share, 1000) for rho, half, share in found]
    names = ["spearman", "spearman_low", "spearman_high", "rises", "images"]
    return pd.DataFrame(lines, columns=names)


def test_what_is_tested_is_the_seed_that_shows_it_least():
    """ρ's standard error is its half-width over 1.96; a share of one half's 0.5/√1000."""
    tested = report.tested(seeds_of((0.3, 0.1, 0.8), (0.2, 0.1, 0.52), (0.9, 0.1, 1.0)))
    assert p_value(tested["ρ"]) == pytest.approx(2 * stats.norm.sf(2 * 1.96), rel=0.2)
    exact = stats.binomtest(520, 1000).pvalue
    assert p_value(tested["share"]) == pytest.approx(exact, rel=0.1)
    differing = report.tested(seeds_of((0.3, 0.1, 0.8), (-0.3, 0.1, 0.2)))
    assert [p_value(estimate) for estimate in differing.values()] == [1, 1]


def test_verdicts_of_the_table_hold_together(tmp_path: Path):
    """p = 0.01 in each seed is told of one line, but not of one among six and six flat (Holm)."""
    results = made_up(tmp_path)
    half = 0.9 * 1.96 / stats.norm.isf(0.005)
    unsure = (results.rows.corruption == "salt") & (results.rows.variant == "input_dependent")
    for end, shift in {"_low": -half, "_high": half}.items():
        at = unsure & (results.rows.metric == f"entropy_spearman{end}")
        results.rows.loc[at, "value"] = 0.9 + shift
    kinds = {}
    for name, corruptions in {"alone": ["none", "salt"], "all": ["none", *LEVELS]}.items():
        some = tidy.select(results.rows, corruption=corruptions)
        table = report.verdicts(report.printed(some)).set_index(["variant", "corruption"]).verdict
        kinds[name] = table["input_dependent", "salt"]
    assert kinds == {"alone": "rises", "all": "undecided"}


@pytest.mark.parametrize(
    ("encoder", "refitted", "difference", "expected"),
    [
        (1, 1, 0, "model"),
        (-1, -1, 1, "model"),
        (-1, 1, 1, "encoder"),
        (1, 0, -1, "encoder"),
        (1, 0, 0, "undecided"),
        (0, 1, 1, "missed"),
        (0, 1, 0, "undecided"),
        (0, 0, 0, "undecided"),
    ],
)
def test_where_a_change_comes_from(encoder, refitted, difference, expected):
    assert report.origin(encoder, refitted, difference) == expected


def made_up(folder: Path, seeds: int = 2, refitted: bool = True) -> Results:
    """One posterior whose entropy rises with every corruption, one that is flat."""
    lines = []

    def add(variant: str, seed: int, metric: str, value: float, **where: object) -> None:
        identity = {"dataset": "small", "device": "cpu", "variant": variant, "seed": seed}
        measured = {"metric": metric, "value": value, "standard_error": 0.1, "n": 100}
        where = {"trained_on": "clean", "question": "uncertainty"} | where
        lines.append(identity | measured | where)

    for seed in range(seeds):
        for variant, slope in {"learned_diagonal": 0.0, "input_dependent": 1.0}.items():
            for metric in ("entropy", "log_scale", "rate"):
                add(variant, seed, metric, 1.0, corruption="none", level=0)
            for name, levels in LEVELS.items():
                where = {"corruption": name}
                for end in ("", "_low", "_high"):
                    add(variant, seed, f"entropy_spearman{end}", 0.9 * slope, **where)
                add(variant, seed, "entropy_rises", slope, **where)
                add(variant, seed, "entropy_flat", 1 - slope, **where)
                add(variant, seed, "entropy_change", slope, **where)
                add(variant, seed, "entropy_largest_change", slope, **where)
                for level in levels:
                    for metric in ("entropy", "log_scale", "rate"):
                        add(variant, seed, metric, 1 + slope * level, **where, level=level)
                if slope and refitted:
                    where["level"] = levels[-1]
                    add(variant, seed, "encoder_entropy_change", 1.0, **where)
                    add(variant, seed, "fitted_entropy_change", -1.0, **where)
                    add(variant, seed, "fitted_minus_encoder_entropy_change", -2.0, **where)
    return Results(folder, tidy.frame(lines))


def test_the_report_says_what_the_rows_say(tmp_path: Path):
    (section,) = report.sections(made_up(tmp_path))
    assert "`input-dependent`: **yes**; entropy rises with bit flips (ρ 0.90" in section.takeaway
    assert "`learned-diagonal`: **flat** by construction" in section.takeaway
    assert section.answer.startswith("yes, input-dependent's rises with 6 of 6 corruptions")
    notes = " ".join(section.notes.split())
    assert (
        "Of 6 changes of entropy from clean to corrupted images, 6 are the encoder's alone" in notes
    )
    tables = {table.name: table for table in section.tables}
    verdicts = tables["uncertainty"].frame()
    assert set(verdicts.entropy[verdicts.posterior == "input-dependent"]) == {"rises"}
    assert set(verdicts.entropy[verdicts.posterior == "learned-diagonal"]) == {"flat"}
    assert (tables["uncertainty_refitted"].frame()["difference"] == -2).all()
    levels = tables["uncertainty_levels"].frame()
    assert len(levels) == 2 * (1 + sum(map(len, LEVELS.values())))
    assert levels["IW bound"].isna().all()
    assert [figure.name for figure in section.figures] == [
        "uncertainty",
        "sigma_by_level",
        "uncertainty_refitted",
    ]
    for figure in section.figures:
        assert figure.png("small").startswith(b"\x89PNG")


def test_one_seed_one_variant_and_no_refitting(tmp_path: Path):
    results = made_up(tmp_path, seeds=1, refitted=False)
    results.rows = tidy.select(results.rows, variant="learned_diagonal")
    (section,) = report.sections(results)
    assert section.answer == "no, flat by construction"
    assert "encoder's?" not in section.notes
    assert len(section.tables) == 2
    assert section.figures == []  # where nothing moves there is nothing to draw


def test_no_rows_no_section(tmp_path: Path):
    assert report.sections(Results(tmp_path, tidy.frame([]))) == []
