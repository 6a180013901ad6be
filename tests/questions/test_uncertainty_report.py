"""The report of uncertainty: verdicts against made-up rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
from scipy import stats

from bench.data.corruptions import LEVELS
from bench.questions.uncertainty import refitted, report
from bench.report import rows as tidy
from bench.report.results import Results
from bench.statistics import Estimate, p_value
from tests.stored import line, printed

SLOPES = {"learned_diagonal": 0.0, "input_dependent": 1.0}


def test_a_rise_out_of_an_untold_dip_is_no_rise_at_first(tmp_path: Path):
    """Down by 1 at the first level, by chance or not; a told step up leads above clean again."""
    rows = made_up(tmp_path, seeds=5, slopes={"input_dependent": 1.0}).rows
    at = (rows.metric == "entropy") & (rows.corruption == "salt") & (rows.level > 0)
    noise = rows.seed.astype(float) - 2
    rows.loc[at, "value"] = (1.2 + noise)[at]
    rows.loc[at & (rows.level == LEVELS["salt"][0]), "value"] -= 1.2
    table = report.verdicts(report.printed(rows)).set_index("corruption")
    assert table.verdict["salt"] == "no shape"
    (section,) = report.sections(Results(tmp_path, rows))
    assert "; has no significant shape with salt (" in section.takeaway


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


def test_what_is_lowest_at_the_end_comes_after_no_dip():
    fall = Estimate(-2.0, 0.5, 5)
    line = SimpleNamespace(verdict="falls at first", dip=fall, change=fall, strongest=0.4)
    assert report._sizes(line) == "−2.0 ± 0.5 nats at 0.4"
    line.change = Estimate(-1.0, 0.5, 5)
    assert report._sizes(line) == "−1.0 ± 0.5 nats at 0.4, at the lowest −2.0 ± 0.5"


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
    """A change whose p is 0.01 is told alone, but not beside five others of noise (Holm)."""
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
    ("encoder", "change", "difference", "expected"),
    [
        (1, 1, 0, "difference undecided"),
        (-1, 1, 0, "difference undecided"),
        (1, -1, -1, "opposite"),
        (-1, 1, 1, "opposite"),
        (1, 1, -1, "above"),
        (0, 0, -1, "above"),
        (-1, -1, 1, "below"),
        (0, 1, 1, "below"),
        (1, 0, 0, "undecided"),
    ],
)
def test_the_paired_difference_decides_whose_change_it_is(encoder, change, difference, expected):
    assert refitted.origin(encoder, change, difference) == expected


def test_a_change_of_the_other_sign_is_said_with_both(tmp_path: Path):
    results = made_up(tmp_path)
    encoder = results.rows.metric == "encoder_entropy_change"
    at = encoder & (results.rows.corruption == "salt")
    results.rows.loc[at, "value"] = -1.25
    at = results.rows.metric == "fitted_minus_encoder_entropy_change"
    results.rows.loc[at & (results.rows.corruption == "salt"), "value"] = 1.75
    (section,) = report.sections(results)
    said = "of the opposite sign {} with salt at 0.4 (−1.2 against the best's +0.5 nats, 1.8 ± 0.0 "
    said += "apart)"
    whole = said.replace(" {}", ", both significant,") + "; is above it with bit flips"
    assert whole in section.takeaway
    assert section.answer.endswith("; its change is " + said.format("to the best posterior's"))


def made_up(
    folder: Path,
    seeds: int = 2,
    refitted: bool = True,
    slopes: Mapping[str, float] = MappingProxyType(SLOPES),
    **trained: object,
) -> Results:
    """Posteriors whose entropy rises with every corruption, a slope each; a slope of 0 is flat."""
    lines = []

    def add(variant: str, seed: int, metric: str, value: float, **where: object) -> None:
        where = {"trained_on": "clean", "standard_error": 0.1, "n": 100} | trained | where
        lines.append(line(variant, seed, metric, value, "uncertainty", **where))

    for seed in range(seeds):
        for variant, slope in slopes.items():
            metrics = ("entropy", "rate") + ("active_entropy",) * (variant != "flow")
            for metric in metrics:
                add(variant, seed, metric, 1.0, corruption="none", level=0)
            for name, levels in LEVELS.items():
                where = {"corruption": name}
                add(variant, seed, "entropy_largest_change", slope, **where)
                for level in levels:
                    for metric in metrics:
                        add(variant, seed, metric, 1 + slope * level, **where, level=level)
                if slope and refitted:
                    where["level"] = levels[-1]
                    add(variant, seed, "encoder_entropy_change", 1.0, **where)
                    add(variant, seed, "fitted_entropy_change", 0.5, **where)
                    add(variant, seed, "fitted_minus_encoder_entropy_change", -0.5, **where)
    return Results(folder, tidy.frame(lines))


def with_noise(folder: Path, seeds: int = 5, noisy: float = 1.0, **headline: object) -> Results:
    """The reference beside short trainings, on clean images (slope 1) and with noise; the headline
    has a slope of 3."""
    slopes = {"input_dependent": 1.0}
    short = {"epochs": 60, "refitted": False}
    parts = [
        made_up(folder, seeds, slopes={"input_dependent": 3.0}, **({"epochs": 240} | headline)),
        made_up(folder, seeds, slopes=slopes, **short),
        made_up(folder, seeds, slopes={"input_dependent": noisy}, trained_on="bit_flips", **short),
    ]
    return Results(folder, tidy.joined(*(part.rows for part in parts)))


def test_training_with_noise_is_compared_with_as_many_steps_never_with_the_headline(tmp_path: Path):
    results = with_noise(tmp_path, noisy=2.0)
    mine = (results.rows.trained_on == "bit_flips") & (results.rows.corruption == "salt")
    results.rows.loc[mine, "value"] += results.rows.seed.astype(float) - 2.4
    (section,) = report.sections(results)
    assert (
        "Compared with as many steps on clean images, `input-dependent` trained on bit flips too "
        "has a change of entropy that at the strongest level is higher with bit flips "
        "(+0.4 ± 0.0), pixel erasure (+0.9 ± 0.0)"
    ) in section.takeaway
    assert "; undecided with salt (+0.0 ± 2.0)" in section.takeaway
    table = printed(section)["uncertainty_trained_otherwise"].frame().set_index("corruption")
    column = "with noise − without, nats"
    assert table[column]["contrast"] == pytest.approx(LEVELS["contrast"][-1])
    assert (
        "Trained on clean images for 60 epochs in place of 240, `input-dependent` has a change of "
        "entropy that at the strongest level is lower with bit flips (−0.8 ± 0.0), "
    ) in section.takeaway
    column = "shorter − longest, nats"
    assert table[column]["contrast"] == pytest.approx(-2 * LEVELS["contrast"][-1])
    said = "**yes**. Its entropy (change at the strongest level, which is given) rises with bit "
    assert f"{said}flips (+1.2 ± 0.0 nats at 0.4), " in section.takeaway
    assert "At the strongest level entropy" not in section.takeaway
    lines = set(printed(section)["uncertainty"].frame().posterior)
    short = {"input-dependent, 60 epochs", "input-dependent + bit flips, 60 epochs"}
    assert lines == {"input-dependent", *short}


def test_where_the_headline_is_as_short_it_is_the_one_compared_with(tmp_path: Path):
    slopes = [{"input_dependent": 1.0}, {"input_dependent": 0.5}]
    clean, noisy = (
        made_up(tmp_path, 3, slopes=its, epochs=2, trained_on=on)
        for its, on in zip(slopes, ("clean", "bit_flips"))
    )
    results = Results(tmp_path, tidy.joined(clean.rows, noisy.rows))
    (section,) = report.sections(results)
    assert "at the strongest level is lower with bit flips (−0.2 ± 0.0)" in section.takeaway


def test_a_noisy_training_of_unknown_length_is_compared_with_none(tmp_path: Path):
    """Rows of 0.1.0: a short training with noise beside the headline's."""
    clean = made_up(tmp_path, slopes={"input_dependent": 1.0})
    noisy = made_up(tmp_path, slopes={"input_dependent": 0.5}, trained_on="bit_flips")
    results = Results(tmp_path, tidy.joined(clean.rows, noisy.rows))
    (section,) = report.sections(results)
    assert "as many steps" not in section.takeaway
    tables = printed(section)
    assert "uncertainty_trained_otherwise" not in tables
    assert "input-dependent + bit flips" in set(tables["uncertainty"].frame().posterior)


