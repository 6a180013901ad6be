"""The compiled training step against the eager one, and what happens where it cannot be had."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Laplace

from bench.config import Run
from bench.data.dataset import load
from bench.inference import native
from bench.inference.gradients import ESTIMATORS, estimator_for
from bench.inference.reparameterize import standard_normal
from bench.questions.throughput.actions import fewest_samples
from bench.randomness import generator
from bench.training import compiled as compiled_step
from bench.training.compiled import CompiledStep, step_for
from bench.training.loop import build, train
from bench.training.step import EagerStep, draws_of
from vaes import VAE, discover

VARIANTS = discover().variants
CASES = [(name, "auto") for name in VARIANTS]
OPTIONS = {"optimizer": "adam_normalized", "betas": (0.5, 0.9), "epsilon": 1e-3, "free_bits": 0.3}
CASES += [("input_dependent", name) for name in ESTIMATORS]
B, D = 5, 12

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler")


def steps_of(variant: str, estimator: str, **options):
    """An eager and a compiled step of two equal models, and the models."""
    run = Run(variant, "toy", 0, 1, latent_dim=4, hidden_dim=6).with_(**options)
    models = [build(run, VARIANTS[variant], torch.full((D,), 0.4)) for _ in range(2)]
    x, function, samples = torch.ones(1, D), None, 1
    if isinstance(models[0], VAE):
        function = estimator_for(estimator, models[0].posterior(x), models[0].prior)
        samples = 1 if estimator == "auto" else fewest_samples(estimator, models[0], x)
    eager = EagerStep(models[0], function, run.with_(samples=samples))
    draws = draws_of(models[1], x, function, samples)
    return eager, CompiledStep(models[1], function, run.with_(samples=samples), draws), models


@pytest.mark.parametrize(
    ("variant", "estimator", "options"),
    [*((*case, {}) for case in CASES), ("input_dependent", "pathwise", OPTIONS)],
)
def test_traced_and_eager_steps_are_the_same_step(variant, estimator, options, monkeypatch):
    """What is compiled, run operation by operation; the compiler itself is slow and not ours."""
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graph)
    eager, compiled, models = steps_of(variant, estimator, **options)
    x = (torch.rand(B, D, generator=generator("cpu", "x")) < 0.4).float()
    streams = [generator("cpu", "noise") for _ in range(2)]
    for count in range(5):
        losses = [
            move(x, standard_normal(B, 4, stream), 0.2 * (count + 1), 1e-2)
            for move, stream in zip((eager, compiled), streams, strict=True)
        ]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(models[1].parameters(), models[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_models_that_differ_in_a_constant_share_what_was_compiled(monkeypatch):
    graphs = []
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graphs.append(graph) or graph)
    x = torch.ones(B, D)
    for scale in (0.2, 0.7):
        run = Run("fixed_variance", "toy", 0, 1, 4, 6, (("scale", scale),))
        model = build(run, VARIANTS[run.variant], torch.full((D,), 0.4))
        function = estimator_for("auto", model.posterior(x), model.prior)
        move = CompiledStep(model, function, run, draws_of(model, x, function, 1))
        move(x, standard_normal(B, 4, generator("cpu", "noise")), 1.0, 1e-3)
    (one,) = graphs
    assert not dict(one.named_buffers())


class Louder(VARIANTS["input_dependent"]):
    """Its loss depends on a number, and on a tensor that is no weight, which tracing fixes."""

    def __init__(self, *args, by: object, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.by = by

    def log_likelihood(self, x, z):
        return self.by * super().log_likelihood(x, z)


@pytest.mark.parametrize("by", [lambda n: n, lambda n: torch.tensor(n)])
def test_models_that_differ_in_what_tracing_fixes_do_not_share_it(by, monkeypatch):
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graph)
    x, losses = torch.ones(B, D), []
    for factor in (1.0, 3.0, 3.0):
        torch.manual_seed(0)
        model = Louder(D, 4, 6, by=by(factor))
        function = estimator_for("auto", model.posterior(x), model.prior)
        run = Run("louder", "toy", 0, 1, 4, 6)
        move = CompiledStep(model, function, run, draws_of(model, x, function, 1))
        losses.append(move(x, standard_normal(B, 4, generator("cpu", "noise")), 0.0, 1e-3).item())
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)
    assert losses[2] == losses[1]
    assert len(compiled_step._compiled) == 2


def test_a_model_that_cannot_be_told_apart_is_traced_each_time(monkeypatch):
    graphs = []
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graphs.append(graph) or graph)
    x = torch.ones(B, D)
    for _ in range(2):
        model = Louder(D, 4, 6, by=1.0)
        model.unread = (n for n in range(3))
        function = estimator_for("auto", model.posterior(x), model.prior)
        draws = draws_of(model, x, function, 1)
        CompiledStep(model, function, Run("louder", "toy", 0, 1, 4, 6), draws).compile(x)
    assert len(graphs) == 2


@pytest.fixture
def short(monkeypatch):
    """Short trainings count as long ones."""
    monkeypatch.setattr(compiled_step, "WORTHWHILE", 1)


def kind_of(run: Run, variant=None, steps: int = 10**8) -> tuple[type, str]:
    model = build(run, variant or VARIANTS[run.variant], torch.full((D,), 0.4))
    x, function = torch.ones(1, D), None
    if isinstance(model, VAE):
        function = estimator_for(run.estimator, model.posterior(x), model.prior)
    move, notice = step_for(run, model, function, x, steps)
    return type(move), notice


RUN = Run("input_dependent", "toy", 0, 1, latent_dim=4, hidden_dim=6)


@needs_compiler
def test_long_trainings_alone_are_compiled(monkeypatch):
    monkeypatch.setattr(native, "_compile", lambda graph, examples: graph)
    assert kind_of(RUN) == (CompiledStep, "")
    assert kind_of(RUN, steps=1000) == (EagerStep, "")
    assert kind_of(RUN.with_(precision="bf16")) == (EagerStep, "")


def test_without_a_compiler_the_eager_step_is_taken_and_said(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    kind, notice = kind_of(RUN)
    assert kind is EagerStep
    assert "no C++ compiler" in notice


@needs_compiler
def test_where_compiling_fails_the_eager_step_is_taken_and_said(monkeypatch):
    def fail(graph, examples):
        raise RuntimeError("g++: out of memory. The command was …")

    monkeypatch.setattr(native, "_compile", fail)
    kind, notice = kind_of(RUN)
    assert kind is EagerStep
    assert notice == "the training step was not compiled: RuntimeError: g++: out of memory"


@needs_compiler
def test_a_posterior_that_samples_by_itself_is_not_compiled():
    class Laplacian(VARIANTS["input_dependent"]):
        def posterior(self, x):
            q = super().posterior(x)
            return Independent(Laplace(q.mean, q.stddev), 1)

    kind, notice = kind_of(RUN.with_(estimator="score_function"), Laplacian)
    assert kind is EagerStep
    assert "no map of noise" in notice


@needs_compiler
def test_a_compiled_training_repeats_and_agrees_with_the_eager_one(tiny, short, monkeypatch):
    data = load(str(tiny))
    run = Run("input_dependent", "tiny", 0, epochs=3, latent_dim=3, hidden_dim=8, batch_size=50)
    first, second = (train(run, VARIANTS[run.variant], data) for _ in range(2))
    for name, weight in first.checkpoints["end"].items():
        assert torch.equal(second.checkpoints["end"][name], weight)
    monkeypatch.setattr(compiled_step, "WORTHWHILE", 10**9)
    eager = train(run, VARIANTS[run.variant], data)
    ours, theirs = (trained.history[-1]["valid_elbo"] for trained in (first, eager))
    assert ours == pytest.approx(theirs, rel=1e-4)
    for name, weight in eager.checkpoints["end"].items():
        torch.testing.assert_close(first.checkpoints["end"][name], weight, rtol=1e-3, atol=2e-5)


def test_every_estimator_says_how_much_noise_it_takes():
    for name in ESTIMATORS:
        _, compiled, _ = steps_of("input_dependent", name)
        assert compiled.draws
