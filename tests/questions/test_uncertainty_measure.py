"""Uncertainty: rank correlations, entropies and refitted posteriors against what they must be."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import AffineTransform, TransformedDistribution

from bench.config import PRESETS
from bench.data import corruptions
from bench.data.corruptions import LEVELS, TURNED, other_source
from bench.data.dataset import load
from bench.data.training_set import augment
from bench.grid.contract import Subject
from bench.questions.budget.measure import budgets
from bench.questions.uncertainty.measure import (
    FITTED_LEVELS,
    SHARE,
    active_units,
    best_entropies,
    entropy,
    measure,
    profile,
    requests,
)
from bench.training.loop import steps_of
from tests.subjects import find, ignore_the_code, small_run, subject
from vaes import VAE, discover
from vaes.base import diagonal_gaussian

FLAT = ("fixed_variance", "learned_diagonal")


VAES = [name for name, kind in discover().variants.items() if issubclass(kind, VAE)]


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rows_of(variant: str, change=lambda model: None, fit_steps: int = 3) -> pd.DataFrame:
    found = measure(subject(variant, change), 2, 5, 4, fit_steps, others=TURNED).rows
    frame = pd.DataFrame([vars(row) for row in found])
    frame["corruption"] = [row.settings["corruption"] for row in found]
    return frame


def test_seeds_look_at_images_of_their_own(monkeypatch):
    """30 of 60 images in each of two seeds; a third begins again."""
    looked_at, subset = [], Subject.subset

    def spied(self, count):
        places = subset(self, count)
        looked_at.append(places.tolist())
        return places

    monkeypatch.setattr(Subject, "subset", spied)
    rows = [measure(subject("learned_diagonal", seed=s), 2, 5, 4, 3, TURNED).rows for s in range(3)]
    first, second, third = looked_at
    assert sorted(first + second) == list(range(60))
    assert third == first
    assert {row.n for found in rows for row in found if row.metric == "entropy"} == {30}


def test_the_largest_change_is_that_of_any_image_at_any_level():
    one = subject("input_dependent")
    rows = measure(one, 2, 5, 4, 3, others=TURNED).rows
    (clean,) = find(rows, "entropy", corruption="none")
    for name in ("bit_flips", "contrast"):
        (largest,) = find(rows, "entropy_largest_change", corruption=name)
        means = [row.value - clean.value for row in find(rows, "entropy", corruption=name)]
        assert largest.value > max(map(abs, means)) > 0


def test_entropy_of_a_posterior_torch_has_no_entropy_of():
    """z = 2 n + 1 with n from N(0, s²): 6 standard errors, P < 1e-8 by chance at a fixed seed."""
    base = diagonal_gaussian(torch.zeros(3, 2), torch.tensor([0.5, 2.0]).expand(3, 2))
    posterior = TransformedDistribution(base, AffineTransform(1.0, 2.0, event_dim=1))
    noise = torch.randn((20_000, 3, 2), generator=draws())
    z = 1 + 2 * noise * torch.tensor([0.5, 2.0])
    exact = 2 * 0.5 * math.log(2 * math.pi * math.e) + math.log(1.0) + math.log(4.0)
    # −log q has standard deviation 1 for two latents
    assert (entropy(posterior, z) - exact).abs().max() < 6 / math.sqrt(20_000)


def test_the_active_units_have_a_part_of_the_entropy():
    def spread(model) -> None:
        model.log_scale.copy_(torch.tensor([-1.0, -2.0, 5.0]))

    one = subject("learned_diagonal", spread)
    x = one.data.test.float() / 255
    found = profile(one.model(), x, torch.tensor([True, True, False]), 5, draws())
    each = 0.5 * math.log(2 * math.pi * math.e)
    assert torch.allclose(found.active_entropy, torch.full((len(x),), 2 * each - 3))
    assert torch.allclose(found.entropy, torch.full((len(x),), 3 * each + 2))


@pytest.mark.parametrize("variant", VAES)
def test_active_units_are_those_of_posteriors_with_axes(variant):
    """After a rotation of the latents they would be others."""

    def spread(model) -> None:
        if variant == "learned_diagonal":
            model.log_scale.copy_(torch.tensor([-1.0, -2.0, 5.0]))

    one = subject(variant, spread)
    x = one.data.test.float() / 255
    active = active_units(one.model(), x, draws())
    found = profile(one.model(), x, active, 5, draws())
    assert (found.active_entropy is not None) == (
        variant in ("learned_diagonal", "input_dependent")
    )


def test_a_grey_image_has_no_bound():
    one = subject("input_dependent")
    active = torch.ones(3, dtype=torch.bool)
    x = one.data.test.float() / 255
    assert profile(one.model(), x, active, 5, draws()).bound.shape == (5,)
    assert profile(one.model(), 0.5 * x, active, 5, draws()).bound is None


@pytest.mark.parametrize("variant", VAES)
def test_every_posterior_has_every_number_at_every_level(variant):
    rows = rows_of(variant)
    for name, levels in LEVELS.items():
        counts = rows[rows.corruption == name].metric.value_counts()
        for metric in ("entropy", "rate"):
            assert counts[metric] == len(levels)
        assert counts.get("active_entropy", 0) == (
            len(levels) if variant == "input_dependent" else 0
        )
        assert counts.get("iw_bound", 0) == (0 if name == "contrast" else len(levels))
        fitted = counts.get("fitted_entropy_change", 0)
        assert fitted == (0 if name == "contrast" or variant in FLAT else len(FITTED_LEVELS))
    assert np.isfinite(rows.value).all()


@pytest.mark.parametrize("variant", FLAT)
def test_shared_variances_are_flat_by_construction(variant):
    rows = rows_of(variant).set_index("metric").value
    assert (rows["entropy_largest_change"] == 0).all()
    assert "fitted_entropy_change" not in rows.index


def test_a_plain_autoencoder_has_no_uncertainty():
    assert measure(subject("autoencoder"), 2, 5, 4, fit_steps=1, others=TURNED).rows == []


def test_refitting_finds_what_a_code_that_is_ignored_deserves():
    """The best posterior is then the prior for every image, however the encoder's moves."""

    def change(model) -> None:
        ignore_the_code(model)
        model.log_scale.weight.mul_(5)

    rows = rows_of("input_dependent", change, fit_steps=300)
    encoder = rows[rows.metric == "encoder_entropy_change"].value
    fitted = rows[rows.metric == "fitted_entropy_change"].value
    assert encoder.abs().max() > 0.2
    assert fitted.abs().max() < 0.02
    difference = rows[rows.metric == "fitted_minus_encoder_entropy_change"].value
    assert np.allclose(difference, fitted.to_numpy() - encoder.to_numpy())


