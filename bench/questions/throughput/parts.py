"""Where a training step's time goes: the step again with one part left out.

What a part takes is what its absence saves; products, copying and calls are timed alone. Parts
overlap (a pass over memory that is left out makes room in the cache for others), so that they need
not add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import Dataset
from bench.inference.gradients import estimator_for
from bench.inference.reparameterize import standard_normal
from bench.questions.throughput.actions import Action, filled
from bench.randomness import generator
from bench.training.compiled import CompiledStep
from bench.training.loop import Session, build
from bench.training.step import draws_of
from vaes import VAE, Autoencoder

TINY = {"hidden_dim": 8, "latent_dim": 2, "batch_size": 2}
PIXELS = 8
LONG = 10**9
"""Steps of a run whose step is compiled whatever its size."""


class _WithoutUpdate(CompiledStep):
    """Loss and gradients, which the optimizer never sees."""

    def _update(self, weights, first, second, gradients, rate, correction) -> list[Tensor]:
        return [g for g in gradients if g is not None]


def without_a_part(run: Run, variant: type[Autoencoder], data: Dataset) -> dict[str, Action]:
    """The compiled step on a batch and noise that stay, whole and with a part left out.

    Keys: `step`; `optimizer`, `likelihood`, `activations` without these; and `calls`, ten of the
    same step with everything so small that nothing but its calls takes time. Raises NotCompiled
    with the reason where the step cannot be compiled.
    """
    tiny = Session(run.with_(steps=LONG, **TINY), variant, _few_pixels(data)).step
    return {
        "step": _fixed(run, variant, data),
        "optimizer": _fixed(run, variant, data, kind=_WithoutUpdate),
        "likelihood": _fixed(run, _linear_in_logits(variant), data),
        "activations": _fixed(run, _without_activations(variant), data),
        "calls": lambda: [tiny() for _ in range(10)],
    }


def _fixed(
    run: Run, variant: type[Autoencoder], data: Dataset, kind: type[CompiledStep] = CompiledStep
) -> Action:
    x = as_float(data.train[: run.batch_size]).round()
    model = build(run, variant, as_float(data.train).mean(0))
    estimator = None
    if isinstance(model, VAE):
        estimator = estimator_for(run.estimator, model.posterior(x), model.prior)
    step = kind(model, estimator, run, draws_of(model, x, estimator, run.samples))
    step.compile(x)
    fixed = standard_normal(len(x), run.latent_dim, generator("cpu", "parts"))(run.samples)
    return lambda: step(x, lambda n: fixed[:n], 1.0, run.learning_rate)


def _linear_in_logits(variant: type[Autoencoder]) -> type[Autoencoder]:
    """The variant with Σ x l in place of log p(x|z): as much memory, no function of a pixel."""

    class Linear(variant):
        def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
            return (x * self.decode(z)).sum(-1)

    return Linear


def _without_activations(variant: type[Autoencoder]) -> type[Autoencoder]:
    class Affine(variant):
        def __init__(self, *args: int, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            _without_tanh([self.encoder, self.decoder])

    return Affine


def _without_tanh(networks: Sequence[nn.Sequential]) -> None:
    for network in networks:
        for place, layer in enumerate(network):
            if isinstance(layer, nn.Tanh):
                network[place] = nn.Identity()


def _few_pixels(data: Dataset) -> Dataset:
    few = {name: getattr(data, name)[:, :PIXELS] for name in ("train", "valid", "test")}
    return filled(replace(data, **{name: x.contiguous() for name, x in few.items()}), 2)
