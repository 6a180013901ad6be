"""The report of uncertainty: verdicts against made-up rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.data.corruptions import LEVELS
from bench.questions.uncertainty import report
from bench.report import rows as tidy
from bench.report.results import Results
from bench.statistics import Estimate


def series(*values: float) -> pd.Series:
    return pd.Series(values)


def test_verdicts_need_every_seed():
    most, few = series(0.9, 0.8), series(0.1, 0.2)
    above = series(0.1, 0.2), series(0.3, 0.4)
    below = series(-0.4, -0.3), series(-0.2, -0.1)
    up = pd.DataFrame({0.1: [0.2, -0.3], 0.2: [1.0, 2.0]})  # one seed's dip is not every seed's
    assert report.verdict(*above, most, up, flat=False) == "rises"
    assert report.verdict(*below, few, -up, flat=False) == "falls"
    assert report.verdict(series(-0.1, 0.2), series(0.3, 0.4), most, up, flat=False) == "undecided"
    assert report.verdict(series(0, 0), series(0, 0), series(0, 0), 0 * up, flat=True) == "flat"


def test_an_entropy_that_dips_and_comes_back_turns():
    above = series(0.1, 0.2), series(0.3, 0.4)
    below = tuple(-bound for bound in above[::-1])
    up = pd.DataFrame({0.1: [0.2, 0.3], 0.2: [1.0, 2.0]})
    assert report.verdict(*above, series(0.4, 0.6), up, flat=False) == "turns"
    assert report.verdict(*below, series(0.6, 0.4), -up, flat=False) == "turns"
    dip = pd.DataFrame({0.1: [-0.2, -0.3], 0.2: [1.0, 2.0]})
    assert report.verdict(*above, series(0.9, 0.9), dip, flat=False) == "turns"
    assert report.verdict(*below, series(0.1, 0.1), -dip, flat=False) == "turns"


@pytest.mark.parametrize(
    ("encoder", "refitted", "expected"),
    [
        (2, 1, "model"),
        (-2, -1, "model"),
        (-2, 1, "encoder"),
        (2, 0, "encoder"),
        (0, 1, "missed"),
        (0, 0, "none"),
    ],
)
def test_where_a_change_comes_from(encoder, refitted, expected):
    assert report.origin(Estimate(encoder, 0.5, 2), Estimate(refitted, 0.5, 2)) == expected


def test_images_that_seeds_share_give_one_interval():
    """Two seeds of the same 100 images: as wide as one seed's; t quantile of 99 degrees."""
    rows = pd.DataFrame({"value": [1.0, 3.0], "standard_error": [0.3, 0.4], "n": [100, 100]})
    found = report.over_images(rows)
    assert found.mean == 2
    assert found.half_width == pytest.approx(1.98422 * (0.125**0.5), rel=1e-5)


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
    assert "Of 6 changes of entropy from clean to corrupted images, 6 the encoder's alone" in notes
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
