"""Generalization: gaps and perturbed codes against arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.config import PRESETS, Run
from bench.data.training_set import fixed_draw, training_set
from bench.questions.generalization.measure import (
    NOISE_SCALES,
    TRACKED,
    covariance_root,
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


def test_rows_of_a_short_list_are_of_its_weights_and_its_images():
    data = training_set(small_data(), small_run("input_dependent", distinct=30, train_size=100))
    run = {"distinct": 30, "train_size": 100, "tracked": TRACKED, "epochs": 3}
    one = subject("input_dependent", data=data, **run)
    rows = measure(one).rows
    model, seen = one.model(), data.seen.float() / 255
    exact = -model.log_likelihood(seen, model.posterior(seen).mean).mean().item()
    (found,) = values(rows, "train_cross_entropy", images=30, stage="end", code="mean")
    assert found == pytest.approx(exact, rel=1e-5)
    for code in ("mean", "sampled"):
        (train,), (test,) = (
            values(rows, f"{split}_cross_entropy", images=30, stage="best", code=code)
            for split in ("train", "test")
        )
        assert values(rows, "cross_entropy_gap", stage="best", code=code) == [test - train]
    assert values(rows, "best_epoch", steps=3, kl_weight=1.0) == [1]
    assert values(rows, "learning_rate", steps=3) == [one.run.learning_rate]


@pytest.mark.parametrize("variant", discover().variants)
def test_every_variant_has_gaps_and_perturbed_codes(variant):
    rows = measure(subject(variant)).rows
    plain = variant == "autoencoder"
    for stage in ("end", "best"):
        for code in ("mean",) if plain else ("mean", "sampled"):
            (train,) = values(rows, "train_cross_entropy", stage=stage, images=120, code=code)
            (test,) = values(rows, "test_cross_entropy", stage=stage, images=120, code=code)
            assert values(rows, "cross_entropy_gap", stage=stage, code=code) == [test - train]
    for metric in ("elbo_gap", "code_to_noise"):
        assert len([row for row in rows if row.metric == metric]) == (0 if plain else 2)
    assert len(values(rows, "perturbed_cross_entropy")) == 2 * len(NOISE_SCALES)
    assert np.isfinite([row.value for row in rows]).all()


def test_codes_are_compared_with_the_noise_of_the_posterior():
    def change(model) -> None:
        model.scale.fill_(0.25)

    one = subject("fixed_variance", change)
    x = fixed_draw(one.data, one.run).float() / 255
    exact = one.model().encode(x).var(0).mean().sqrt().item() / 0.3
    found = values(measure(one).rows, "code_to_noise", stage="end")
    assert found == [pytest.approx(exact, rel=1e-3)]


def test_an_unperturbed_code_has_the_cross_entropy_of_the_posterior_mean():
    one = subject("input_dependent")
    x = one.data.test.float() / 255
    exact = -one.model().log_likelihood(x, one.model().posterior(x).mean).mean().item()
    for scale in ("absolute", "covariance"):
        found = values(
            perturbed_codes(one).rows, "perturbed_cross_entropy", noise_scale=0.0, noise_unit=scale
        )
        assert found == [pytest.approx(exact, rel=1e-6)]


def test_perturbing_an_ignored_code_costs_nothing():
    found = values(
        perturbed_codes(subject("flow", ignore_the_code)).rows, "perturbed_cross_entropy"
    )
    assert np.ptp(found) < 1e-5


def test_noise_has_the_covariance_of_the_codes_also_where_a_direction_is_dead():
    draws = torch.Generator().manual_seed(0)
    code = torch.randn((400, 3), generator=draws) @ torch.tensor(
        [[1.0, 2, 0], [0, 1, 0], [0, 0, 0]]
    )
    root = covariance_root(code)
    assert torch.allclose(root.mT @ root, code.double().mT.cov(), atol=1e-12)


def shaped(change, unit: str = "covariance") -> list[float]:
    rows = perturbed_codes(subject("autoencoder", change)).rows
    return values(rows, "perturbed_cross_entropy", noise_unit=unit)


def test_shaped_perturbations_do_not_see_the_scale_of_the_codes():
    """Codes ten times as large, decoded by weights a tenth as large, are the same model."""

    def stretch(model) -> None:
        model.location.weight.mul_(10)
        model.location.bias.mul_(10)
        model.decoder[0].weight.div_(10)

    plain = shaped(lambda model: None)
    assert shaped(stretch) == pytest.approx(plain, rel=1e-5)
    isotropic = shaped(stretch, "absolute")[-1]
    assert isotropic != pytest.approx(shaped(lambda model: None, "absolute")[-1], rel=1e-4)


def test_a_dead_direction_bears_no_noise():
    """Of three latents the decoder reads the one in which all codes are alike."""

    def change(model) -> None:
        model.location.weight[2] = 0
        model.decoder[0].weight[:, :2] = 0

    assert np.ptp(shaped(change)) < 1e-5
    assert np.ptp(shaped(change, "absolute")) > 1e-2


def test_a_grey_data_set_is_compared_as_it_is():
    grey = small_data()
    grey = type(grey)(**(vars(grey) | {"binarization": "none"}))
    rows = measure(subject("autoencoder", data=grey)).rows
    x = grey.train.float() / 255
    model = subject("autoencoder", data=grey).model("end")
    exact = -model.log_likelihood(x, model.encode(x)).mean().item()
    assert values(rows, "train_cross_entropy", stage="end") == [pytest.approx(exact, rel=1e-5)]


def test_short_lists_train_as_long_as_stated_with_and_without_the_kl():
    preset = PRESETS["default"]

    def asked(variant: str, **changes) -> list[Run]:
        run = small_run(variant, dataset="mnist", epochs=60, **changes)
        return [request.run for request in requests(run, preset)]

    whole, *short = asked("fixed_variance", seed=4)
    assert whole.distinct == 0
    assert [(run.distinct, run.kl_weight) for run in short] == [
        (250, 1.0),
        (250, 0.0),
        (1000, 1.0),
        (1000, 0.0),
    ]
    steps = {run.distinct: run.epochs * run.train_size // run.batch_size for run in short}
    assert steps == preset.short_lists["mnist"]
    assert {run.kl_weight for run in asked("flow") + asked("autoencoder")} == {1.0}
    assert asked("flow", likelihood="gaussian") == []


def test_curves_are_ordered_train_valid():
    for weight in (1.0, 0.0):
        options = {"distinct": 30, "train_size": 100, "tracked": TRACKED, "kl_weight": weight}
        one = subject("autoencoder", **options)
        one = replace(one, data=training_set(one.data, one.run))
        one.trained.history[:] = [{"seen_distortion": 1.0, "valid_distortion": 2.0}]
        pictures = measure(one).pictures
        if weight:
            assert torch.equal(pictures["curves_30"], torch.tensor([[1.0, 2.0]]))
        else:  # drawn nowhere
            assert pictures == {}
