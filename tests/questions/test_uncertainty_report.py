"""The report of uncertainty: verdicts against made-up rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from bench.data.corruptions import LEVELS
from bench.questions.uncertainty import report
from bench.report import rows as tidy
from bench.report.results import Results
from bench.statistics import p_value


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("steps", "end", "kinds"),
    [
        ((0, 1, 0, 1), 1, ("rises", "falls")),
        ((0, 0, 0, 0), 1, ("rises", "falls")),
        ((-1, 0, 1, 1), 1, ("rises after a dip", "falls after a rise")),
        ((-1, 0, 1, 1), 0, ("falls at first", "rises at first")),
        ((-1, -1, -1, 1), -1, ("falls at first", "rises at first")),
        ((-1, 0, 0, -1), 0, ("falls at first", "rises at first")),
        ((0, 0, -1, 0), 1, ("falls at first", "rises at first")),
        ((1, -1, 0, 1), 1, ("turns", "turns")),
        ((1, -1, 0, 1), 0, ("turns", "turns")),
        ((0, 0, 0, 0), 0, ("undecided", "undecided")),
    ],
)
def test_the_shape_of_a_curve_is_that_of_its_told_steps(sign, steps, end, kinds):
    expected = kinds[0 if sign == 1 else 1]
    assert report.shape([sign * step for step in steps], sign * end) == expected


def test_a_rise_after_a_dip_is_told_whatever_its_size(tmp_path: Path):
    """A dip of 0.05 nats that every seed has; in one seed of five it is noise."""
    results = made_up(tmp_path, seeds=5)
    at = (results.rows.metric == "entropy") & (results.rows.variant == "input_dependent")
    first = {name: levels[0] for name, levels in LEVELS.items()}
    at &= results.rows.level == results.rows.corruption.map(first)
    jitter = 1e-3 * results.rows.seed.astype(float)
    results.rows.loc[at & (results.rows.corruption == "salt"), "value"] = 0.95 + jitter
    once = at & (results.rows.corruption == "bit_flips") & (results.rows.seed == 0)
    results.rows.loc[once, "value"] = 0.95
    table = report.verdicts(report.printed(results.rows)).set_index(["variant", "corruption"])
    assert table.verdict["input_dependent", "salt"] == "rises after a dip"
    assert table.verdict["input_dependent", "bit flips"] == "rises"
    assert table.dip["input_dependent", "salt"].mean == pytest.approx(-0.048)
    assert table.change["input_dependent", "salt"].mean == pytest.approx(LEVELS["salt"][-1])


def test_steps_are_from_level_to_level(tmp_path: Path):
    """An entropy that has risen and comes half the way back is still above the clean one."""
    rows = made_up(tmp_path, seeds=3).rows
    at = (rows.metric == "entropy") & (rows.variant == "input_dependent")
    at &= (rows.corruption == "salt") & (rows.level == LEVELS["salt"][-1])
    rows.loc[at, "value"] = 1 + LEVELS["salt"][-2] / 2
    table = report.verdicts(report.printed(rows)).set_index(["variant", "corruption"])
    assert table.verdict["input_dependent", "salt"] == "rises at first"
    assert table.verdict["input_dependent", "bit flips"] == "rises"


def test_verdicts_of_the_table_hold_together(tmp_path: Path):
    """A change whose p is 0.01 is told alone, but not beside 29 steps of noise (Holm)."""
    kinds = {}
    for name, corruptions in {"alone": ["none", "salt"], "all": ["none", *LEVELS]}.items():
        rows = tidy.select(made_up(tmp_path, seeds=5).rows, corruption=corruptions)
        mine = (rows.metric == "entropy") & (rows.variant == "input_dependent")
        noise = rows.seed.astype(float) - 2  # its standard error is 1/√2
        sure = stats.t.isf(0.005, 4) / 2**0.5
        others = mine & ~rows.corruption.isin(["none", "salt"])
        rows.loc[others, "value"] = (1 + 0.01 * noise.abs() + noise * rows.level)[others]
        last = mine & (rows.corruption == "salt") & (rows.level == LEVELS["salt"][-1])
        rows.loc[last, "value"] = (1 + sure + noise)[last]
        table = report.verdicts(report.printed(rows)).set_index(["variant", "corruption"])
        kinds[name] = table.verdict["input_dependent", "salt"]
        assert p_value(table.change["input_dependent", "salt"]) == pytest.approx(0.01)
    assert kinds == {"alone": "rises", "all": "rises at first"}


@pytest.mark.parametrize(
    ("refitted", "difference", "expected"),
    [
        (1, 0, "not told apart"),
        (-1, 0, "not told apart"),
        (1, -1, "exceeds"),
        (0, -1, "exceeds"),
        (-1, 1, "falls short"),
        (0, 0, "undecided"),
    ],
)
def test_the_paired_difference_decides_whose_change_it_is(refitted, difference, expected):
    assert report.origin(refitted, difference) == expected


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
                add(variant, seed, "entropy_largest_change", slope, **where)
                for level in levels:
                    for metric in ("entropy", "log_scale", "rate"):
                        add(variant, seed, metric, 1 + slope * level, **where, level=level)
                if slope and refitted:
                    where["level"] = levels[-1]
                    add(variant, seed, "encoder_entropy_change", 1.0, **where)
                    add(variant, seed, "fitted_entropy_change", 0.5, **where)
                    add(variant, seed, "fitted_minus_encoder_entropy_change", -0.5, **where)
    return Results(folder, tidy.frame(lines))


def test_the_report_says_what_the_rows_say(tmp_path: Path):
    (section,) = report.sections(made_up(tmp_path))
    assert "**yes**; entropy rises with bit flips (+0.4 ± 0.0 nats), salt" in section.takeaway
    assert "`learned-diagonal`: **flat** by construction" in section.takeaway
    assert section.answer.startswith("yes: input-dependent's entropy rises with bit flips")
    notes = " ".join(section.notes.split())
    assert "clean to corrupted images, 6 exceed the best posterior's." in notes
    assert (
        "that of `input-dependent` exceeds it with bit flips at 0.4, salt at 0.4"
        in section.takeaway
    )
    tables = {table.name: table for table in section.tables}
    verdicts = tables["uncertainty"].frame()
    assert set(verdicts.entropy[verdicts.posterior == "input-dependent"]) == {"rises"}
    assert set(verdicts.entropy[verdicts.posterior == "learned-diagonal"]) == {"flat"}
    refitted = tables["uncertainty_refitted"].frame()
    assert (refitted["difference"] == -0.5).all()
    assert (refitted["encoder ÷ refitted"] == 2).all()
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


def test_one_seed_tells_nothing(tmp_path: Path):
    (section,) = report.sections(made_up(tmp_path, seeds=1))
    assert "`input-dependent`: **undecided**; entropy is undecided with bit" in section.takeaway
    assert section.answer.startswith("undecided: input-dependent's entropy is undecided with")


def test_one_seed_one_variant_and_no_refitting(tmp_path: Path):
    results = made_up(tmp_path, seeds=1, refitted=False)
    results.rows = tidy.select(results.rows, variant="learned_diagonal")
    (section,) = report.sections(results)
    assert section.answer == "no, flat by construction"
    assert "encoder's?" not in section.notes
    assert len(section.tables) == 2
    assert section.figures == []  # where nothing moves there is nothing to draw


def test_refits_of_one_seed_have_no_interval_and_are_left_out(tmp_path: Path):
    results = made_up(tmp_path)
    refitted = results.rows.metric.str.endswith("_entropy_change") & (results.rows.seed > 0)
    results.rows = results.rows[~refitted]
    (section,) = report.sections(results)
    assert "uncertainty_refitted" not in [table.name for table in section.tables]
    assert "encoder's?" not in section.notes


def test_no_rows_no_section(tmp_path: Path):
    assert report.sections(Results(tmp_path, tidy.frame([]))) == []
