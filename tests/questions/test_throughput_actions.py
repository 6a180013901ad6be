"""What is timed is what it claims to be; how long it takes is never asserted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import load
from bench.errors import BenchError
from bench.inference import native
from bench.inference.gradient_variance import PosteriorGradient, total_variance
from bench.questions.throughput import parts
from bench.questions.throughput.actions import (
    brute_force_variance,
    evaluation,
    fewest_samples,
    filled,
    importance_bound,
    matrix_product,
    memory_copy,
    ordinary_step,
    products_of,
    training_step,
)
from bench.questions.throughput.fresh import peak_memory
from bench.randomness import generator
from bench.training.loop import build, train
from vaes import discover

VARIANTS = discover().variants
D, H, L, B = 16, 8, 3, 20


@pytest.fixture
def data(tiny):
    return load(str(tiny))


def run_of(variant: str, **changes) -> Run:
    run = Run(variant, "tiny", 0, epochs=2, latent_dim=L, hidden_dim=H, batch_size=B)
    return run.with_(**changes)


def model_of(variant: str):
    return build(run_of(variant), VARIANTS[variant], torch.full((D,), 0.5))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_timed_step_is_the_step_of_training(data, variant):
    run = run_of(variant, steps=12)
    step = training_step(run, VARIANTS[variant], data)
    losses = torch.stack([step() for _ in range(12)]).double()
    history = train(run, VARIANTS[variant], data).history
    assert [entry["objective"] for entry in history] == [c.mean().item() for c in losses.split(6)]


@pytest.mark.parametrize("variant", [n for n, kind in VARIANTS.items() if n != "flow"])
def test_the_ordinary_loop_follows_the_same_loss(data, variant):
    """On binary images a loss differs by order and noise alone: the first of both are near."""
    binary = replace(data, train=(data.train > 127).to(torch.uint8) * 255, binarization="binary")
    run = run_of(variant, batch_size=len(data.train))
    ours = training_step(run, VARIANTS[variant], binary)()
    theirs = ordinary_step(run, VARIANTS[variant], binary)()
    assert theirs == pytest.approx(ours.item(), rel=0.1)


def test_the_ordinary_loop_needs_a_reparameterized_sample(data):
    class Sampled(VARIANTS["input_dependent"]):
        def posterior(self, x):
            q = super().posterior(x)
            q.base_dist.has_rsample = False
            return q

    with pytest.raises(NotImplementedError):
        ordinary_step(run_of("input_dependent"), Sampled, data)


@pytest.mark.parametrize(("variant", "heads"), [("autoencoder", 1), ("input_dependent", 2)])
def test_every_matrix_product_of_a_step_is_counted(data, variant, heads):
    """Each weight is used forward, for its own gradient and, but for the first, for its input's."""
    weights = D * H + H * H + heads * H * L + L * H + H * H + H * D
    products = products_of(training_step(run_of(variant), VARIANTS[variant], data))
    assert products.flop == 2 * B * (3 * weights - D * H)


def test_products_of_samples_are_counted(data):
    decoder = L * H + H * H + H * D
    few, many = (
        products_of(
            training_step(run_of("input_dependent", samples=s), VARIANTS["input_dependent"], data)
        ).flop
        for s in (1, 5)
    )
    assert many - few == 2 * B * 4 * 3 * decoder


def test_the_bound_multiplies_the_operands_the_action_had():
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    products = products_of(lambda: layer(x))
    ((a, b),) = products.operands
    assert torch.equal(a, x)
    assert b.data_ptr() == layer.weight.data_ptr()
    products.action()()
    assert products.flop == 2 * 4 * 3 * 2


def test_an_action_without_products_has_no_bound():
    with pytest.raises(BenchError, match="no matrix product"):
        products_of(lambda: torch.ones(2) + 1)


def test_an_evaluation_and_a_bound_run_the_decoder(data):
    model, x = model_of("input_dependent"), as_float(data.test)
    encoder, decoder = D * H + H * H + 2 * H * L, L * H + H * H + H * D
    evaluated = products_of(evaluation(model, x, generator("cpu", "a")))
    assert evaluated.flop == 2 * len(x) * (encoder + decoder)
    bound = importance_bound(model, x, generator("cpu", "a"), 50)
    assert products_of(bound).flop == 2 * len(x) * (encoder + 50 * decoder)
    assert bound().shape == (len(x),)


@pytest.mark.parametrize(("batch", "images"), [(7, 119), (50, 100), (1000, 1000)])
def test_data_are_filled_to_whole_batches(data, batch, images):
    train = filled(data, batch).train
    assert len(train) == images
    assert torch.equal(train[: min(images, 120)], data.train[:images])


def test_an_estimator_gets_the_fewest_samples_it_admits():
    model, x = model_of("input_dependent"), torch.ones(1, D)
    assert fewest_samples("pathwise", model, x) == 1
    assert fewest_samples("rloo", model, x) == 2
    with pytest.raises(BenchError, match="measure_valued"):
        fewest_samples("measure_valued", model_of("full_covariance"), x)
    with pytest.raises(BenchError, match="has none"):
        fewest_samples("pathwise", model_of("autoencoder"), x)


def test_the_machine_is_measured_by_what_it_claims():
    multiply, flop = matrix_product("cpu")
    assert multiply().sum().item() * 2 == flop  # ones: every element is the side
    copy, moved = memory_copy("cpu")
    assert 2 * copy().numel() == moved


def test_peak_memory_never_falls():
    before = peak_memory("cpu")
    torch.ones(2**22)
    assert 10**7 < before <= peak_memory("cpu")


def test_brute_force_and_the_trick_give_the_same_variance():
    """400 brute-force gradients, fixed seeds: within 20 %."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VARIANTS["input_dependent"](784, 20, 200)
    noise = torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.full((4, 784), 0.13), generator=noise)
    expected = brute_force_variance(model, x, 100, noise.manual_seed(0))
    gradient = PosteriorGradient.from_model(model, x)
    found = total_variance(gradient, "pathwise", 1, noise, 0.0, 65_536)
    assert found.value[0].item() == pytest.approx(expected, rel=0.2)


def test_the_parts_left_out_are_left_out(monkeypatch):
    """No update moves the weights; log p(x|z) is linear; without tanh z is affine in x."""
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graph)
    data = load("digits")
    run = Run("input_dependent", "digits", 0, 1, 4, 8, steps=1, batch_size=10)
    kind = VARIANTS["input_dependent"]
    linear, affine = (
        parts._linear_in_logits(kind)(64, 4, 8),
        parts._without_activations(kind)(64, 4, 8),
    )
    z, x = torch.randn(3, 10, 4), torch.ones(10, 64)
    torch.testing.assert_close(linear.log_likelihood(x, z), linear.decode(z).sum(-1))
    halves = affine.encode(x) + affine.encode(-x)
    torch.testing.assert_close(halves, 2 * affine.encode(0 * x))
    actions = parts.without_a_part(run, kind, data)
    assert actions.keys() == {"step", "optimizer", "likelihood", "activations", "calls"}
    losses = {
        name: [float(action()) for _ in range(3)]
        for name, action in actions.items()
        if name != "calls"
    }
    assert losses["step"][2] < losses["step"][0]
    assert losses["optimizer"][2] == losses["optimizer"][0]
