"""Generalization: gaps and perturbed codes against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.config import PRESETS
from bench.questions.generalization.measure import (
    NOISE_SCALES,
    TRACKED,
    gap,
    measure,
    perturbed_codes,
    requests,
)
from tests.subjects import find, ignore_the_code, small_data, small_run, subject
from vaes import discover


def values(rows, metric: str, **settings) -> list[float]:
    return [row.value for row in find(rows, metric, **settings)]


def test_a_gap_is_positive_where_test_images_fare_worse():
    assert gap("distortion", {"train": 70.0, "test": 100.0}) == 30
    assert gap("elbo", {"train": -80.0, "test": -110.0}) == 30


def test_rows_of_a_short_list_come_from_its_history():
    one = subject("input_dependent", distinct=30, train_size=100, tracked=TRACKED, epochs=3)
    one.trained.history[:] = [
        {
            "seen_distortion": 90.0 - 10 * epoch,
            "valid_distortion": 95.0,
            "test_distortion": test,
            "seen_elbo": -100.0,
            "valid_elbo": -120.0,
            "test_elbo": -130.0,
        }
        for epoch, test in enumerate((94.0, 91.0, 99.0))
    ]
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
    gaps = [row for row in rows if row.metric == "elbo_gap"]
    assert len(gaps) == (0 if variant == "autoencoder" else 2)
    assert len(values(rows, "perturbed_cross_entropy")) == 2 * len(NOISE_SCALES)
    assert np.isfinite([row.value for row in rows]).all()


def test_an_unperturbed_code_has_the_cross_entropy_of_the_posterior_mean():
    one = subject("input_dependent")
    x = one.data.test.float() / 255
    exact = -one.model().log_likelihood(x, one.model().posterior(x).mean).mean().item()
    for scale in ("absolute", "relative"):
        found = values(
            perturbed_codes(one).rows, "perturbed_cross_entropy", noise_scale=0.0, noise_unit=scale
        )
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
        return values(rows, "perturbed_cross_entropy", noise_unit=scale)

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


def test_curves_are_ordered_train_valid_test():
    one = subject("autoencoder", distinct=30, train_size=100, tracked=TRACKED)
    one.trained.history[:] = [
        {
            "seen_distortion": 1.0,
            "valid_distortion": 2.0,
            "test_distortion": 3.0,
            "seen_elbo": np.nan,
            "valid_elbo": np.nan,
            "test_elbo": np.nan,
        }
    ]
    one.trained.best_epoch = 1
    assert torch.equal(measure(one).pictures["curves_30"], torch.tensor([[1.0, 2.0, 3.0]]))
