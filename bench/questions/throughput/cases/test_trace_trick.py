"""The variance of a gradient by tr(C G), beside brute-force backpropagation, sample by sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.config import REFERENCE
from bench.inference.gradient_variance import PosteriorGradient, total_variance
from bench.questions.throughput.actions import brute_force_variance

SHAPE = (784, 20, 200)
IMAGES = 4
BRUTE_FORCE_SAMPLES = 40
TRICK_SAMPLES = 65_536


def test_trace_trick(timed, benchmark, setup):
    """The encoder's Jacobians count; what brute force would need for as many samples is scaled."""
    if setup.device != "cpu" or not setup.full:
        pytest.skip("compared on a CPU alone, and with --full alone: it takes long")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = setup.variant(REFERENCE)(*SHAPE)
    noise = torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.full((IMAGES, SHAPE[0]), 0.13), generator=noise)

    # compiled once, as for a measurement of many estimators
    decoded = PosteriorGradient.from_model(model, x, passes=10**9).decoded

    def trick() -> None:
        gradient = replace(PosteriorGradient.from_model(model, x), decoded=decoded)
        found = total_variance(gradient, "pathwise", 1, noise, 0.0, TRICK_SAMPLES)
        assert found.replicates * IMAGES == TRICK_SAMPLES

    timed(
        trick,
        {"brute_force": lambda: brute_force_variance(model, x, BRUTE_FORCE_SAMPLES, noise)},
        items=TRICK_SAMPLES,
        kind="trace_trick",
    )
    found = benchmark.extra_info
    samples = TRICK_SAMPLES / (BRUTE_FORCE_SAMPLES * IMAGES)
    found["trick_ratio"] = samples * found["brute_force_ratio"]
