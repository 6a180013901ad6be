"""Stacked training against training each seed alone."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Laplace

from bench.config import Run
from bench.data.dataset import load
from bench.errors import BenchError
from bench.inference.gradients import ESTIMATORS
from bench.questions.throughput.actions import fewest_samples
from bench.training.loop import Diverged, build, train
from bench.training.stacked import Stack, captured, train_stacked
from vaes import VAE, discover

VARIANTS = discover().variants
CASES = [(name, "auto") for name in VARIANTS] + [("input_dependent", name) for name in ESTIMATORS]


@pytest.fixture
def data(tiny):
    return load(str(tiny))


def runs_of(variant: str, seeds: int = 3, **changes) -> list[Run]:
    # 120 images in batches of 50: the last one is smaller
    run = Run(variant, "tiny", 0, epochs=2, latent_dim=3, hidden_dim=8, batch_size=50)
    return [run.with_(seed=seed, **changes) for seed in range(seeds)]


def samples_for(estimator: str, variant: str) -> int:
    if estimator == "auto":
        return 1
    model = build(runs_of(variant)[0], VARIANTS[variant], torch.full((16,), 0.5))
    return fewest_samples(estimator, model, torch.ones(1, 16))


@pytest.mark.parametrize(("variant", "estimator"), CASES)
def test_each_seed_agrees_with_training_it_alone(data, variant, estimator):
    kind = VARIANTS[variant]
    samples = samples_for(estimator, variant)
    runs = runs_of(variant, estimator=estimator, samples=samples, kl_warmup_epochs=1)
    for run, stacked in zip(runs, train_stacked(runs, kind, data), strict=True):
        alone = train(run, kind, data)
        assert stacked.run == run
        assert stacked.checkpoints.keys() == alone.checkpoints.keys()
        for name, weight in alone.checkpoints["initialisation"].items():
            assert torch.equal(stacked.checkpoints["initialisation"][name], weight)
        for name, weight in alone.checkpoints["end"].items():
            torch.testing.assert_close(
                stacked.checkpoints["end"][name], weight, rtol=1e-3, atol=2e-5
            )
        assert stacked.best_epoch == alone.best_epoch
        for ours, theirs in zip(stacked.history, alone.history, strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours.keys() - {"seconds"}:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-4, nan_ok=True)


def test_the_seeds_are_different_runs(data):
    first, second, _ = train_stacked(runs_of("input_dependent"), VARIANTS["input_dependent"], data)
    a, b = (r.checkpoints["end"]["encoder.0.weight"] for r in (first, second))
    assert not torch.allclose(a, b)


def test_runs_that_differ_in_more_than_the_seed_are_refused(data):
    runs = runs_of("input_dependent")
    runs[1] = runs[1].with_(learning_rate=0.1)
    with pytest.raises(BenchError, match="nothing but their seed"):
        Stack(runs, VARIANTS["input_dependent"], data)


def test_a_posterior_that_is_no_map_of_noise_is_refused(data):
    class Laplacian(VARIANTS["input_dependent"]):
        def posterior(self, x):
            q = super().posterior(x)
            return Independent(Laplace(q.mean, q.stddev), 1)

    with pytest.raises(BenchError, match="train its seeds apart"):
        Stack(runs_of("input_dependent"), Laplacian, data)


def test_a_diverging_seed_is_named(data):
    runs = runs_of("input_dependent", learning_rate=1e6, epochs=20)
    with pytest.raises(Diverged, match=r"seed \d: the loss stopped being finite at step"):
        train_stacked(runs, VARIANTS["input_dependent"], data)


def test_without_a_gpu_a_captured_action_is_the_action_itself():
    def action():
        return torch.ones(1)

    assert captured(action, [torch.Generator()]) is action


@pytest.mark.parametrize("name", [n for n, kind in VARIANTS.items() if issubclass(kind, VAE)])
def test_losses_are_those_of_the_models(data, name):
    stack = Stack(runs_of(name), VARIANTS[name], data)
    losses = stack(next(stack.indices()), 0.0, 1.0)
    assert losses.shape == (3,)
    assert losses.isfinite().all()
