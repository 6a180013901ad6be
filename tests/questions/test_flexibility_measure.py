"""What a flexible posterior buys: gaps and their parts, and which runs are asked for."""

from __future__ import annotations

import pytest

from bench.config import PRESETS
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
        find(rows, f"{name}_gap", steps=5, proposals=2 * flexibility.DRAWS)[0]
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


def test_only_the_first_seed_is_asked_for():
    assert list(flexibility.requests(small_run("flow", seed=1), PRESETS["quick"])) == []
    (request,) = flexibility.requests(small_run("flow"), PRESETS["quick"])
    assert request.run == small_run("flow")
