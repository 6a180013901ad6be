"""One step of training: batch, noise, KL weight and learning rate in; the loss out, weights moved.

Two ways to the same step. `EagerStep` calls torch's kernels one by one, whatever the model.
`CompiledStep` makes one native function of loss, gradient and Adam's update, traced through the
very same objective; it is for long trainings on a CPU. On a GPU see `bench.stacked`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.config import Run
from bench.gradients import Estimator, Noise, Target, is_map_of_noise
from bench.native import NotCompiled, native
from vaes import VAE, Autoencoder

Step = Callable[[Tensor, Noise, float, float], Tensor]
"""(x `(B, D)`, `noise(n)` → `(n, B, L)`, KL weight, learning rate) → the loss, nats an image."""

WORTHWHILE = 1e9
"""Steps × weights of a training from which compiling its step pays: compiling takes 10 to 40 s
for the first of many trainings of a variant and 1 s, from the disk, for the others."""

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's own defaults (Kingma & Ba 2015)."""


def objective(
    model: Autoencoder,
    x: Tensor,
    noise: Noise,
    estimator: Estimator | None,
    samples: int = 1,
    kl_weight: float | Tensor = 1.0,
) -> Tensor:
    """The scalar whose gradient a step follows: −ELBO surrogate (or cross-entropy), nats an image.

    x `(B, D)`; `noise(n)` gives `(n, B, L)`; the estimator is None for a plain autoencoder.
    """
    if not isinstance(model, VAE):
        return -model.log_likelihood(x, model.encode(x)).mean()
    target = Target(lambda z: model.log_likelihood(x, z), model.prior, kl_weight)
    return -estimator(target, model.posterior(x), noise, samples).mean()


class Objective(nn.Module):
    """A model called with everything its loss depends on, noise included: a pure function."""

    def __init__(self, model: Autoencoder, estimator: Estimator | None, samples: int) -> None:
        super().__init__()
        self.model, self.estimator, self.samples = model, estimator, samples

    def forward(self, x: Tensor, noise: Sequence[Tensor], kl_weight: Tensor) -> Tensor:
        drawn = iter(noise)
        return objective(
            self.model, x, lambda n: next(drawn), self.estimator, self.samples, kl_weight
        )


def draws_of(
    model: Autoencoder, x: Tensor, estimator: Estimator | None, samples: int
) -> tuple[int, ...]:
    """How many noise samples an estimator asks for, call by call; x `(B, D)` is an example."""
    asked: list[int] = []

    def noise(n: int) -> Tensor:
        asked.append(n)
        return x.new_ones(n, len(x), model.latent_dim)

    objective(model, x, noise, estimator, samples)
    return tuple(asked)


class EagerStep:
    """The step as torch runs it, with a fused Adam; bf16 by autocast where the run asks for it."""

    def __init__(self, model: Autoencoder, estimator: Estimator | None, run: Run) -> None:
        self.model, self.estimator, self.run = model, estimator, run
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=run.learning_rate, betas=BETAS, eps=EPSILON, fused=True
        )

    def __call__(self, x: Tensor, noise: Noise, kl_weight: float, rate: float) -> Tensor:
        self.optimizer.param_groups[0]["lr"] = rate
        bf16 = self.run.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            loss = objective(self.model, x, noise, self.estimator, self.run.samples, kl_weight)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class CompiledStep:
    """The step as one native function a batch size, moving the model's own weights.

    Arguments:
        model: float32, on a CPU; its posterior must be a map of the noise it is given.
        estimator, samples: as for `objective`.
        draws: `draws_of` them.
    """

    def __init__(
        self,
        model: Autoencoder,
        estimator: Estimator | None,
        samples: int,
        draws: Sequence[int],
    ) -> None:
        self.objective, self.draws = Objective(model, estimator, samples), draws
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
        first, second = (1 - beta**self.count for beta in BETAS)
        scalars = torch.tensor([kl_weight, rate / first, second**-0.5])
        drawn = [noise(n) for n in self.draws]
        arguments = [*self.weights, *self.first, *self.second, *self.constants, x, *drawn, scalars]
        with torch.no_grad():
            (loss,) = self._function(len(x), arguments)(*arguments)
        return loss

    def compile(self, x: Tensor) -> None:
        """Compile the step for batches of the shape of x `(B, D)`; raises NotCompiled."""
        noise = [x.new_ones(n, len(x), self.objective.model.latent_dim) for n in self.draws]
        state = [*self.weights, *self.first, *self.second, *self.constants]
        self._function(len(x), [*state, x, *noise, torch.ones(3)])

    def _function(self, batch: int, arguments: list[Tensor]) -> Callable:
        if batch not in self.compiled:
            self.compiled[batch] = native(self._step, arguments)
        return self.compiled[batch]

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
            for w, m, v, g in zip(weights, first, second, gradients, strict=True):
                if g is not None:
                    m.mul_(BETAS[0]).add_(g, alpha=1 - BETAS[0])
                    v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
                    w.sub_(rate * m / (v.sqrt() * correction + EPSILON))
        return [loss.detach()]


def step_for(
    run: Run, model: Autoencoder, estimator: Estimator | None, x: Tensor, steps: int
) -> tuple[Step, str]:
    """The compiled step where it pays, else the eager one; and why not where it would have paid.

    x `(B, D)` is an example batch, `steps` the length of the training.
    """
    eager = EagerStep(model, estimator, run)
    weights = sum(w.numel() for w in model.parameters())
    if steps * weights < WORTHWHILE or x.device.type != "cpu" or run.precision != "float32":
        return eager, ""
    try:
        if isinstance(model, VAE) and not is_map_of_noise(model.posterior(x), x):
            raise NotCompiled("the posterior is no map of noise")
        draws = draws_of(model, x, estimator, run.samples)
        compiled = CompiledStep(model, estimator, run.samples, draws)
        compiled.compile(x.expand(run.batch_size, -1).contiguous())
    except NotCompiled as reason:
        return eager, f"the training step was not compiled: {reason}"
    return compiled, ""
