"""Generalization: gaps, perturbed codes and paired differences against arithmetic."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.config import PRESETS
from bench.measure.generalization import (
    NOISE_SCALES,
    TRACKED,
    gap,
    measure,
    perturbed_codes,
    requests,
)
from bench.report import generalization as report
from bench.report.common import Results
from tests.subjects import ignore_the_code, small_data, small_run, subject
from vaes import discover

COLUMNS = ["dataset", "device", "variant", "seed", "measurement", "metric", "setting", "value",
           "standard_error", "n", "unit"]  # fmt: skip


def values(rows, metric: str, **settings) -> list[float]:
    wanted = [f"{key}={value}" for key, value in settings.items()]
    return [
        row.value
        for row in rows
        if row.metric == metric and all(pair in row.setting.split(";") for pair in wanted)
    ]


def test_a_gap_is_positive_where_test_images_fare_worse():
    assert gap("distortion", {"train": 70.0, "test": 100.0}) == 30
    assert gap("elbo", {"train": -80.0, "test": -110.0}) == 30


def test_rows_of_a_short_list_come_from_its_history():
    one = subject("input_dependent", distinct=30, train_size=100, tracked=TRACKED, epochs=3)
    one.trained.history[:] = [
        {"seen_distortion": 90.0 - 10 * epoch, "valid_distortion": 95.0, "test_distortion": test,
         "seen_elbo": -100.0, "valid_elbo": -120.0, "test_elbo": -130.0}
        for epoch, test in enumerate((94.0, 91.0, 99.0))
    ]  # fmt: skip
    one.trained.best_epoch = 2
    result = measure(one)
    assert values(result.rows, "cross_entropy_gap", images=30, stage="end") == [29]
    assert values(result.rows, "cross_entropy_gap", images=30, stage="best") == [11]
    assert values(result.rows, "elbo_gap", stage="end") == [30]
    assert values(result.rows, "best_epoch") == [2]
    assert result.pictures["curves_30"].tolist()[2] == [70, 95, 99]


@pytest.mark.parametrize("variant", discover().variants)
def test_every_variant_has_gaps_and_perturbed_codes(variant):
    rows = measure(subject(variant)).rows
    for stage in ("end", "best"):
        (train,) = values(rows, "train_cross_entropy", stage=stage, images=120)
        (test,) = values(rows, "test_cross_entropy", stage=stage, images=120)
        assert values(rows, "cross_entropy_gap", stage=stage) == [test - train]
    assert len(values(rows, "elbo_gap")) == (0 if variant == "autoencoder" else 2)
    assert len(values(rows, "perturbed_cross_entropy")) == 2 * len(NOISE_SCALES)
    assert np.isfinite([row.value for row in rows]).all()


def test_an_unperturbed_code_has_the_cross_entropy_of_the_posterior_mean():
    one = subject("input_dependent")
    x = one.data.test.float() / 255
    exact = -one.model().log_likelihood(x, one.model().posterior(x).mean).mean().item()
    for scale in ("absolute", "relative"):
        found = values(perturbed_codes(one).rows, "perturbed_cross_entropy", s=0.0, scale=scale)
        assert found == [pytest.approx(exact, rel=1e-6)]


def test_perturbing_an_ignored_code_costs_nothing():
    found = values(
        perturbed_codes(subject("flow", ignore_the_code)).rows, "perturbed_cross_entropy"
    )
    assert np.ptp(found) < 1e-5


def test_relative_perturbations_do_not_see_the_scale_of_the_codes():
    """Codes ten times as large, decoded by weights a tenth as large, are the same model."""

    def stretch(model) -> None:
        model.location.weight.mul_(10)
        model.location.bias.mul_(10)
        model.decoder[0].weight.div_(10)

    plain, stretched = (
        perturbed_codes(subject("autoencoder", change)).rows
        for change in (lambda model: None, stretch)
    )

    def found(rows, scale):
        return values(rows, "perturbed_cross_entropy", scale=scale)

    assert found(stretched, "relative") == pytest.approx(found(plain, "relative"), rel=1e-5)
    assert found(stretched, "absolute")[-1] != pytest.approx(found(plain, "absolute")[-1], rel=1e-4)
    ratio = values(stretched, "code_std")[0] / values(plain, "code_std")[0]
    assert ratio == pytest.approx(10, rel=1e-5)


def test_a_grey_data_set_is_compared_as_it_is():
    grey = small_data()
    grey = type(grey)(**(vars(grey) | {"binarization": "none"}))
    rows = measure(subject("autoencoder", data=grey)).rows
    x = grey.train.float() / 255
    model = subject("autoencoder", data=grey).model("end")
    exact = -model.log_likelihood(x, model.encode(x)).mean().item()
    assert values(rows, "train_cross_entropy", stage="end") == [pytest.approx(exact, rel=1e-5)]


def test_short_lists_train_for_the_same_number_of_steps():
    preset = PRESETS["default"]
    asked = [r.run for r in requests(small_run("flow", dataset="mnist", epochs=60), preset)]
    assert asked[0].distinct == 0
    assert [run.distinct for run in asked[1:]] == [250, 1000, 10_000]
    steps = {run.epochs * run.train_size // run.batch_size for run in asked[1:]}
    assert steps == {preset.secondary_steps["mnist"]}
    assert max(run.train_size for run in asked[1:]) <= 10_000
    assert list(requests(small_run("flow", seed=preset.secondary_seeds[""]), preset)) == []
    assert list(requests(small_run("flow", likelihood="gaussian"), preset)) == []


# The report


def made_up(folder: Path) -> Results:
    """Gaps of 30 and 20 nats, test cross-entropies of 100 and 104, by two seeds 0.1 apart."""
    lines, pictures = [], {}
    gaps, tests = {"autoencoder": 30, "input_dependent": 20}, (100, 104)
    for seed in (0, 1):
        for (variant, size_of_gap), test in zip(gaps.items(), tests):

            def add(metric: str, value: float, where: str, variant=variant, seed=seed) -> None:
                lines.append(["small", "cpu", variant, seed, "generalization", metric, where,
                              value + 0.1 * seed, np.nan, 10, "nats/image"])  # fmt: skip

            for images in (250, 1000):
                for stage, early in {"end": 0, "best": 2}.items():
                    where = f"images={images};steps=50;stage={stage}"
                    add("test_cross_entropy", test - early, where)
                    add("train_cross_entropy", test - size_of_gap, where)
                    add("cross_entropy_gap", size_of_gap - early, where)
                    if variant != "autoencoder":
                        add("elbo_gap", 25, where)
                key = f"generalization/{variant}/{seed}/curves_{images}"
                pictures[key] = np.linspace([200, 200, 200], [70, 99, 100], 5)
            for scale in ("absolute", "relative"):
                for s in (0, 0.5, 1):
                    steep = 10 if variant == "autoencoder" else 4
                    add("perturbed_cross_entropy", test + steep * s, f"s={s};scale={scale}")
            add("code_std", 3, "")
    return Results(pd.DataFrame(lines, columns=COLUMNS), pd.DataFrame(), pictures, folder)


def test_the_report_compares_gap_and_test_cross_entropy_in_pairs(tmp_path: Path):
    results = made_up(tmp_path)
    overfitting, perturbation = report.sections(results)
    assert "With 250 training images" in overfitting.takeaway
    # the seeds' common shift cancels in a paired difference, but not in a mean
    assert "ends 30.1 ± 0.6 nats above" in overfitting.takeaway
    assert "the gap is smaller for `input-dependent` (−10.0 ± 0.0)" in overfitting.takeaway
    assert "itself is higher for `input-dependent` (+4.0 ± 0.0)" in overfitting.takeaway
    assert "early stopping would have saved 2.0 ± 0.0" in overfitting.takeaway
    assert "of `autoencoder` 5.0 ± 0.0 nats" in perturbation.takeaway
    assert "the rise is smaller for `input-dependent` (−3.0 ± 0.0)" in perturbation.takeaway
    for section in (overfitting, perturbation):
        for file in (*section.files, *(figure for figure, _ in section.figures)):
            assert (tmp_path / file).stat().st_size > 0
    assert (tmp_path / "generalization.md").read_text().startswith(overfitting.takeaway)


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ([2.0, 2.1, 1.9], "would have saved 2.0 ± 0.2 of them"),
        ([0.0, 0.0, 0.0], "the best epoch is the last"),
        ([-0.2, 0.2, 0.1], "undecided"),
        ([-2.0, -2.1, -1.9], "would have saved nothing"),
    ],
)
def test_what_early_stopping_would_have_saved(saved, said):
    stages = [("best", 100.0)] * 3 + [("end", 100.0 + s) for s in saved]
    fewest = pd.DataFrame(
        [("test_cross_entropy", "autoencoder", place % 3, stage, value)
         for place, (stage, value) in enumerate(stages)],
        columns=["metric", "variant", "seed", "stage", "value"],
    )  # fmt: skip
    assert said in report.early_stopping(report.overtraining(fewest, "autoencoder"))


def test_no_rows_no_section(tmp_path: Path):
    empty = Results(pd.DataFrame(columns=COLUMNS), pd.DataFrame(), {}, tmp_path)
    assert report.sections(empty) == []


def test_curves_are_ordered_train_valid_test():
    one = subject("autoencoder", distinct=30, train_size=100, tracked=TRACKED)
    one.trained.history[:] = [
        {"seen_distortion": 1.0, "valid_distortion": 2.0, "test_distortion": 3.0,
         "seen_elbo": np.nan, "valid_elbo": np.nan, "test_elbo": np.nan}
    ]  # fmt: skip
    one.trained.best_epoch = 1
    assert torch.equal(measure(one).pictures["curves_30"], torch.tensor([[1.0, 2.0, 3.0]]))
