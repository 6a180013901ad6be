"""One step of training: batch, noise, KL weight and learning rate in; the loss out, weights moved.

Two ways to the same step. `EagerStep` calls torch's kernels one by one, whatever the model.
`CompiledStep` traces loss, gradient and Adam's update once, through the very same objective, and
lets torch's inductor make one native function of them: no autograd, no optimizer and no Python
between two kernels, and element-wise work in few passes. Compiling takes time and a C++ compiler,
so it is for long trainings on a CPU; on a GPU see `bench.stacked`.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from warnings import catch_warnings, simplefilter

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bench.config import Run, one_line
from bench.gradients import Estimator, Noise, Target, is_map_of_noise
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
        """Compile the step for batches of the shape of x `(B, D)`; raises what inductor raises."""
        noise = [x.new_ones(n, len(x), self.objective.model.latent_dim) for n in self.draws]
        state = [*self.weights, *self.first, *self.second, *self.constants]
        self._function(len(x), [*state, x, *noise, torch.ones(3)])

    def _function(self, batch: int, arguments: list[Tensor]) -> Callable:
        if batch not in self.compiled:
            self.compiled[batch] = _native(self._step, arguments)
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


def _upper(x: Tensor) -> Tensor:
    """sigmoid(|x|): one exponential for the functions below that ask for it."""
    return 1 / (1 + torch.exp(-x.abs()))


FORMULAS = {
    torch.ops.aten.sigmoid.default: lambda x: torch.where(x > 0, _upper(x), 1 - _upper(x)),
    torch.ops.aten.softplus.default: lambda x: F.relu(x) - torch.log(_upper(x)),
    torch.ops.aten.tanh.default: lambda x: 2 / (1 + torch.exp(-2 * x)) - 1,
}
"""In one exponential, which compiled code evaluates two to three times faster than its own
sigmoid, softplus and tanh; correct to float32's rounding of values of order one."""


def _native(function: Callable, arguments: list[Tensor]) -> Callable:
    """`function(*arguments)` as one native function of arguments of these shapes."""
    from torch.fx.experimental.proxy_tensor import make_fx

    copies = [a.clone() for a in arguments]  # tracing runs the function
    return _compile(make_fx(function, decomposition_table=FORMULAS)(*copies), copies)


def _compile(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable:
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    # inductor keeps what it compiled on disk, but only for a graph that has a shape environment
    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True))
    # a worker has one core: no pool of compilers
    with torch.no_grad(), tracing(context), config.patch(compile_threads=1), catch_warnings():
        simplefilter("ignore", FutureWarning)  # torch's, about itself
        return compile_fx(graph, examples)


def compiler() -> str | None:
    """The path of the C++ compiler that inductor would call, or None.

    None too without Python's headers, which the compiled code includes.
    """
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return None
    usual = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", usual))


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
    if compiler() is None:
        return eager, "no C++ compiler with Python's headers: the training step was not compiled"
    if isinstance(model, VAE) and not is_map_of_noise(model.posterior(x), x):
        return eager, "the posterior is no map of noise: the training step was not compiled"
    draws = draws_of(model, x, estimator, run.samples)
    compiled = CompiledStep(model, estimator, run.samples, draws)
    try:
        compiled.compile(x.expand(run.batch_size, -1).contiguous())
    except Exception as error:  # a compiler can fail in many ways, and is no reason not to train
        reason = f"{type(error).__name__}: {one_line(error)}"
        return eager, f"the training step was not compiled ({reason})"
    return compiled, ""
