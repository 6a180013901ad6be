"""The report of generalization: paired differences against arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.questions.generalization import perturbed, report
from bench.report import rows as tidy
from bench.report.results import Results


def made_up(folder: Path, seeds: int = 2) -> Results:
    """Gaps of 30 and 20 nats, test cross-entropies of 100 and 104, by seeds 0.1 apart."""
    lines, pictures = [], {}
    gaps, tests = {"autoencoder": 30, "input_dependent": 20}, (100, 104)
    for seed in range(seeds):
        for (variant, size_of_gap), test in zip(gaps.items(), tests):

            def add(metric: str, value: float, variant=variant, seed=seed, **where) -> None:
                identity = {"dataset": "small", "device": "cpu", "question": "generalization"}
                identity |= {"variant": variant, "seed": seed, "metric": metric}
                lines.append(identity | {"value": value + 0.1 * seed, "n": 10} | where)

            for images in (250, 1000):
                bounded = variant != "autoencoder"
                for stage, early in {"end": 0, "best": 2}.items():
                    where = {"images": images, "steps": 50, "stage": stage}
                    # without KL half of the gap's difference and all but 1 of the test's; a
                    # sampled code costs 3
                    for weight, code, gap_more, test_more in [
                        (1, "mean", 0, 0),
                        *([(0, "mean", 5, -1), (1, "sampled", 0, 3)] if bounded else []),
                    ]:
                        at = {**where, "kl_weight": weight, "code": code}
                        add("test_cross_entropy", test - early + test_more, **at)
                        add("train_cross_entropy", test - size_of_gap, **at)
                        add("cross_entropy_gap", size_of_gap - early + gap_more, **at)
                    if bounded:
                        add("elbo_gap", 25, kl_weight=1, code="sampled", **where)
                        for weight in (0, 1):
                            add("code_to_noise", 9 - 5 * weight, kl_weight=weight, **where)
                add("best_epoch", 4, images=images, steps=50, kl_weight=1)
                key = f"generalization/{variant}/{seed}/curves_{images}"
                pictures[key] = np.linspace([200, 200], [70, 99], 5)
            for unit in ("absolute", "covariance"):
                for s in (0, 0.5, 1):
                    steep = 10 if variant == "autoencoder" else 4
                    where = {"noise_scale": s, "noise_unit": unit}
                    add("perturbed_cross_entropy", test + steep * s, **where)
            add("code_std", 3)
    pictures["generalization/autoencoder/0/noised_codes"] = np.zeros((4, 2, 3, 3), np.uint8)
    return Results(folder, tidy.frame(lines), pictures=pictures)


def test_the_report_compares_gap_and_test_cross_entropy_in_pairs(tmp_path: Path):
    overfitting, perturbation = report.sections(made_up(tmp_path))
    assert "With 250 training images" in overfitting.takeaway
    # the seeds' common shift cancels in a paired difference, but not in a mean
    assert "ends 30.1 ± 0.6 nats above" in overfitting.takeaway
    assert overfitting.answer == (
        "yes: its gap (test − train cross-entropy) with 250 training images (50 steps) is "
        "30.1 ± 0.6 nats; "
        "with 1,000 images stopping at the best epoch would have lowered the test cross-entropy by "
        "2.0 ± 0.0; added to the gap with 250 images by noise on the code, without the KL, and "
        "then by the KL on top of it: for input-dependent −5.0 ± 0.0 and −5.0 ± 0.0; the VAEs' "
        "test cross-entropy, against the autoencoder's, is higher for 1 of 1 with 250 images, and "
        "higher for 1 of 1 with 1,000 images when all are stopped early; at the last step higher "
        "for 1 of 1 with 250 images, and higher for 1 of 1 with 1,000 images"
    )
    assert (
        "last step, the gap is smaller for `input-dependent` (−10.0 ± 0.0); with all stopped early "
        "it is smaller for `input-dependent` (−10.0 ± 0.0)"
    ) in overfitting.takeaway
    assert "itself is higher for `input-dependent` (+4.0 ± 0.0)" in overfitting.takeaway
    assert (
        "with all stopped early it is higher for `input-dependent` (+4.0 ± 0.0)"
        in overfitting.takeaway
    )
    assert (
        "noise on the code, without the KL, adds −5.0 ± 0.0 and +3.0 ± 0.0; the KL on top of it "
        "adds −5.0 ± 0.0 and +1.0 ± 0.0; a sampled code in place of the mean adds +0.0 ± 0.0 "
        "(undecided) and +3.0 ± 0.0 nats. Its codes are 9.1 ± 0.6 times as large as the "
        "noise without the KL, 4.0 ± 0.6 times with"
    ) in overfitting.takeaway
    assert f"{report.SAVED} 2.0 ± 0.0" in overfitting.takeaway
    assert "raises the test cross-entropy: `autoencoder` 5.0 ± 0.0 nats" in perturbation.takeaway
    assert "the rise is smaller for `input-dependent` (−3.0 ± 0.0)" in perturbation.takeaway
    assert "itself is higher for `input-dependent` (+1.0 ± 0.0)" in perturbation.takeaway
    assert "share of each one's code, it is higher for `input-dependent`" in perturbation.takeaway
    for section in (overfitting, perturbation):
        for figure in section.figures:
            assert figure.png("small").startswith(b"\x89PNG")
    names = [figure.name for section in (overfitting, perturbation) for figure in section.figures]
    assert names == ["generalization", "generalization_curves", "perturbed_codes", "noised_codes"]


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        (
            {0: 5, 0.1: 1, 0.5: -2},
            "`autoencoder`'s up to s = 0.1 for `flow`; with more noise below",
        ),
        ({0: 5, 0.1: -1, 0.5: -2}, "`autoencoder`'s at s = 0 only for `flow`; with more"),
        ({0: 5, 0.1: -1, 0.5: 2}, ""),
        ({0: -5, 0.1: -1, 0.5: -2}, ""),
    ],
)
def test_up_to_which_noise_a_vae_decodes_worse_is_said(differences, said):
    lines = [
        {"variant": variant, "noise_unit": "covariance", "noise_scale": s, "value": value}
        for s, difference in differences.items()
        for variant, value in {"autoencoder": 100.0, "flow": 100.0 + difference}.items()
    ]
    found = perturbed.crossing(pd.DataFrame(lines), "autoencoder")
    assert said in found
    assert bool(said) == bool(found)


def test_tables_have_the_means_and_the_best_of_each_list_bold(tmp_path: Path):
    overfitting, perturbation = report.sections(made_up(tmp_path))
    gaps = overfitting.tables[0].frame().set_index(["variant", "images"])
    assert gaps.loc[("input-dependent", 250), "gap, end"] == pytest.approx(20.05)
    assert gaps.loc[("input-dependent without KL", 250), "gap, end"] == pytest.approx(25.05)
    sampled = gaps["test, end, sampled code"]
    assert sampled["input-dependent", 250] == pytest.approx(107.05)
    assert gaps.loc[("autoencoder", 250), "best at step"] == pytest.approx(20.25)
    assert np.isnan(gaps.loc[("autoencoder", 250), "ELBO gap, end"])
    bold = overfitting.tables[0].markdown().splitlines()[2:]
    # neither the autoencoder nor what was trained without the KL contests
    assert [line.count("**") // 2 for line in bold] == [0, 4, 0, 0, 4, 0]
    codes = perturbation.tables[0].frame().set_index("variant")
    assert codes.loc["autoencoder", "s = 0.5 std"] == pytest.approx(105.05)
    assert codes.loc["autoencoder", "std of codes"] == pytest.approx(3.05)


def test_verdicts_of_a_section_hold_together(tmp_path: Path):
    """p = 0.01 is decided alone, but not in a family with eight that are noise (Holm)."""
    rows = made_up(tmp_path, seeds=5).rows
    noise = rows.seed.astype(float) - 2  # its standard error is 1/√2
    sure = stats.t.isf(0.005, 4) / 2**0.5
    mine = (rows.variant == "input_dependent") & (rows.images == 250)
    gap = mine & (rows.metric == "cross_entropy_gap") & (rows.stage == "end")
    test = mine & (rows.metric == "test_cross_entropy")
    rows.loc[gap, "value"] = (30 + 0.1 * rows.seed.astype(float) - sure + noise)[gap]
    said = {}
    for name, some in {"alone": rows[rows.code != "sampled"], "all": rows}.items():
        some = some[(some.kl_weight != 0) | (name == "all")].copy()
        if name == "all":
            spread = 3 * noise * (1 + some.kl_weight.fillna(0) + (some.code == "mean"))
            some.loc[test, "value"] = (100 + 0.1 * some.seed.astype(float) + spread)[test]
        staged = report.arms(some)
        said[name], _ = report.overfitting_takeaway(staged, ["autoencoder"])
    assert "the gap is smaller for" in said["alone"]
    assert "the gap is undecided for" in said["all"]


NO_TURN = "no turn of the test cross-entropy within 1,500 steps"


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ([2.0, 2.1, 1.9], f"{report.SAVED} 2.0 ± 0.2"),
        (
            [0.0, 0.0, 0.0],
            f"{NO_TURN}, 3 of 3 runs being best at the last",
        ),
        ([-0.2, 0.2, 0.0], "a turn within 1,500 steps is undecided: +0.0 ± 0.5 nats, 1 of 3 runs"),
        ([-2.0, -2.1, -1.9], NO_TURN),
    ],
)
def test_what_early_stopping_would_have_lowered(saved, said):
    """Runs that had not begun to overfit, best at the last of 15 epochs, are counted."""
    text = report.early_stopping(of_stopping({250: saved}), ["autoencoder"])["autoencoder"][250]
    assert text.startswith(said)
    assert ("best at the last" in text) == (0.0 in saved)


def test_what_early_stopping_saves_is_judged_over_all_lists_together():
    """p = 0.03 is told alone, and not beside another that is noise (Holm)."""
    noise = np.array([-1.0, 0.0, 1.0])
    shift = stats.t.isf(0.015, 2) * stats.sem(noise)
    alone = report.early_stopping(of_stopping({250: noise + shift}), ["autoencoder"])
    assert alone["autoencoder"][250].startswith(report.SAVED)
    both = report.early_stopping(of_stopping({250: noise + shift, 1000: noise}), ["autoencoder"])
    assert all("undecided" in text for text in both["autoencoder"].values())


def of_stopping(saved) -> pd.DataFrame:
    """Rows of an autoencoder: images → what each seed's early stopping saves, nats."""
    lines = []
    for images, values in saved.items():
        for seed, value in enumerate(values):
            where = {"variant": "autoencoder", "seed": seed, "images": images, "steps": 1500}
            where |= {"kl_weight": 1.0, "code": "mean", "n": 15}
            for stage, nats in {"best": 100.0, "end": 100.0 + value}.items():
                metric = {"metric": "test_cross_entropy", "stage": stage, "value": nats}
                lines.append(where | metric)
            lines.append(where | {"metric": "best_epoch", "value": 15 if value == 0 else 9})
    return pd.DataFrame(lines)


