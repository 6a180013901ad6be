"""Speed of tr(C G) against brute-force per-sample backpropagation, one thread, same run.

Run with `pytest tests/benchmarks --benchmark-only`; the ratio of the two means a noise sample is
what the trick gains.
"""

from __future__ import annotations

import pytest
import torch

from bench.bounds import standard_normal
from bench.gradient_noise import Cut, total_variance
from bench.gradients import pathwise
from bench.step import objective
from vaes import discover

IMAGES = 4
BRUTE_FORCE_SAMPLES = 40
TRICK_SAMPLES = 65_536


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return discover().variants["input_dependent"](784, 20, 200)


@pytest.fixture
def x():
    return torch.bernoulli(
        torch.full((IMAGES, 784), 0.13), generator=torch.Generator().manual_seed(0)
    )


def brute_force(model, x, samples, generator):
    """Total variance from one loss and backward pass a sample; moments in float64, as in C."""
    weights = [p for name, p in model.named_parameters() if not name.startswith("decoder")]
    squares, total = 0.0, 0.0
    for image in x.split(1):
        noise = standard_normal(1, model.latent_dim, generator)
        mean = torch.zeros(sum(w.numel() for w in weights), dtype=torch.float64)
        for _ in range(samples):
            objective(model, image, noise, pathwise).backward()
            g = torch.cat([w.grad.flatten() for w in weights]).double()
            model.zero_grad(set_to_none=True)
            squares += g.square().sum().item()
            mean += g / samples
        total += samples * mean.square().sum().item()
    return (squares - total) / (samples - 1) / len(x)


@pytest.mark.benchmark(group="a gradient's total variance, 784-200-200-20")
def test_brute_force(benchmark, model, x):
    generator = torch.Generator().manual_seed(0)
    benchmark.extra_info["noise_samples"] = samples = BRUTE_FORCE_SAMPLES * len(x)
    value = benchmark(brute_force, model, x, BRUTE_FORCE_SAMPLES, generator)
    benchmark.extra_info["microseconds_per_sample"] = 1e6 * benchmark.stats["min"] / samples
    assert value > 0


@pytest.mark.benchmark(group="a gradient's total variance, 784-200-200-20")
def test_trace_trick(benchmark, model, x):
    """Includes cutting the posterior, i.e. the encoder's Jacobians."""

    def trick():
        generator = torch.Generator().manual_seed(0)
        return total_variance(Cut.of(model, x), "pathwise", 1, generator, 0.0, TRICK_SAMPLES)

    found = benchmark(trick)
    samples = found.replicates * len(x)
    benchmark.extra_info["noise_samples"] = samples
    benchmark.extra_info["microseconds_per_sample"] = 1e6 * benchmark.stats["min"] / samples
    assert samples == TRICK_SAMPLES


def test_both_give_the_same_number(model, x):
    """400 brute-force draws: within 20 %."""
    generator = torch.Generator().manual_seed(0)
    expected = brute_force(model, x, 100, generator)
    found = total_variance(Cut.of(model, x), "pathwise", 1, generator, 0.0, TRICK_SAMPLES)
    assert found.value[0].item() == pytest.approx(expected, rel=0.2)
