"""All seeds of a variant trained at once, as one model whose weights have a leading axis of seeds.

A GPU runs the kernels of one small model faster than a program can launch them. R seeds in one
step need no more launches than one seed, and a CUDA graph launches the whole step at once. Each
seed draws its weights, order, binarization and noise from the generators it would have alone, so
that its run agrees with `bench.training.loop.train` within rounding.

Shapes: R seeds; index `(R, B)`; x `(R, B, D)`; noise `(R, S, B, L)`; losses `(R,)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.inference.gradients import estimator_for
from bench.inference.reparameterize import is_map_of_noise
from bench.randomness import generator
from bench.training.batches import prepared, to_batch
from bench.training.loop import (
    Trained,
    _weights,
    build,
    end_epoch,
    kl_weight,
    steps_of,
    steps_per_epoch,
)
from bench.training.schedules import learning_rate
from bench.training.step import Objective, differs_in_training, draws_of
from vaes import VAE, Autoencoder

WARM_UP = 3
"""Steps run one by one before a CUDA graph is captured, so that every buffer exists."""


class Stack:
    """R runs that differ only in their seed, ready to be trained together.

    Raises BenchError where the runs differ otherwise, where their optimizer is not Adam or they may
    stop early, where a layer draws or keeps statistics in training, or where the posterior is not a
    map of standard normal noise, whose own `sample` has one stream for all seeds.
    """

    def __init__(self, runs: Sequence[Run], variant: type[Autoencoder], data: Dataset) -> None:
        run = self.run = runs[0]
        if any(other.with_(seed=run.seed) != run for other in runs):
            raise BenchError("stacked runs must differ in nothing but their seed")
        if run.optimizer != "adam" or run.early_stopping:
            raise BenchError("stacked runs are moved by Adam, to their end; train seeds apart")
        images = data.train[: run.train_size or None]
        self.images, self.binarization = prepared(images, data.binarization), data.binarization
        device, mean = images.device, as_float(images).mean(0)
        models = [build(r, variant, mean) for r in runs]
        estimator, self.draws = None, []
        if isinstance(models[0], VAE):
            x = as_float(images[:1])
            if layer := differs_in_training(models[0]):
                raise BenchError(
                    f"{run.variant}: {layer} draws or keeps statistics in training; train its "
                    "seeds apart"
                )
            posterior = models[0].posterior(x)
            if not is_map_of_noise(posterior, x):
                raise BenchError(
                    f"{run.variant}: its posterior is not a map of noise; train its seeds apart"
                )
            estimator = estimator_for(run.estimator, posterior, models[0].prior)
            self.draws = draws_of(models[0], x, estimator, run.samples)
        self.members = [Objective(model, estimator, run) for model in models]
        self.weights, self.buffers = stack_module_state(self.members)
        on_gpu = device.type == "cuda"
        # what a captured step reads must live in tensors that are refilled
        self.rate = torch.tensor(run.learning_rate, device=device)
        self.kl_weight = torch.tensor(1.0, device=device)
        self.optimizer = torch.optim.Adam(
            self.weights.values(),
            lr=self.rate,
            betas=run.betas,
            eps=run.epsilon,
            fused=True,
            capturable=on_gpu,
        )
        self.orders, self.pixels, self.noises = (
            [generator(device, r.dataset, r.seed, purpose) for r in runs]
            for purpose in ("order", "binarization", "noise")
        )
        self.steps: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}

    def indices(self) -> Iterator[Tensor]:
        """Endless batches of image numbers `(R, B)`; every epoch is one permutation a seed."""
        n, device = len(self.images), self.images.device
        while True:
            permutations = [torch.randperm(n, generator=g, device=device) for g in self.orders]
            yield from torch.split(torch.stack(permutations), self.run.batch_size, dim=1)

    def __call__(self, index: Tensor, rate: float, kl_weight: float) -> Tensor:
        """One step of every seed on the images `index`; the losses, overwritten by the next."""
        size = index.shape[1]
        if size not in self.steps:
            fixed = index.clone()
            generators = self.pixels + self.noises
            self.steps[size] = fixed, captured(lambda: self._step(fixed), generators)
        fixed, step = self.steps[size]
        fixed.copy_(index)
        self.rate.fill_(rate)
        self.kl_weight.fill_(kl_weight)
        return step()

    def _step(self, index: Tensor) -> Tensor:
        x = torch.stack(
            [
                to_batch(self.images, row, self.binarization, pixels)
                for row, pixels in zip(index, self.pixels, strict=True)
            ]
        )
        gradients, losses = self._gradients(x, self._noise(index.shape[1]))
        for name, weight in self.weights.items():
            weight.grad = gradients[name]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses

    def _noise(self, batch: int) -> list[Tensor]:
        """The noise of one step, each seed's in the order its estimator would ask for it."""
        latent_dim, device = self.run.latent_dim, self.images.device
        by_seed = [
            [torch.randn((n, batch, latent_dim), generator=g, device=device) for n in self.draws]
            for g in self.noises
        ]
        return [torch.stack(same) for same in zip(*by_seed, strict=True)]

    @torch.no_grad()  # `grad` differentiates all the same; without it autograd would do so too
    def _gradients(self, x: Tensor, noise: list[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        def loss(weights: dict, buffers: dict, x: Tensor, noise: list[Tensor]) -> Tensor:
            return functional_call(self.members[0], (weights, buffers), (x, noise, self.kl_weight))

        bf16 = self.run.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            return vmap(grad_and_value(loss))(self.weights, self.buffers, x, noise)

    @torch.no_grad()
    def models(self) -> list[Autoencoder]:
        """Each seed's model with its present weights."""
        for place, member in enumerate(self.members):
            for name, weight in member.named_parameters():
                weight.copy_(self.weights[name][place])
        return [member.model for member in self.members]


def captured(action: Callable[[], Tensor], generators: Sequence[torch.Generator]) -> Callable:
    """The action as one CUDA graph, from its fourth call on; on a CPU the action itself.

    It may read and write only tensors that outlive it, and draw only from `generators`.
    """
    if any(g.device.type != "cuda" for g in generators) or not torch.cuda.is_available():
        return action
    graph, stream, results = torch.cuda.CUDAGraph(), torch.cuda.Stream(), []
    for g in generators:
        graph.register_generator_state(g)
    calls = iter(range(WARM_UP))

    def call() -> Tensor:
        if next(calls, None) is not None:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                result = action()
            torch.cuda.current_stream().wait_stream(stream)
            return result
        if not results:
            with torch.cuda.graph(graph):
                results.append(action())
        graph.replay()
        return results[0]

    return call


def train_stacked(
    runs: Sequence[Run],
    variant: type[Autoencoder],
    data: Dataset,
    on_epoch: Callable[[Run, dict[str, float]], None] = lambda run, entry: None,
) -> list[Trained]:
    """Train runs that differ only in their seed; the same results as `train` of each.

    `seconds` is a seed's share of the common time. Raises Diverged naming the first seed whose
    loss stopped being finite.
    """
    stack = Stack(runs, variant, data)
    run, indices = stack.run, stack.indices()
    results = [Trained(r, {"initialisation": _weights(m)}) for r, m in zip(runs, stack.models())]
    each, total, done = steps_per_epoch(run, data), steps_of(run, data), 0
    while done < total:
        started, losses = time.perf_counter(), []
        for step in range(done, min(done + (run.validated_every or each), total)):
            rate = learning_rate(run, step, total, each)
            weight = kl_weight(run, step, each)
            losses.append(stack(next(indices), rate, weight).clone())
        done += len(losses)
        traces = torch.stack(losses, 1).double().cpu()
        seconds = (time.perf_counter() - started) / len(runs)
        for result, model, trace in zip(results, stack.models(), traces, strict=True):
            result.seconds += seconds
            end_epoch(result, model, data, trace, done, total)
            on_epoch(result.run, result.history[-1])
    for result, model in zip(results, stack.models(), strict=True):
        result.checkpoints["end"] = _weights(model)
    return results