def test_what_ends_higher_lower_and_undecided_is_counted_apart(tmp_path: Path):
    """Of the flow one final change is told up, one down; four are noise, and are told nothing."""
    rows = made_up(tmp_path, 5, slopes={**SLOPES, "flow": 1.0}).rows
    mine = (rows.variant == "flow") & (rows.metric == "entropy") & (rows.level > 0)
    noise = mine & ~rows.corruption.isin(["salt", "contrast"])
    rows.loc[mine & (rows.corruption == "salt"), "value"] -= 2
    rows.loc[noise, "value"] = (1 + (rows.seed.astype(float) - 1.9) * (1 + rows.level))[noise]
    (section,) = report.sections(Results(tmp_path, rows))
    assert (
        "At the strongest level entropy is, for `flow`, higher with 1, lower with 1 and undecided "
        "with 4 of 6 corruptions." in section.takeaway
    )
    table = printed(section)["uncertainty"].frame()
    assert table[table.posterior == "flow"].ends.value_counts()["undecided"] == 4


def test_final_changes_are_a_family_of_their_own(tmp_path: Path):
    """A final change of p = 0.02 is told beside five certain ones, however many steps are not."""
    rows = made_up(tmp_path, 5, slopes={"input_dependent": 1.0}).rows
    mine = (rows.metric == "entropy") & (rows.corruption == "salt")
    noise = rows.seed.astype(float) - 2
    within = mine & (rows.level > 0) & (rows.level < LEVELS["salt"][-1])
    rows.loc[within, "value"] = (1 + 1e3 * rows.level * noise)[within]
    last = mine & (rows.level == LEVELS["salt"][-1])
    rows.loc[last, "value"] = (1 + stats.t.isf(0.01, 4) / 2**0.5 + noise)[last]
    table = report.verdicts(report.printed(rows)).set_index("corruption")
    assert p_value(table.change["salt"]) == pytest.approx(0.02)
    assert table.end["salt"] == "higher"
    assert table.verdict["salt"] == "rises"


