"""What a flexible posterior buys: gaps and their parts, and which runs are asked for."""

from __future__ import annotations

import pytest

from bench.config import PRESETS
from bench.questions.flexibility import COMPARED
from bench.questions.flexibility import measure as flexibility
from tests.subjects import find, small_run, subject
from vaes import VAE, discover

VAES = [name for name, kind in discover().variants.items() if issubclass(kind, VAE)]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(flexibility, "TIMED_STEPS", 2)
    monkeypatch.setattr(flexibility, "WARM_UP_STEPS", 1)


@pytest.mark.parametrize("variant", VAES)
def test_the_inference_gap_is_the_sum_of_its_parts(variant):
    rows = flexibility.measure(subject(variant), 6, 5).rows
    total, approximation, amortization = (
        find(rows, f"{name}_gap", steps=5, proposals=5 * flexibility.DRAWS)[0]
        for name in ("inference", "approximation", "amortization")
    )
    assert approximation.value + amortization.value == pytest.approx(total.value, abs=1e-9)
    assert total.n == 6
    assert total.standard_error > 0


def test_a_step_states_its_estimator_and_what_it_is_compared_with():
    for variant, estimator in {
        "autoencoder": "none",
        "full_covariance": "pathwise",
        "flow": "pathwise_sampled_kl",
    }.items():
        rows = flexibility.measure(subject(variant), 6, 5).rows
        assert find(rows, "step_time", estimator=estimator)[0].value > 0
        assert find(rows, "step_time_ratio", reference="input_dependent")[0].value > 0


def test_a_plain_autoencoder_has_times_alone():
    rows = flexibility.measure(subject("autoencoder"), 6, 5).rows
    assert {row.metric for row in rows} == {"step_time", "step_time_ratio"}


def test_the_checks_of_the_likelihood_agree_with_it():
    """Images of a small model: the bounds meet within 0.01 nats, and annealed importance sampling
    finds the same within 5 standard errors (P of a false alarm < 1e-5) or 0.01 nats."""
    rows = flexibility.measure(subject("input_dependent", sharp), 6, 50, 40, 40).rows
    lower, upper, slack = (
        find(rows, f"simulated_{name}", proposals=5 * flexibility.DRAWS)[0]
        for name in ("lower_bound", "upper_bound", "slack")
    )
    assert slack.value == pytest.approx(upper.value - lower.value)
    assert abs(slack.value) < 0.01
    difference = find(rows, "annealed_difference", chains=10, temperatures=150)[0]
    assert difference.n == 40
    assert abs(difference.value) < max(0.01, 5 * difference.standard_error)
    assert find(rows, "annealed_acceptance")[0].value > 0.8


def test_the_decoder_passes_of_annealing_are_told_before_they_are_made(monkeypatch):
    """Compiling pays by their number: each temperature but the last takes several."""
    whole, told, made = flexibility.log_likelihood_for, [], []

    def counted(model, x, passes):
        told.append(passes)
        log_likelihood, notice = whole(model, x, passes)

        def decode(x, z):
            made.append(z.shape[:-1].numel())
            return log_likelihood(x, z)

        return decode, notice

    monkeypatch.setattr(flexibility, "log_likelihood_for", counted)
    flexibility.measure(subject("input_dependent"), 6, 5, annealed_images=8)
    assert told == [sum(made)]


def test_the_images_of_the_gaps_are_among_the_annealed():
    one = subject("input_dependent")
    assert one.subset(40)[:6].tolist() == one.subset(6).tolist()
    for preset in PRESETS.values():
        assert preset.annealed_images >= preset.flexibility_images


def sharp(model) -> None:
    """A decoder whose posteriors are no longer the prior."""
    model.decoder[0].weight.mul_(3)
    model.decoder[-1].weight.mul_(4)


def test_a_likelihood_of_one_s_own_is_not_simulated_and_says_so():
    class Own(discover().variants["input_dependent"]):
        def log_likelihood(self, x, z):
            return 0.5 * super().log_likelihood(x, z)

    one = subject("input_dependent")
    rows = flexibility.measure(type(one)(one.trained, Own, one.data), 6, 5, 6).rows
    assert "log-likelihood of its own" in find(rows, "simulated_slack")[0].reason


def test_differences_are_paired_by_image():
    """Variants that differ in nothing have none."""
    found = flexibility.measure(subject("input_dependent"), 6, 5)
    assert found.arrays.keys() == set(COMPARED)
    results = {("input_dependent", 0): found, ("flow", 0): found}
    rows = [row for *_, row in flexibility.compare(results, "input_dependent")]
    assert {row.metric for row in rows} == {f"{name}_difference" for name in COMPARED}
    assert all(row.value == row.standard_error == 0 for row in rows)
    settings = {"steps": 5, "proposals": 5 * flexibility.DRAWS, "reference": "input_dependent"}
    assert all(row.settings == settings for row in rows)


def test_log_likelihoods_are_checked_once():
    preset, run = PRESETS["default"], small_run("flow")
    found = {
        (variant, seed): dict(request.settings)
        for variant in ("input_dependent", "flow")
        for seed in range(7)
        for request in flexibility.requests(run.with_(variant=variant, seed=seed), preset)
    }
    assert {seed for _, seed in found} == {0, 1, 2, 3, 4}
    simulated = {key for key, settings in found.items() if settings["simulated_images"]}
    annealed = {key for key, settings in found.items() if settings["annealed_images"]}
    assert simulated == {("input_dependent", 0), ("flow", 0)}
    assert annealed == simulated
    counts = [found[variant, 0]["annealed_images"] for variant in ("input_dependent", "flow")]
    assert counts == [preset.annealed_images, preset.flexibility_images]
