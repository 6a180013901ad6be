"""The training step as one native function of loss, gradient and Adam's update, on a CPU.

Traced through the very objective that `EagerStep` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from bench.config import Run
from bench.inference.gradients import Surrogate
from bench.inference.native import NotCompiled, native
from bench.inference.reparameterize import Noise, is_map_of_noise
from bench.inference.structure import Structure, structure
from bench.training.step import (
    EagerStep,
    Objective,
    Step,
    differs_in_training,
    draws_of,
    evaluating,
)
from vaes import VAE, Autoencoder

WORTHWHILE = 2e8
"""Steps × weights of a training from which compiling its step pays: compiling takes some 10 s
for the first of many trainings of a variant and 1 s, from the disk, for the others."""


_compiled: dict[bytes, tuple[Callable, Structure]] = {}
"""What this process has compiled: tracing alone takes as long as 500 steps, and a process trains
many models that differ in their weights alone."""


def pays(steps: int, model: Autoencoder) -> bool:
    """Whether a training of so many steps is long enough to compile its step."""
    return steps * sum(w.numel() for w in model.parameters()) >= WORTHWHILE


class CompiledStep:
    """The step as one native function a batch size, moving the model's own weights.

    Arguments:
        model: float32, on a CPU; its posterior must be a map of the noise it is given.
        estimator: as for `objective`.
        run: whose samples, free bits, optimizer, betas and epsilon; Adam's or `adam_normalized`.
        draws: `draws_of` them.
    """

    def __init__(
        self, model: Autoencoder, estimator: Surrogate | None, run: Run, draws: Sequence[int]
    ) -> None:
        self.objective, self.draws = Objective(model, estimator, run), draws
        self.betas, self.epsilon = run.betas, run.epsilon
        self.normalized = run.optimizer == "adam_normalized"
        named = dict(self.objective.named_parameters())
        self.names = list(named)
        self.weights = [w.detach() for w in named.values()]
        # arguments too, so that models that differ in a constant share what was compiled
        constants = dict(self.objective.named_buffers())
        self.constant_names, self.constants = list(constants), list(constants.values())
        self.first = [torch.zeros_like(w) for w in self.weights]
        self.second = [torch.zeros_like(w) for w in self.weights]
        self.compiled: dict[int, Callable] = {}  # by batch size
        self.count = 0

    def __call__(self, x: Tensor, noise: Noise, kl_weight: float, rate: float) -> Tensor:
        self.count += 1
        first, second = (1 - beta**self.count for beta in self.betas)
        scalars = torch.tensor([kl_weight, rate / first, second**-0.5])
        drawn = [noise(n) for n in self.draws]
        arguments = [*self.weights, *self.first, *self.second, *self.constants, x, *drawn, scalars]
        with torch.no_grad():
            loss, *_ = self._function(len(x), arguments)(*arguments)
        return loss

    def state(self) -> tuple[int, list[Tensor], list[Tensor]]:
        """A copy of what Adam remembers: steps taken, first and second moments."""
        return self.count, [m.clone() for m in self.first], [v.clone() for v in self.second]

    def restore(self, state: tuple[int, list[Tensor], list[Tensor]]) -> None:
        """Go back to where `state` was taken."""
        self.count, first, second = state
        for kept, moments in ((self.first, first), (self.second, second)):
            for now, then in zip(kept, moments, strict=True):
                now.copy_(then)

    def compile(self, x: Tensor) -> None:
        """Compile the step for batches of the shape of x `(B, D)`; raises NotCompiled."""
        noise = [x.new_ones(n, len(x), self.objective.model.latent_dim) for n in self.draws]
        state = [*self.weights, *self.first, *self.second, *self.constants]
        self._function(len(x), [*state, x, *noise, torch.ones(3)])

    def _function(self, batch: int, arguments: list[Tensor]) -> Callable:
        if batch not in self.compiled:
            self.compiled[batch] = self._shared(batch, arguments)
        return self.compiled[batch]

    def _shared(self, batch: int, arguments: list[Tensor]) -> Callable:
        settings = type(self), batch, self.draws, self.betas, self.epsilon, self.normalized
        held = [*self.objective.parameters(), *self.objective.buffers()]
        alike = structure((self.objective, settings), held)
        if alike is None:
            return native(self._step, arguments)
        if alike.content not in _compiled:
            _compiled[alike.content] = native(self._step, arguments), alike
        return _compiled[alike.content][0]

    def _step(self, *arguments: Tensor) -> list[Tensor]:
        n, c = len(self.weights), len(self.constants)
        weights, first, second = (arguments[i * n : (i + 1) * n] for i in range(3))
        constants = arguments[3 * n : 3 * n + c]
        x, *noise, scalars = arguments[3 * n + c :]
        kl_weight, rate, correction = scalars.unbind()
        leaves = [w.detach().requires_grad_() for w in weights]
        with torch.enable_grad():
            named = dict(zip(self.names, leaves, strict=True))
            named |= dict(zip(self.constant_names, constants, strict=True))
            loss = functional_call(self.objective, named, (x, noise, kl_weight))
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        with torch.no_grad():
            kept = self._update(weights, first, second, gradients, rate, correction)
        return [loss.detach(), *kept]

    def _update(
        self,
        weights: Sequence[Tensor],
        first: Sequence[Tensor],
        second: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        rate: Tensor,
        correction: Tensor,
    ) -> list[Tensor]:
        """Adam's, in place; what else the native function is to return."""
        for w, m, v, g in zip(weights, first, second, gradients, strict=True):
            if g is not None:
                g = g / (g.norm() + self.epsilon) if self.normalized else g
                m.mul_(self.betas[0]).add_(g, alpha=1 - self.betas[0])
                v.mul_(self.betas[1]).addcmul_(g, g, value=1 - self.betas[1])
                w.sub_(rate * m / (v.sqrt() * correction + self.epsilon))
        return []


def step_for(
    run: Run, model: Autoencoder, estimator: Surrogate | None, x: Tensor, steps: int
) -> tuple[Step, str]:
    """The compiled step where it pays, else the eager one; and why not where it would have paid.

    x `(B, D)` is an example batch, `steps` the length of the training.
    """
    eager = EagerStep(model, estimator, run)
    if not pays(steps, model) or x.device.type != "cpu" or run.precision != "float32":
        return eager, ""
    try:
        if run.optimizer not in ("adam", "adam_normalized"):
            raise NotCompiled(f"only Adam's update is, not that of {run.optimizer}")
        if layer := differs_in_training(model):
            raise NotCompiled(f"{layer} draws or keeps statistics in training")
        with evaluating(model):
            if isinstance(model, VAE) and not is_map_of_noise(model.posterior(x), x):
                raise NotCompiled("the posterior is no map of noise")
            draws = draws_of(model, x, estimator, run.samples)
        compiled = CompiledStep(model, estimator, run, draws)
        compiled.compile(x.expand(run.batch_size, -1).contiguous())
    except NotCompiled as reason:
        return eager, f"the training step was not compiled: {reason}"
    return compiled, ""