def test_a_posterior_without_axes_has_no_active_units(tmp_path: Path):
    (section,) = report.sections(made_up(tmp_path, slopes={**SLOPES, "flow": 1.0}))
    levels = printed(section)["uncertainty_levels"].frame().set_index("posterior")
    assert levels["active units' entropy"]["flow"].isna().all()
    assert levels["active units' entropy"]["input-dependent"].notna().all()
    final = printed(section)["uncertainty"].frame().set_index("posterior")
    assert final["of it in active units, nats"]["flow"].isna().all()
    assert (final["these end"]["flow"] == "").all()


def test_what_the_active_units_do_is_said_beside_the_whole_entropy(tmp_path: Path):
    """A fall of the whole entropy that is none of theirs."""
    rows = made_up(tmp_path, 5, slopes={"input_dependent": 1.0}).rows
    rows = rows.assign(value=rows.value.where(rows.metric != "entropy", 2 - rows.value))
    mine = (rows.metric == "active_entropy") & (rows.corruption == "salt") & (rows.level > 0)
    noise = rows.seed.astype(float) - 2
    rows.loc[mine, "value"] = (1 + noise)[mine]
    (section,) = report.sections(Results(tmp_path, rows))
    assert "**no, lower with 6 of 6 corruptions, higher with none**" in section.takeaway
    assert "entropy at the strongest level is higher with bit flips (+0.4 ± 0.0)" in (
        section.takeaway
    )
    assert "; undecided with salt (+0.0 ± 2.0)." in section.takeaway
    assert "; that of its active units alone is higher with bit flips" in section.answer