def test_runs_that_had_not_begun_to_overfit_are_counted_where_all_are_stopped(tmp_path: Path):
    results = made_up(tmp_path)
    best = (results.rows.metric == "best_epoch") & (results.rows.seed == 1)
    results.rows.loc[best, "value"] = 10
    takeaway = report.sections(results)[0].takeaway
    said = "early (1 of 2 VAE runs and 1 of 2 of `autoencoder` best at the last step) it is smaller"
    assert said in takeaway
    mine = results.rows.variant == "autoencoder"
    results.rows.loc[mine & best, "value"] = 4
    takeaway = report.sections(results)[0].takeaway
    assert "early (1 of 2 VAE runs and 0 of 2 of `autoencoder` best at the last" in takeaway
    results.rows.loc[mine & best, "value"] = 10
    takeaway = report.sections(results)[0].takeaway
    assert f"{report.SAVED} 2.0 ± 0.0, 1 of 2 runs being best at the last step;" in takeaway


def test_the_longest_list_is_told_beside_the_shortest(tmp_path: Path):
    """Where a prior helps with few images, and the contrary with many."""
    results = made_up(tmp_path)
    rows = results.rows
    mine = (rows.variant == "input_dependent") & (rows.stage == "end") & (rows.code == "mean")
    mine &= rows.kl_weight == 1
    test, gap = rows.metric == "test_cross_entropy", rows.metric == "cross_entropy_gap"
    rows.loc[mine & test & (rows.images == 250), "value"] -= 10
    rows.loc[mine & gap & (rows.images == 1000), "value"] += 12
    overfitting, _ = report.sections(results)
    assert "itself is lower for `input-dependent` (−6.0 ± 0.0)" in overfitting.takeaway
    first, _, longer = overfitting.takeaway.partition("With 1,000 images (50 steps) ")
    assert "Step by step from the autoencoder to `input-dependent`" in first
    assert longer.startswith(
        "the gap is larger for `input-dependent` (+2.0 ± 0.0); with all stopped early it is "
        "smaller for `input-dependent` (−10.0 ± 0.0)"
    )
    assert "test cross-entropy itself is higher for `input-dependent` (+4.0 ± 0.0)" in longer
    assert "With 1,000 images, step by step from the autoencoder to `input-dependent`" in longer
    said = (
        "at the last step lower for 1 of 1 with 250 images, and higher for 1 of 1 with 1,000 images"
    )
    assert overfitting.answer.endswith(said)
    results.rows = rows[rows.images == 250]
    (overfitting,) = report.sections(results)
    assert "1,000" not in overfitting.takeaway
    assert overfitting.answer.endswith("lower for 1 of 1 with 250 images")