def test_changes_are_of_the_images_that_the_levels_are_of():
    """Corrupted minus clean, of all 30 images of the seed."""
    rows = measure(subject("full_covariance"), 2, 5, 30, 3, others=TURNED).rows
    (clean,) = find(rows, "entropy", corruption="none")
    for change in find(rows, "encoder_entropy_change"):
        (after,) = find(rows, "entropy", **change.settings)
        assert change.value == pytest.approx(after.value - clean.value, abs=1e-5)


def test_images_fitted_at_once_have_the_entropies_they_have_alone():
    """A way more changes no other: clean images first, then twice the same ones inverted."""
    one = subject("flow")
    x = one.data.test[:4].float() / 255
    both = best_entropies(one.model(), torch.stack([x, 1 - x, 1 - x]), one, steps=0)
    alone = best_entropies(one.model(), x.unsqueeze(0), one, steps=0)
    for name in ("encoder", "fitted"):
        assert torch.allclose(both[name][0], alone[name][0], atol=1e-5)
        assert torch.allclose(both[name][1], both[name][2], atol=1e-5)
        assert not torch.allclose(both[name][0], both[name][1])


def test_the_reference_is_trained_with_noise_and_as_many_steps_without():
    preset = PRESETS["default"]

    def asked(run):
        return [request.run for request in requests(run, preset)]

    run = small_run("input_dependent", epochs=100, seed=4)
    clean = run.with_(epochs=100 // SHARE - 1, learning_rate=None)
    noisy = clean.with_(augmentation="bit_flips", epochs=clean.epochs // 2)
    assert asked(run) == [run, clean, noisy]
    assert asked(small_run("flow")) == [small_run("flow")]
    assert asked(run.with_(likelihood="gaussian")) == []
    data = load("mnist5k")
    run, clean, noisy = asked(run.with_(epochs=240))
    assert clean.epochs in budgets(run.epochs, preset.halvings)
    assert steps_of(noisy, augment(data, noisy)) == steps_of(clean, data)


def test_rows_say_on_what_and_for_how_long_a_model_was_trained():
    for noise, epochs in {"": 2, "bit_flips": 4}.items():
        one = subject("learned_diagonal", augmentation=noise)
        for row in measure(one, 2, 5, 4, 3, others=TURNED).rows:
            assert row.settings["trained_on"] == (noise or "clean")
            assert row.settings["epochs"] == epochs


def test_where_other_images_come_from_is_part_of_the_request(monkeypatch):
    """So that a result is not taken for one made with other images."""
    asked = {}
    for on_disk in (True, False):
        other_source.cache_clear()
        monkeypatch.setattr(corruptions, "is_on_disk", lambda name, here=on_disk: here)
        (request,) = requests(small_run("flow", dataset="mnist5k"), PRESETS["quick"])
        asked[on_disk] = dict(request.settings)["others"]
    other_source.cache_clear()
    assert asked == {True: "fashion_mnist", False: TURNED}
    assert other_source("fashion_mnist") == "mnist5k"
