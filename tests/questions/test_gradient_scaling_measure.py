"""Measuring how the gradient's noise grows with the number of latents."""

from __future__ import annotations

from bench.config import PRESETS, Run
from bench.questions.gradient_scaling import measure as gradient_scaling
from tests.posteriors import perturbed
from tests.subjects import find, of_digits
from vaes import discover


def test_scaling_states_its_latent_dimension():
    rows = gradient_scaling.measure(
        of_digits(perturbed(discover().variants["input_dependent"], 64)), 4, 300
    ).rows
    assert {r.metric for r in rows} == {"total_variance"}
    for stage in ("initialisation", "trained"):
        (row,) = find(rows, "total_variance", L=3, stage=stage, S=2, estimator="rloo")
        assert row.value > 0


def test_requests_cover_the_latent_dimensions_of_one_variant_and_three_seeds():
    run, preset = Run("input_dependent", "mnist5k", 0, 100), PRESETS["default"]
    dims = [r.run.latent_dim for r in gradient_scaling.requests(run, preset)]
    assert dims == [2, 5, 10, 20, 50]
    assert list(gradient_scaling.requests(run.with_(variant="flow"), preset)) == []
    seeds = [len(list(gradient_scaling.requests(run.with_(seed=s), preset))) for s in range(4)]
    assert seeds == [5, 5, 5, 0]