def test_what_a_longer_list_tells_is_a_family_of_its_own(tmp_path: Path):
    """p = 0.03 beside one that is certain is told, however many of the shortest list are not."""
    rows = made_up(tmp_path, seeds=5).rows
    rows = rows[(rows.images != 1000) | ((rows.kl_weight != 0) & (rows.stage != "best"))].copy()
    noise = rows.seed.astype(float) - 2
    mine = (rows.variant == "input_dependent") & (rows.code != "sampled")
    rows.loc[mine & (rows.images == 250), "value"] += (3 * noise)[mine & (rows.images == 250)]
    gap = (
        mine & (rows.images == 1000) & (rows.metric == "cross_entropy_gap") & (rows.stage == "end")
    )
    sure = stats.t.isf(0.015, 4) / 2**0.5
    rows.loc[gap, "value"] = (30 + 0.1 * rows.seed.astype(float) + sure + noise)[gap]
    takeaway, _ = report.overfitting_takeaway(report.arms(rows), ["autoencoder"])
    assert "With 1,000 images (50 steps) the gap is larger for `input-dependent`" in takeaway


def test_a_gap_without_a_turn_is_no_yes(tmp_path: Path):
    results = made_up(tmp_path)
    test = results.rows.metric == "test_cross_entropy"
    results.rows.loc[test & (results.rows.stage == "best"), "value"] += 2  # as at the end
    overfitting, _ = report.sections(results)
    said = "gap of 30.1 ± 0.6 nats with 250 training images, but no turn of the test cross-"
    assert overfitting.answer.startswith(said)


