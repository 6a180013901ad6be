"""Total variance tr Cov[g] of a gradient estimator, by tr(C G).

The gradient of one image's ELBO with respect to everything its posterior depends on is
g = Jᵀ g_λ: λ are the tensors the posterior is made of, J = ∂λ/∂φ is not random. Hence
tr Cov[g] = tr(C G) with C = Cov[g_λ] and G = J Jᵀ, and a noise sample costs decoder passes only:
the encoder is differentiated once an image. The cut λ may be any that separates φ from the noise,
so a posterior's tensors serve, whatever its family.

Shapes: x `(B, D)`; λ of one image `(P,)` in all; R replicates of an estimate.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import grad, vmap

from bench.gradients import Estimator, Noise, Passes, Target, admit, draw, estimators
from bench.posterior import substitute, tensors
from vaes import VAE

AT_ONCE = 2048
"""Decoder passes in one call: large enough to be fast on a CPU core, and little memory."""
FEWEST = 8
"""Replicates before a standard error is believed."""
PARTS = ("total", "location", "scale")


@dataclass(frozen=True)
class Variance:
    """A measured total variance, averaged over images.

    Attributes:
        value, standard_error: `(3,)`: the total, the part of the location parameters alone and
            that of all others alone; what is missing from their sum is twice their covariance.
        signal: ‖E g‖² averaged over images, unbiased.
        replicates: independent estimates for each image.
        capped: whether the cap was hit before the relative standard error was reached.
        cause: why the value is not finite ("" where it is).
    """

    value: Tensor
    standard_error: Tensor
    signal: float
    replicates: int
    capped: bool
    cause: str = ""


@dataclass(frozen=True)
class Cut:
    """A model's posteriors of B images, cut from the encoder.

    Attributes:
        model: its weights take no gradient.
        x: the images `(B, D)`.
        template: the first image's posterior, of batch shape `(1,)`.
        parameters: λ by path: `(B, …)` where it differs between images, else `(…)`.
        varying: the paths of those that do.
        gram: G of the λ that follow from φ, `(B, P, P)` in float64.
        own: the paths of the others, parameters of the model themselves (a flow's weights): their
            G is the identity.
    """

    model: VAE
    x: Tensor
    template: Distribution
    parameters: dict[str, Tensor]
    varying: frozenset[str]
    gram: Tensor
    own: tuple[str, ...]
    _templates: dict[int, tuple[Tensor, Distribution]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: VAE, x: Tensor) -> Cut:
        """Cut the posteriors of x `(B, D)`; the model is copied."""
        model = copy.deepcopy(model).requires_grad_(True)
        varying = _varying(model, x)
        gram, own = _gram(copy.deepcopy(model).double(), x.double(), varying)
        template, held = model.posterior(x[:1]), _parameters(model.posterior(x))
        values = {path: tensor.detach() for path, tensor in held.items()}
        return cls(model.requires_grad_(False), x, template, values, varying, gram, own)

    def posterior(self, values: dict[str, Tensor]) -> Distribution:
        """One image's posterior with λ as given, by path: `(1, …)` where varying, else `(…)`."""
        return _exchanged(self.template, values)

    def passes(self, name: str, samples: int) -> Passes:
        """What an estimate costs; BenchError where the posterior does not admit the estimator."""
        values = {p: v[:1] if p in self.varying else v for p, v in self.parameters.items()}
        free = {path: value.clone().requires_grad_() for path, value in values.items()}
        return admit(name, self.posterior(free), self.model.prior, samples)

    def gradients(
        self, estimator: Estimator, samples: int, replicates: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """R independent estimates of every image's gradient: path → `(R, B, P_path)`, float64."""
        with _seeded(generator):
            if self.varying == self.parameters.keys():
                found = self._of_batch(estimator, samples, replicates, generator)
            else:
                found = self._of_rows(estimator, samples, replicates, generator)
        shape = (replicates, len(self.x), -1)
        return {path: g.double().reshape(shape) for path, g in found.items()}

    def _of_batch(
        self, estimator: Estimator, samples: int, replicates: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """All estimates as one batch, where no λ is shared between images."""
        x, template = self._repeated(replicates)
        repeated = {
            path: v.repeat(replicates, *[1] * (v.dim() - 1)).requires_grad_()
            for path, v in self.parameters.items()
        }
        posterior = _exchanged(template, repeated)
        surrogate = estimator(self._target(x), posterior, self._noise(x, generator), samples)
        found = torch.autograd.grad(
            surrogate.sum(), list(repeated.values()), materialize_grads=True
        )
        return dict(zip(repeated, found, strict=True))

    def _of_rows(
        self, estimator: Estimator, samples: int, replicates: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Each estimate by itself, vectorized: a shared λ has a gradient of its own in each."""

        def surrogate(varying: dict, shared: dict, x: Tensor) -> Tensor:
            noise = self._noise(x, generator)
            return estimator(
                self._target(x), self.posterior(varying | shared), noise, samples
            ).sum()

        row = torch.arange(len(self.x), device=self.x.device).repeat(replicates)
        varying = {p: v[row].unsqueeze(1) for p, v in self.parameters.items() if p in self.varying}
        shared = {p: v for p, v in self.parameters.items() if p not in self.varying}
        of_row = grad(surrogate, argnums=(0, 1))
        of_rows = vmap(of_row, in_dims=(0, None, 0), randomness="different")
        to_varying, to_shared = of_rows(varying, shared, self.x[row].unsqueeze(1))
        return to_varying | to_shared

    def _repeated(self, replicates: int) -> tuple[Tensor, Distribution]:
        """The images R times over, and their posterior to put λ into."""
        if replicates not in self._templates:
            x = self.x.repeat(replicates, 1)
            self._templates.clear()
            self._templates[replicates] = x, self.model.posterior(x)
        return self._templates[replicates]

    def _target(self, x: Tensor) -> Target:
        return Target(lambda z: self.model.log_likelihood(x, z), self.model.prior)

    def _noise(self, x: Tensor, generator: torch.Generator) -> Noise:
        shape = (len(x), self.model.latent_dim)
        return lambda n: torch.randn(
            (n, *shape), generator=generator, dtype=x.dtype, device=x.device
        )

    def squared_norms(self, g: dict[str, Tensor]) -> Tensor:
        """‖Jᵀ g‖² of g by path, `(R, B, P_path)`, for each of `PARTS`: `(3, R, B)`."""
        none = next(iter(g.values()))[..., 0] * 0
        own = [
            sum((g[p].square().sum(-1) for p in self.own if _is_location(p) == kind), none)
            for kind in (True, False)
        ]
        bound = [path for path in self.parameters if path not in self.own]
        if not bound:
            return torch.stack([own[0] + own[1], *own])
        location = [_is_location(path) for path in bound for _ in range(g[path].shape[-1])]
        places = [[i for i, here in enumerate(location) if here == kind] for kind in (True, False)]
        location, others = (torch.tensor(p, device=self.x.device, dtype=torch.long) for p in places)
        flat = torch.cat([g[path] for path in bound], -1).transpose(0, 1)
        products = (flat @ self.gram) * flat
        whole, beside = products.sum(-1).T, products[..., others].sum(-1).T
        alone = flat[..., location]
        alone = ((alone @ self.gram[:, location][..., location]) * alone).sum(-1).T
        # products of other parameters hold their own norm and half of the covariance term
        covariance = whole - beside - alone
        return torch.stack([whole + own[0] + own[1], alone + own[0], beside - covariance + own[1]])


def total_variance(
    cut: Cut,
    name: str,
    samples: int,
    generator: torch.Generator,
    relative_error: float,
    most_passes: int,
) -> Variance:
    """tr Cov[g] of an estimator with S = `samples`, averaged over the cut's images.

    Replicates are added until the relative standard error is below `relative_error` or
    `most_passes` decoder passes are spent. The standard error takes one replicate of all images
    as a batch (batch means). Raises BenchError where the posterior does not admit the estimator.
    """
    _keep_freed_memory()
    each = len(cut.x) * cut.passes(name, samples).total
    batch = max(1, AT_ONCE // each)
    batches = _batches(cut, estimators()[name], samples, batch, generator)
    pilot: dict[str, Tensor] = {}
    squares: list[Tensor] = []
    done = 0
    while True:
        g = next(batches)
        if not pilot:
            pilot = {path: v.mean(0, keepdim=True) for path, v in g.items()}
            shift = {path: torch.zeros_like(v) for path, v in pilot.items()}
        centred = {path: v - pilot[path] for path, v in g.items()}
        shift = {path: shift[path] + v.sum(0, keepdim=True) for path, v in centred.items()}
        squares.append(cut.squared_norms(centred).mean(-1))
        u = torch.cat(squares, 1)
        done = u.shape[1]
        moved = {path: v / done for path, v in shift.items()}
        away = cut.squared_norms(moved).mean((1, 2))
        value = (u.sum(1) - done * away) / (done - 1)
        error = u.std(1) * math.sqrt(done) / (done - 1)
        if not value.isfinite().all():
            bad = int((~u[0].isfinite()).sum())
            cause = f"{bad} of {done} gradient estimates are not finite"
            return Variance(value, error, math.nan, done, False, cause)
        good = bool(error[0] <= relative_error * value[0])
        if good or done * each >= most_passes:
            mean = {path: pilot[path] + moved[path] for path in pilot}
            signal = cut.squared_norms(mean)[0].mean() - value[0] / done
            return Variance(value, error, signal.item(), done, not good)


def decoder_variance(
    model: VAE, x: Tensor, samples: int, generator: torch.Generator
) -> tuple[float, float]:
    """tr Cov of the decoder's gradient from one noise sample, and its standard error.

    Averaged over the images x `(B, D)`, from `samples` draws of each. The decoder's estimator is
    the same beside every estimator of the encoder's gradient.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    posterior = model.posterior(x)
    shape = (*posterior.batch_shape, *posterior.event_shape)

    def noise(n: int) -> Tensor:
        return torch.randn((n, *shape), generator=generator, dtype=x.dtype, device=x.device)

    with _seeded(generator):
        z = draw(posterior, noise, samples)
    weights = _behind(model.log_likelihood(x, z).sum(), model.parameters())

    def log_likelihood(values: list[Tensor], x: Tensor, z: Tensor) -> Tensor:
        return substitute(model, weights, values).log_likelihood(x, z).sum()

    of_draws = vmap(grad(log_likelihood), in_dims=(None, None, 0))
    fixed = [w.detach() for w in weights]
    squares = torch.zeros(samples, dtype=torch.float64, device=x.device)
    for image in range(len(x)):
        for g in of_draws(fixed, x[image : image + 1], z[:, image : image + 1]):
            squares += (g - g.mean(0)).square().flatten(1).sum(1).double() / len(x)
    value = squares.sum() / (samples - 1)
    error = squares.std() * math.sqrt(samples) / (samples - 1)
    return value.item(), error.item()


def _keep_freed_memory() -> None:
    """Let the C library reuse large arrays instead of returning each to the system: 20 % faster.

    Freeing one block of just under 32 MiB raises glibc's thresholds to that; nothing elsewhere.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def _batches(
    cut: Cut, estimator: Estimator, samples: int, batch: int, generator: torch.Generator
) -> Iterator[dict[str, Tensor]]:
    """Batches of estimates; the first has at least `FEWEST`, so that its mean can be a pilot."""
    first = [
        cut.gradients(estimator, samples, batch, generator) for _ in range(-(-FEWEST // batch))
    ]
    yield {path: torch.cat([g[path] for g in first]) for path in first[0]}
    while True:
        yield cut.gradients(estimator, samples, batch, generator)


def _exchanged(template: Distribution, values: dict[str, Tensor]) -> Distribution:
    """The posterior with the tensors at these paths exchanged."""
    held = tensors(template)
    return substitute(template, [held[path] for path in values], values.values())


def _is_location(path: str) -> bool:
    return path.rpartition(".")[2] in ("loc", "mean")


def _parameters(posterior: Distribution) -> dict[str, Tensor]:
    return {path: t for path, t in tensors(posterior).items() if t.requires_grad}


def _behind(value: Tensor, candidates: Iterable[Tensor]) -> list[Tensor]:
    """Those of the candidates on which a scalar depends."""
    candidates = list(candidates)
    if not candidates:
        return []
    found = torch.autograd.grad(value, candidates, retain_graph=True, allow_unused=True)
    return [c for c, g in zip(candidates, found, strict=True) if g is not None]


def _varying(model: VAE, x: Tensor) -> frozenset[str]:
    """Paths of the λ that have a batch axis."""
    one, two = (_parameters(model.posterior(x[:1].expand(n, -1))) for n in (1, 2))
    return frozenset(path for path in one if one[path].shape != two[path].shape)


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Let a posterior's own `sample`, which takes no generator, follow from ours."""
    device = generator.device
    seed = torch.randint(2**62, (), generator=generator, device=device).item()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        else:  # torch.manual_seed would seek every kind of device, at a millisecond a call
            torch.default_generator.manual_seed(seed)
        yield


def _gram(model: VAE, x: Tensor, varying: frozenset[str]) -> tuple[Tensor, tuple[str, ...]]:
    """G = J Jᵀ for every image, `(B, P, P)`, and the paths of the λ it leaves out (`Cut.own`)."""
    layers: list[_Call] = []
    hooks = [
        module.register_forward_hook(lambda m, a, out: layers.append(_Call(m, a[0], out)))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    held = _parameters(model.posterior(x))
    for hook in hooks:
        hook.remove()
    leaves = {path: t for path, t in held.items() if t.is_leaf}
    bound = [path for path in held if path not in leaves]
    if bound:
        ancestors = _behind(sum(held[path].sum() for path in bound), leaves.values())
        bound += [path for path, t in leaves.items() if any(t is a for a in ancestors)]
    own = tuple(path for path in held if path not in bound)
    parts = [held[p] if p in varying else held[p].expand(len(x), *held[p].shape)
             for p in held if p not in own]  # fmt: skip
    if not parts:
        return x.new_zeros(len(x), 0, 0), own
    flat = torch.cat([part.reshape(len(x), -1) for part in parts], 1)
    weights = _behind(flat.sum(), model.parameters())
    gram = _gram_of_layers(flat, weights, layers)
    direction = torch.sin(torch.arange(flat.shape[1], dtype=x.dtype, device=x.device) + 1)
    exact = torch.autograd.grad(flat[0] @ direction, weights, retain_graph=True)
    expected = sum(g.square().sum() for g in exact)
    if not torch.isclose(direction @ gram[0] @ direction, expected, rtol=1e-8):
        gram = _gram_of_layers(flat, weights, [])  # a layer's weights are used in other ways too
    return gram, own


@dataclass(frozen=True)
class _Call:
    """One use of a linear layer: input `(B, in)`, output `(B, out)`."""

    layer: nn.Linear
    input: Tensor
    output: Tensor


def _gram_of_layers(flat: Tensor, weights: list[Tensor], calls: list[_Call]) -> Tensor:
    """J Jᵀ of λ `(B, P)` with respect to the weights.

    An image's ∂λ/∂W of a linear layer is δ aᵀ with δ = ∂λ/∂output `(P, out)` and a its input, so
    that its share is (‖a‖² + 1) δ δᵀ (Goodfellow 2015) and ∂λ/∂W is never formed. Weights outside
    of such layers are differentiated image by image.
    """
    images, p = flat.shape
    unit = torch.eye(p, dtype=flat.dtype, device=flat.device)
    once = [c for c in calls if any(c.layer.weight is w for w in weights) and c.input.dim() == 2]
    gram = flat.new_zeros(images, p, p)
    if once:
        along = unit.unsqueeze(1).expand(p, images, p)
        deltas = torch.autograd.grad(
            flat, [c.output for c in once], along, retain_graph=True, is_grads_batched=True
        )
        for call, delta in zip(once, deltas, strict=True):
            length = call.input.detach().square().sum(1) + (call.layer.bias is not None)
            gram += torch.einsum("pbo,qbo->bpq", delta, delta) * length.view(-1, 1, 1)
    covered = {id(w) for call in once for w in call.layer.parameters()}
    rest = [w for w in weights if id(w) not in covered]
    for image in range(images if rest else 0):
        rows = torch.autograd.grad(
            flat[image], rest, unit, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
        for row in rows:
            if row is not None:
                gram[image] += row.flatten(1) @ row.flatten(1).T
    return gram