def test_flat_posteriors_do_not_count_among_what_holds_together(tmp_path: Path):
    """Changes of p = 0.006: told from zero as six, no longer as twelve."""
    slopes = {"input_dependent": 1.0, "learned_diagonal": 0.0}
    rows = made_up(tmp_path, 5, slopes=slopes).rows
    mine = (rows.variant == "input_dependent") & (rows.metric == "active_entropy")
    mine &= rows.level > 0
    rows.loc[mine, "value"] = 1.382 + 0.1 * (rows.seed[mine].astype(float) - 2)
    (section,) = report.sections(Results(tmp_path, rows))
    (table, *_) = section.tables
    ends = table.frame().set_index("posterior")["these end"]
    assert set(ends["input-dependent"]) == {"higher"}
    assert set(ends["learned-diagonal"]) == {"flat"}


def test_rows_without_active_units_say_nothing_of_them(tmp_path: Path):
    """Those of a former version."""
    rows = made_up(tmp_path).rows
    (section,) = report.sections(Results(tmp_path, rows[rows.metric != "active_entropy"]))
    assert "active units" not in section.takeaway + section.answer
    assert "active_units_uncertainty" not in [figure.name for figure in section.figures if figure]


def test_the_report_says_what_the_rows_say(tmp_path: Path):
    (section,) = report.sections(made_up(tmp_path))
    assert "which is given) rises with bit flips (+0.4 ± 0.0 nats at 0.4), salt" in section.takeaway
    assert "`learned-diagonal`: **flat**, no image's entropy moves by more" in section.takeaway
    assert section.answer.startswith("yes: input-dependent's entropy rises with bit flips")
    notes = " ".join(section.notes.split())
    assert "clean to corrupted images: 6 above the best posterior's." in notes
    assert (
        "that of `input-dependent` is above it with bit flips at 0.4 (+1.0 against the "
        "best's +0.5 nats, 0.5 ± 0.0 apart), " in section.takeaway
    )
    tables = printed(section)
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
        "active_units_uncertainty",
        "uncertainty_refitted",
    ]


def test_changes_that_are_not_told_from_the_best_posteriors_are_counted(tmp_path: Path):
    results = made_up(tmp_path, seeds=5)
    rows = results.rows
    at = rows.metric.isin(["fitted_minus_encoder_entropy_change"]) & (rows.corruption != "salt")
    rows.loc[at, "value"] = rows.seed[at].astype(float) - 2
    (section,) = report.sections(results)
    assert (
        "that of `input-dependent` is above it with salt at 0.4 (+1.0 against the best's "
        "+0.5 nats, 0.5 ± 0.0 apart); is undecided against it in 5 of 6 changes (in 0 of these the "
        "difference's own interval excludes 0), of which the farthest is 0.0 ± 2.0 nats from it "
        "(bit flips at 0.4)." in section.takeaway
    )


def test_one_seed_tells_nothing(tmp_path: Path):
    (section,) = report.sections(made_up(tmp_path, seeds=1))
    assert (
        "**undecided**. Its entropy (change at the strongest level, which is given) is undecided"
        in (section.takeaway)
    )
    assert section.answer.startswith("undecided: input-dependent's entropy is undecided with")


def test_one_seed_one_variant_and_no_refitting(tmp_path: Path):
    results = made_up(tmp_path, seeds=1, refitted=False)
    results.rows = tidy.select(results.rows, variant="learned_diagonal")
    (section,) = report.sections(results)
    assert section.answer == "no, flat"
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


def test_rows_are_not_occluded_where_an_image_is_one_row(tmp_path: Path):
    results = made_up(tmp_path)
    results.environment = {"image_shape": [1, 12]}
    (section,) = report.sections(results)
    (whole,) = report.sections(made_up(tmp_path))
    for shown, occluded in ((section, False), (whole, True)):
        text = shown.notes + "".join(table.html() for table in printed(shown).values())
        assert ("row occlusion" in text) == occluded
        assert "pixel erasure" in text