@pytest.mark.parametrize("variants", [["autoencoder"], ["input_dependent"]])
def test_one_seed_of_one_variant(tmp_path: Path, variants):
    results = made_up(tmp_path, seeds=1)
    results.rows = tidy.select(results.rows, variant=variants)
    overfitting, perturbation = report.sections(results)
    assert ("undecided" in overfitting.answer) == (variants == ["autoencoder"])
    assert "with 250 training images" in overfitting.takeaway.lower()
    assert perturbation.takeaway.endswith("nats.")


def test_rows_of_before_the_mean_code_are_not_compared(tmp_path: Path):
    """Codes that were moved by noise of another shape are left out."""
    results = made_up(tmp_path)
    rows = results.rows
    bounded = rows.variant != "autoencoder"
    rows = rows[~(bounded & ((rows.code == "mean") | (rows.noise_unit == "covariance")))]
    rows = rows[rows.noise_unit != "covariance"]
    results.rows = rows.assign(code=None, kl_weight=np.nan)
    results.rows = tidy.frame(results.rows.to_dict("records"))
    (overfitting,) = report.sections(results)
    assert "`autoencoder`'s test cross-entropy ends 30.1" in overfitting.takeaway
    assert "Against it" not in overfitting.takeaway
    frame = overfitting.tables[0].frame().set_index(["variant", "images"])
    assert frame["gap, end, sampled code"]["input-dependent", 250] == pytest.approx(20.05)
    alone = tidy.select(results.rows, variant="input_dependent")
    (overfitting,) = report.sections(Results(tmp_path, alone))
    assert overfitting.takeaway.endswith("unknown at the mean code.")
    assert not overfitting.figures


def test_no_rows_no_section(tmp_path: Path):
    assert report.sections(Results(tmp_path, tidy.frame([]))) == []
