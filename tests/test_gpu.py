"""What only a CUDA GPU can run; elsewhere these skip, and `test_meta.py` proves the placement."""

from __future__ import annotations

import pytest
import torch

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import load
from bench.questions.throughput.actions import evaluation, importance_bound, training_step
from bench.randomness import generator
from bench.training.loop import build, train
from bench.training.stacked import WARM_UP, Stack, captured, train_stacked
from vaes import VAE, discover

VARIANTS = discover().variants
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU"),
]


@pytest.fixture
def data(tiny):
    return load(str(tiny)).to("cuda")


def runs_of(variant: str, **changes) -> list[Run]:
    run = Run(variant, "tiny", 0, 4, latent_dim=3, hidden_dim=8, batch_size=50, device="cuda")
    return [run.with_(seed=seed, **changes) for seed in range(3)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_never_waits_for_the_gpu(data, variant):
    step = training_step(runs_of(variant)[0], VARIANTS[variant], data)
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("variant", VARIANTS)
def test_captured_stacked_training_agrees_with_each_seed_alone(data, variant):
    """12 steps in batches of 50, 50 and 20: both sizes are warmed up, captured and replayed."""
    runs = runs_of(variant, kl_warmup_epochs=1, epochs=2 * WARM_UP)
    for run, stacked in zip(runs, train_stacked(runs, VARIANTS[variant], data), strict=True):
        alone = train(run, VARIANTS[variant], data)
        torch.testing.assert_close(
            stacked.checkpoints["end"], alone.checkpoints["end"], rtol=1e-2, atol=1e-3
        )
        for name in ("objective", "valid_distortion"):
            ours, theirs = stacked.history[-1][name], alone.history[-1][name]
            assert ours == pytest.approx(theirs, rel=1e-2)


def test_a_replayed_graph_draws_afresh():
    noise, drawn = generator("cuda", "graph"), torch.empty(4, device="cuda")
    draw = captured(lambda: drawn.normal_(generator=noise), [noise])
    values = [draw().clone() for _ in range(2 * WARM_UP)]
    fresh = generator("cuda", "graph")
    expected = [torch.empty(4, device="cuda").normal_(generator=fresh) for _ in values]
    assert torch.equal(torch.stack(values), torch.stack(expected))


def test_a_stack_has_one_loss_a_seed(data):
    stack = Stack(runs_of("input_dependent"), VARIANTS["input_dependent"], data)
    indices = stack.indices()
    losses = torch.stack([stack(next(indices), 1e-3, 1.0).clone() for _ in range(10)])
    assert losses.shape == (10, 3)
    assert losses.isfinite().all()
    assert losses.unique().numel() == losses.numel()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gpu_and_cpu_evaluate_alike(data, variant):
    model = build(runs_of(variant)[0], VARIANTS[variant], as_float(data.train).mean(0))
    x = as_float(data.test)
    on_gpu = evaluation(model, x, generator("cuda", "noise"))()
    assert on_gpu[0].is_cuda
    with torch.no_grad():
        there = model.log_likelihood(x, model.encode(x)).cpu()
        here = model.to("cpu").log_likelihood(x.cpu(), model.encode(x.cpu()))
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("variant", [n for n, kind in VARIANTS.items() if issubclass(kind, VAE)])
def test_an_importance_bound(data, variant):
    model = build(runs_of(variant)[0], VARIANTS[variant], as_float(data.train).mean(0))
    bound = importance_bound(model, as_float(data.test), generator("cuda", "noise"), 50)
    assert bound().isfinite().all()
