"""What a step costs: the actions that are timed, and the bounds beside them.

An *action* does one unit of work and returns at once on a GPU. Nothing here reads a clock: the
cases in `cases/` time actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.inference.divergence import divergence
from bench.inference.elbo import CompiledTerms, elbo_terms
from bench.inference.gradients import admit, pathwise
from bench.inference.importance import CompiledLogWeight, log_weight, log_weights, samples_at_once
from bench.inference.reparameterize import standard_normal
from bench.training.loop import Session, build
from bench.training.step import objective
from vaes import VAE, Autoencoder

Action = Callable[[], object]

MATRIX_SIDE = 1024
COPIED_BYTES = 2**26
"""Far larger than any cache, so that the copy runs at the memory's speed."""


def filled(data: Dataset, batch_size: int) -> Dataset:
    """The data set with its training images repeated or cut to whole batches."""
    batches = max(1, round(len(data.train) / batch_size))
    index = torch.arange(batches * batch_size, device=data.train.device) % len(data.train)
    return replace(data, train=data.train[index])


def fewest_samples(name: str, model: Autoencoder, x: Tensor) -> int:
    """The smallest S with which the model's posterior admits an estimator.

    Raises BenchError with the reason where it admits none.
    """
    if not isinstance(model, VAE):
        raise BenchError(f"{name} needs a posterior, and a plain autoencoder has none")
    try:
        admit(name, model.posterior(x), model.prior, samples=1)
        return 1
    except BenchError:
        admit(name, model.posterior(x), model.prior, samples=2)
        return 2


def training_step(run: Run, variant: type[Autoencoder], data: Dataset) -> Action:
    """The step of `bench.training.loop.train`: batch, gradient, Adam; it returns the loss.

    As in training, the step of a run of many `steps` is compiled; raises BenchError where it
    would be but cannot.
    """
    session = Session(run, variant, data)
    if session.notice:
        raise BenchError(f"{run.variant}: {session.notice}")
    return session.step


def ordinary_step(run: Run, variant: type[Autoencoder], data: Dataset) -> Action:
    """The same step as a careful user would first write it.

    A shuffling `DataLoader`, `torch.bernoulli`, torch's own cross-entropy and KL (one sample of
    it where torch knows no closed form), plain Adam. Raises NotImplementedError where the
    posterior has no reparameterized sample.
    """
    model = build(run, variant, as_float(data.train).mean(0))
    if isinstance(model, VAE) and not model.posterior(as_float(data.train[:1])).has_rsample:
        raise NotImplementedError(f"{run.variant} has no reparameterized sample")
    optimizer = torch.optim.Adam(model.parameters(), lr=run.learning_rate)
    loader = DataLoader(TensorDataset(as_float(data.train)), run.batch_size, shuffle=True)

    def endless() -> Iterator[Tensor]:
        while True:
            for (x,) in loader:
                yield torch.bernoulli(x) if data.binarization == "stochastic" else x

    batches = endless()

    def step() -> Tensor:
        x = next(batches)
        optimizer.zero_grad()
        if isinstance(model, VAE):
            posterior = model.posterior(x)
            z = posterior.rsample()
            try:
                rate = divergence(posterior, model.prior).sum()
            except NotImplementedError:
                rate = (posterior.log_prob(z) - model.prior.log_prob(z)).sum()
        else:
            z, rate = model.encode(x), 0.0
        logits = model.decode(z)
        distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        loss = (distortion + rate) / len(x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def evaluation(
    model: Autoencoder, x: Tensor, noise: torch.Generator, compiled: bool = False
) -> Action:
    """ELBO (or cross-entropy) of x `(B, D)` from one noise sample an image.

    Raises NotCompiled with the reason where it cannot be compiled.
    """
    draws = standard_normal(len(x), model.latent_dim, noise)
    terms = CompiledTerms(model, x, samples=1) if compiled else elbo_terms
    return lambda: terms(model, x, draws, 1)


def importance_bound(
    model: VAE, x: Tensor, noise: torch.Generator, samples: int, compiled: bool = False
) -> Action:
    """The IW bound of x `(B, D)` with K = `samples`, decoded as the measurement does.

    Raises NotCompiled with the reason where it cannot be compiled.
    """
    draws = standard_normal(len(x), model.latent_dim, noise)
    at_once = samples_at_once(x, samples)
    weigh = CompiledLogWeight(model, x, at_once) if compiled else log_weight
    return lambda: log_weights(model, x, draws, samples, at_once, weigh).logsumexp(0)


def brute_force_variance(model: VAE, x: Tensor, samples: int, noise: torch.Generator) -> float:
    """tr Cov[g] of the pathwise gradient, a mean over x `(B, D)`: one backward pass a sample.

    What `bench.inference.gradient_variance.total_variance` gives sooner. Moments are in float64.
    """
    weights = [p for name, p in model.named_parameters() if not name.startswith("decoder")]
    total = 0.0
    for image in x.split(1):
        draws = standard_normal(1, model.latent_dim, noise)
        mean = torch.zeros(sum(w.numel() for w in weights), dtype=torch.float64)
        squares = 0.0
        for _ in range(samples):
            objective(model, image, draws, pathwise).backward()
            g = torch.cat([w.grad.flatten() for w in weights]).double()
            model.zero_grad(set_to_none=True)
            squares += g.square().sum().item()
            mean += g / samples
        total += (squares - samples * mean.square().sum().item()) / (samples - 1)
    return total / len(x)


class _Recorder(TorchDispatchMode):
    """Keeps the operands of every matrix product that runs under it, backward included."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        if func in (aten.mm.default, aten.bmm.default):
            self.operands.append((args[0].detach(), args[1].detach()))
        elif func in (aten.addmm.default, aten.baddbmm.default):
            self.operands.append((args[1].detach(), args[2].detach()))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Products:
    """The matrix products of an action, alone: its bound.

    Attributes:
        operands: pairs `(…, m, k)`, `(…, k, n)`, the very tensors the action multiplied.
        flop: floating-point operations of all of them, 2 m k n each.
    """

    operands: list[tuple[Tensor, Tensor]]
    flop: int

    def action(self) -> Action:
        """All products again, into outputs allocated beforehand."""
        outputs = [torch.matmul(a, b) for a, b in self.operands]

        def multiply() -> None:
            for (a, b), output in zip(self.operands, outputs, strict=True):
                torch.matmul(a, b, out=output)

        return torch.no_grad()(multiply)


def products_of(action: Action) -> Products:
    """Watch one call of an action and keep its matrix products, whatever model it runs.

    Raises BenchError where it sees none, as in compiled code: watch the eager action instead.
    """
    with _Recorder() as recorder:
        action()
    if not recorder.operands:
        raise BenchError(
            "no matrix product was seen, so there is no bound: is the action compiled?"
        )
    flop = sum(2 * a.numel() * b.shape[-1] for a, b in recorder.operands)
    return Products(recorder.operands, flop)


def matrix_product(device: str) -> tuple[Action, int]:
    """A large square product on the device, and its floating-point operations."""
    a, b, out = (torch.ones(MATRIX_SIDE, MATRIX_SIDE, device=device) for _ in range(3))
    return lambda: torch.mm(a, b, out=out), 2 * MATRIX_SIDE**3


def memory_copy(device: str) -> tuple[Action, int]:
    """A copy that no cache holds, and the bytes it reads and writes."""
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * COPIED_BYTES


def synchronize(device: str) -> None:
    """Wait for what a GPU was told to do."""
    if device == "cuda":
        torch.cuda.synchronize()
