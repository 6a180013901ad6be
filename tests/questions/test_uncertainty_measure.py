"""Uncertainty: rank correlations, entropies and refitted posteriors against what they must be."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch.distributions import AffineTransform, TransformedDistribution

from bench.config import PRESETS
from bench.data import corruptions
from bench.data.corruptions import LEVELS, TURNED, other_source
from bench.questions.uncertainty.measure import (
    FITTED_LEVELS,
    entropy,
    measure,
    monotony,
    profile,
    rank_correlation,
    requests,
    scale,
)
from tests.subjects import ignore_the_code, small_run, subject
from vaes import VAE, discover
from vaes.base import diagonal_gaussian

FLAT = ("fixed_variance", "learned_diagonal")


VAES = [name for name, kind in discover().variants.items() if issubclass(kind, VAE)]


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rows_of(variant: str, change=lambda model: None, fit_steps: int = 3) -> pd.DataFrame:
    found = measure(subject(variant, change), 5, 4, fit_steps, others=TURNED).rows
    frame = pd.DataFrame([vars(row) for row in found])
    frame["corruption"] = [row.settings["corruption"] for row in found]
    return frame


def test_rank_correlation_is_spearmans():
    values = torch.randint(0, 4, (6, 200), generator=draws()).double()
    found = rank_correlation(values)
    for place in range(values.shape[1]):
        column = values[:, place].numpy()
        expected = 0.0 if np.ptp(column) == 0 else spearmanr(range(6), column).statistic
        assert found[place].item() == pytest.approx(expected, abs=1e-12)


def test_a_constant_entropy_has_no_correlation_and_counts_as_flat():
    """Differences of float32's rounding do not count."""
    values = 3 + 1e-5 * torch.randn((6, 50), generator=draws())
    assert (rank_correlation(values) == 0).all()
    numbers = {row.metric: row.value for row in monotony(values, draws())}
    assert numbers["entropy_spearman"] == 0
    assert numbers["entropy_flat"] == 1
    assert numbers["entropy_rises"] == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_an_entropy_that_follows_the_level_has_correlation_one(sign):
    start = torch.randn((1, 50), generator=draws())
    step = torch.rand((5, 50), generator=draws()) + 0.1
    values = torch.cat([start, start + sign * step.cumsum(0)])
    numbers = {row.metric: row.value for row in monotony(values, draws())}
    for end in ("", "_low", "_high"):
        assert numbers[f"entropy_spearman{end}"] == pytest.approx(sign)
    assert numbers["entropy_rises"] == (sign == 1)
    assert numbers["entropy_flat"] == 0
    assert numbers["entropy_change"] == pytest.approx(sign * step.sum(0).mean().item(), rel=1e-5)


def test_the_bootstrap_interval_covers_the_mean_of_a_normal_sample():
    """Half-width within 15 % of 1.96 standard errors; 1,000 resamples have an error of 4 %."""
    values = torch.randn((6, 400), generator=draws())
    rho = rank_correlation(values)
    numbers = {row.metric: row.value for row in monotony(values, draws())}
    half = (numbers["entropy_spearman_high"] - numbers["entropy_spearman_low"]) / 2
    assert half == pytest.approx(1.96 * rho.std().item() / math.sqrt(400), rel=0.15)


def test_entropy_and_scale_of_a_posterior_torch_has_no_entropy_of():
    """z = 2 n + 1 with n from N(0, s²): 6 standard errors, P < 1e-8 by chance at a fixed seed."""
    base = diagonal_gaussian(torch.zeros(3, 2), torch.tensor([0.5, 2.0]).expand(3, 2))
    posterior = TransformedDistribution(base, AffineTransform(1.0, 2.0, event_dim=1))
    noise = torch.randn((20_000, 3, 2), generator=draws())
    z = 1 + 2 * noise * torch.tensor([0.5, 2.0])
    exact = 2 * 0.5 * math.log(2 * math.pi * math.e) + math.log(1.0) + math.log(4.0)
    # −log q has standard deviation 1 for two latents
    assert (entropy(posterior, z) - exact).abs().max() < 6 / math.sqrt(20_000)
    error = torch.tensor([1.0, 4.0]) / math.sqrt(2 * 20_000)
    assert ((scale(posterior, z) - torch.tensor([1.0, 4.0])).abs() < 6 * error).all()


def test_log_scale_is_averaged_over_active_units_alone():
    def spread(model) -> None:
        model.log_scale.copy_(torch.tensor([-1.0, -2.0, 5.0]))

    one = subject("learned_diagonal", spread)
    x = one.data.test.float() / 255
    found = profile(one.model(), x, torch.tensor([True, True, False]), 5, draws())
    assert torch.allclose(found.log_scale, torch.full((len(x),), -1.5))
    exact = 1.5 * math.log(2 * math.pi * math.e) + 2
    assert torch.allclose(found.entropy, torch.full((len(x),), exact))


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
        for metric in ("entropy", "log_scale", "rate"):
            assert counts[metric] == len(levels)
        assert counts.get("iw_bound", 0) == (0 if name == "contrast" else len(levels))
        assert counts.get("fitted_entropy_change", 0) in (0, len(FITTED_LEVELS))
    assert np.isfinite(rows.value).all()


@pytest.mark.parametrize("variant", FLAT)
def test_shared_variances_are_flat_by_construction(variant):
    rows = rows_of(variant).set_index("metric").value
    assert (rows["entropy_flat"] == 1).all()
    assert (rows["entropy_spearman"] == 0).all()
    assert "fitted_entropy_change" not in rows.index


def test_a_plain_autoencoder_has_no_uncertainty():
    assert measure(subject("autoencoder"), 5, 4, fit_steps=1, others=TURNED).rows == []


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


def test_only_the_first_seeds_and_one_augmented_variant_are_asked_for():
    preset = PRESETS["default"]

    def asked(run):
        return [request.run for request in requests(run, preset)]

    run = small_run("input_dependent", epochs=100)
    augmented = run.with_(augmentation="bit_flips", epochs=50)
    assert asked(run) == [run, augmented]
    assert asked(small_run("flow")) == [small_run("flow")]
    assert asked(run.with_(seed=preset.secondary_seeds[""])) == []
    assert asked(run.with_(likelihood="gaussian")) == []


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
