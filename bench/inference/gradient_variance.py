"""Total variance tr Cov[g] of an estimator of the encoder's gradient, by tr(C G).

The gradient of one image's ELBO with respect to everything its posterior depends on is
g = Jᵀ g_λ: λ are the tensors the posterior is made of, J = ∂λ/∂φ is not random. Hence
tr Cov[g] = tr(C G) with C = Cov[g_λ] and G = J Jᵀ, and a noise sample costs decoder passes only:
the encoder is differentiated once an image. λ may be anything that separates φ from the noise,
so a posterior's tensors serve, whatever its family. The decoder's part of the gradient is in
`bench.inference.decoder_variance`.

A minibatch of B independent images has the mean of their gradients, whose variance is by the law of
total variance (1/B)(E tr Cov[g|x] + tr Cov[E[g|x]]): the Monte Carlo part, that of the noise of q
given the images, and the data part, that of which images (and binarizations) they are.
`total_variance` gives the first image by image, `between_images` the second.

In shapes, R counts replicates, independent estimates of one gradient; P the numbers in λ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.func import grad, vmap

from bench.inference.decoded import MOST_AT_ONCE, LogLikelihood, in_parts, log_likelihood_for
from bench.inference.gradients import ESTIMATORS, Estimator, Passes, admit
from bench.inference.gram_matrix import (
    bound_parameters,
    depended_on,
    doubles,
    gram_matrix,
    norm_and_products_of_mean,
    parameters_of,
    varying_paths,
)
from bench.inference.reparameterize import Noise
from bench.inference.target import Target
from bench.inference.tensors import substitute, tensors
from vaes import VAE
from vaes._shapes import Float

PASSES_AT_ONCE = 2048
"""Decoder passes in one call: large enough to be fast on a CPU core, and little memory."""
FEWEST_REPLICATES = 8
"""Of every image, before a standard error is believed; fewer where the passes do not suffice."""
PARTS = ("total", "location", "scale")


@dataclass(frozen=True)
class Variance:
    """A measured total variance, in nats² as all variances here: g is a gradient of nats.

    Attributes:
        per_image: for each of `PARTS`: the total, the part of the location parameters alone and
            that of all others alone; what is missing from their sum is twice their covariance.
            Unbiased for a number of replicates fixed beforehand; stopped early, some per cent low
            where tails are heavy.
        standard_error: of its mean over these images, over the noise of q alone.
        mean: the mean of all estimates of each image's gradient, by path.
        replicates: independent estimates for each image.
        capped: whether the cap was hit before the relative standard error was reached.
        cause: why the value is not finite ("" where it is).
    """

    per_image: Float[Tensor, "3 B"]
    standard_error: Float[Tensor, "3"]
    mean: dict[str, Float[Tensor, "B _"]]
    replicates: int
    capped: bool = False
    cause: str = ""

    @property
    def value(self) -> Float[Tensor, "3"]:
        """Averaged over the images."""
        return self.per_image.mean(1)


@dataclass(frozen=True)
class PosteriorGradient:
    """The gradient with respect to the posterior's parameters λ of B images, and G = J Jᵀ.

    Attributes:
        model: its weights take no gradient.
        x: the images.
        template: the first image's posterior, of batch shape `(1,)`.
        parameters: λ by path, with a batch axis where it differs between images.
        varying: the paths of those that do.
        gram: G of the numbers in λ that follow from φ, in float64.
        places: which of the P numbers these are, `(Q,)`.
        weights: the paths of the others, weights of the model themselves (a flow's): their G is
            the identity.
        twice: path of what λ holds once more → the path it has in G.
        decoded: log p(x|z) of the model, compiled where many passes are to come.
        notice: why it is not compiled, where that would have paid; or "".
    """

    model: VAE
    x: Float[Tensor, "B D"]
    template: Distribution
    parameters: dict[str, Tensor]
    varying: frozenset[str]
    gram: Float[Tensor, "B Q Q"]
    places: Tensor
    weights: tuple[str, ...]
    twice: dict[str, str]
    decoded: LogLikelihood
    notice: str = ""
    _templates: dict[int, tuple[Tensor, Distribution]] = field(default_factory=dict)

    @classmethod
    def from_model(cls, model: VAE, x: Float[Tensor, "B D"], passes: int = 0) -> PosteriorGradient:
        """That of the model's posteriors of x; the model is copied.

        `passes` of the decoder are to come.
        """
        model = copy.deepcopy(model).requires_grad_(True)
        varying = varying_paths(model, x)
        gram, places, weights = gram_matrix(copy.deepcopy(model).double(), x.double(), varying)
        template, held = model.posterior(x[:1]), parameters_of(model.posterior(x))
        values = {path: tensor.detach() for path, tensor in held.items()}
        decoded = log_likelihood_for(model.requires_grad_(False), x, passes)
        twice = {path: once for path, once in doubles(held).items() if path not in weights}
        return cls(model, x, template, values, varying, gram, places, weights, twice, *decoded)

    def posterior(self, values: dict[str, Tensor]) -> Distribution:
        """One image's posterior with λ as given, by path; where varying, of a batch of one."""
        return _exchanged(self.template, values)

    def passes(self, name: str, samples: int) -> Passes:
        """What an estimate costs; BenchError where the posterior does not admit the estimator."""
        values = {p: v[:1] if p in self.varying else v for p, v in self.parameters.items()}
        free = {path: value.clone().requires_grad_() for path, value in values.items()}
        return admit(name, self.posterior(free), self.model.prior, samples)

    def gradients(
        self, estimator: Estimator, samples: int, replicates: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, "R B _"]]:
        """R independent estimates of every image's gradient, by path, in float64."""
        with seeded(generator):
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
        posterior, repeated = self.repeated_posterior(replicates)
        target = Target(self._of_repeated, self.model.prior)
        x, _ = self._repeated(replicates)
        surrogate = estimator(target, posterior, self._noise(x, generator), samples)
        return gradients_of(surrogate, repeated)

    def _of_rows(
        self, estimator: Estimator, samples: int, replicates: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Each estimate by itself, vectorized: a shared λ has a gradient of its own in each."""

        def surrogate(varying: dict, shared: dict, x: Float[Tensor, "1 D"]) -> Float[Tensor, ""]:
            target = Target(partial(self.model.log_likelihood, x), self.model.prior)
            noise = self._noise(x, generator)
            return estimator(target, self.posterior(varying | shared), noise, samples).sum()

        row = torch.arange(len(self.x), device=self.x.device).repeat(replicates)
        varying = {p: v[row].unsqueeze(1) for p, v in self.parameters.items() if p in self.varying}
        shared = {p: v for p, v in self.parameters.items() if p not in self.varying}
        of_row = grad(surrogate, argnums=(0, 1))
        at_once = max(1, MOST_AT_ONCE // samples) if len(row) * samples > MOST_AT_ONCE else None
        of_rows = vmap(of_row, (0, None, 0), randomness="different", chunk_size=at_once)
        to_varying, to_shared = of_rows(varying, shared, self.x[row].unsqueeze(1))
        return to_varying | to_shared

    def repeated_posterior(self, replicates: int) -> tuple[Distribution, dict[str, Tensor]]:
        """The posterior of the images R times over, and its λ by path, which take a gradient."""
        _, template = self._repeated(replicates)
        repeated = {
            path: v.repeat(replicates, *[1] * (v.dim() - 1)).requires_grad_()
            for path, v in self.parameters.items()
        }
        return _exchanged(template, repeated), repeated

    def _repeated(self, replicates: int) -> tuple[Float[Tensor, "rows D"], Distribution]:
        """The images R times over, and their posterior to put λ into."""
        if replicates not in self._templates:
            x = self.x.repeat(replicates, 1)
            self._templates.clear()
            self._templates[replicates] = x, self.model.posterior(x)
        return self._templates[replicates]

    def _of_repeated(self, z: Float[Tensor, "*S rows L"]) -> Float[Tensor, "*S rows"]:
        """log p(x|z) for codes of the images R times over."""
        of_images = z.reshape(-1, len(self.x), z.shape[-1])
        return in_parts(self.decoded, self.x, of_images).reshape(z.shape[:-1])

    def _noise(self, x: Float[Tensor, "B D"], generator: torch.Generator) -> Noise:
        shape = (len(x), self.model.latent_dim)
        return lambda n: torch.randn(
            (n, *shape), generator=generator, dtype=x.dtype, device=x.device
        )

    def bound(self, g: dict[str, Float[Tensor, "*R B _"]]) -> dict[str, Float[Tensor, "*R B _"]]:
        """Of g by path what belongs to numbers that follow from φ, each number once."""
        others = {*self.weights, *self.twice}
        found = {path: g[path] for path in self.parameters if path not in others}
        for path, once in self.twice.items():
            found[once] = found[once] + g[path]
        return found

    def squared_norms(self, g: dict[str, Float[Tensor, "R B _"]]) -> Float[Tensor, "3 R B"]:
        """‖Jᵀ g‖² of g by path, for each of `PARTS`."""
        none = next(iter(g.values()))[..., 0] * 0
        direct = [
            sum((g[p].square().sum(-1) for p in self.weights if _is_location(p) == kind), none)
            for kind in (True, False)
        ]
        bound = self.bound(g)
        if not bound:
            return torch.stack([direct[0] + direct[1], *direct])
        of_location = [_is_location(path) for path, v in bound.items() for _ in range(v.shape[-1])]
        location = torch.tensor(of_location, device=self.x.device)[self.places]
        flat = torch.cat([*bound.values()], -1)[..., self.places].transpose(0, 1)
        products, own = flat @ self.gram, flat * location
        whole, inner = ((products * v).sum(-1).T for v in (flat, own))
        alone = ((own @ self.gram) * own).sum(-1).T
        others = whole - 2 * inner + alone
        return torch.stack([whole + direct[0] + direct[1], alone + direct[0], others + direct[1]])


def gradients_of(surrogate: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the surrogate's sum, by path; zero where it does not depend on one."""
    values = list(parameters.values())
    found = torch.autograd.grad(surrogate.sum(), values, materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


class Moments:
    """Mean and variance of an estimator's gradient g of every image, from independent estimates.

    Sums are about the mean of those added first: about 0 they lose what is small beside it.

    Arguments:
        gradient: the images' posteriors, and the metric ‖Jᵀ g‖².
    """

    def __init__(self, gradient: PosteriorGradient) -> None:
        self.gradient = gradient
        self._count = 0
        self._pilot: dict[str, Tensor] = {}
        self._shift: dict[str, Tensor] = {}
        self._sums: float | Tensor = 0.0
        self._squares: float | Tensor = 0.0

    def add(self, g: dict[str, Float[Tensor, "R B _"]]) -> None:
        """Take R more estimates, by path, into account."""
        self._pilot = self._pilot or {path: v.mean(0) for path, v in g.items()}
        centred = {path: v - self._pilot[path] for path, v in g.items()}
        self._shift = {path: self._shift.get(path, 0.0) + v.sum(0) for path, v in centred.items()}
        found = self.gradient.squared_norms(centred)
        self._count += found.shape[1]
        self._sums = self._sums + found.sum(1)
        self._squares = self._squares + found.square().sum(1)

    def variance(self) -> Variance:
        """What the estimates so far tell, at least two of every image."""
        done = self._count
        moved = {path: v / done for path, v in self._shift.items()}
        away = self.gradient.squared_norms({path: v[None] for path, v in moved.items()})[:, 0]
        value = (self._sums - done * away) / (done - 1)
        # of a replicate's squared norm about the pilot, image by image
        spread = (self._squares - self._sums.square() / done).clamp(min=0) / (done - 1)
        error = (spread.sum(1) * done).sqrt() / (done - 1) / len(self.gradient.x)
        mean = {path: self._pilot[path] + moved[path] for path in moved}
        return Variance(value, error, mean, done)


def total_variance(
    gradient: PosteriorGradient,
    name: str,
    samples: int,
    generator: torch.Generator,
    relative_error: float,
    most_passes: int,
) -> Variance:
    """tr Cov[g] of an estimator with S = `samples`, nats², for each of the images.

    Replicates are added until the relative standard error of the mean over these images is below
    `relative_error` or `most_passes` decoder passes are spent, which two replicates may exceed.
    Raises BenchError where the posterior does not admit the estimator.
    """
    _keep_freed_memory()
    each = len(gradient.x) * gradient.passes(name, samples).total
    fewest = min(FEWEST_REPLICATES, max(2, most_passes // each))
    batch = max(1, PASSES_AT_ONCE // each)
    moments = Moments(gradient)
    for g in _batches(gradient, ESTIMATORS[name], samples, batch, fewest, generator):
        moments.add(g)
        found = moments.variance()
        if not found.per_image.isfinite().all():
            cause = "gradient estimates are not finite in {} of {} images"
            cause = cause.format(int((~found.per_image[0].isfinite()).sum()), len(gradient.x))
            return replace(found, cause=cause)
        # fewer replicates than that lie too evenly about their mean to tell their spread
        sure = found.replicates >= FEWEST_REPLICATES
        good = sure and bool(found.standard_error[0] <= relative_error * found.value[0])
        if good or found.replicates * each >= most_passes:
            return replace(found, capped=not good)


def signal(gradient: PosteriorGradient, found: Variance) -> Float[Tensor, "B"]:
    """‖E g‖² of every image, nats², unbiased."""
    return _squared_norm_of_mean(gradient, found) - found.per_image[0] / found.replicates


def between_images(gradient: PosteriorGradient, found: Variance) -> Float[Tensor, "B"]:
    """Numbers of the images, nats², whose mean is tr Cov of E[g|x] over images x, unbiased.

    ‖m_n − M‖² with m_n the mean of the image's estimates and M that of all images, with Bessel's
    correction and less the noise that is left in m_n. The data part of a minibatch's variance.
    """
    model = copy.deepcopy(gradient.model).double().requires_grad_(True)
    numbers, left_out = bound_parameters(model, gradient.x.double(), gradient.varying)
    bound = gradient.bound(found.mean)
    direct = torch.cat([numbers[:, :0].detach(), *(found.mean[path] for path in left_out)], 1)
    norm, products = direct.mean(0).square().sum(), direct @ direct.mean(0)
    if bound:
        weights = depended_on(numbers.sum(), model.parameters())
        more = norm_and_products_of_mean(numbers, weights, torch.cat([*bound.values()], 1))
        norm, products = norm + more[0], products + more[1]
    away = _squared_norm_of_mean(gradient, found) - 2 * products + norm
    count = len(away)
    return count / (count - 1) * away - found.per_image[0] / found.replicates


def _squared_norm_of_mean(gradient: PosteriorGradient, found: Variance) -> Float[Tensor, "B"]:
    return gradient.squared_norms({path: v[None] for path, v in found.mean.items()})[0, 0]


def _keep_freed_memory() -> None:
    """Let the C library reuse large arrays instead of returning each to the system: 20 % faster.

    Freeing one block of just under 32 MiB raises glibc's thresholds to that; nothing elsewhere.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def _batches(
    gradient: PosteriorGradient,
    estimator: Estimator,
    samples: int,
    batch: int,
    fewest: int,
    generator: torch.Generator,
) -> Iterator[dict[str, Float[Tensor, "R B _"]]]:
    """Batches of estimates; the first has the `fewest`, so that its mean can be a pilot."""
    first = [
        gradient.gradients(estimator, samples, batch, generator) for _ in range(-(-fewest // batch))
    ]
    yield {path: torch.cat([g[path] for g in first]) for path in first[0]}
    while True:
        yield gradient.gradients(estimator, samples, batch, generator)


def _exchanged(template: Distribution, values: dict[str, Tensor]) -> Distribution:
    """The posterior with the tensors at these paths exchanged."""
    held = tensors(template)
    return substitute(template, [held[path] for path in values], values.values())


def _is_location(path: str) -> bool:
    return path.rpartition(".")[2] in ("loc", "mean")


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Let a posterior's own `sample`, which takes no generator, follow from ours."""
    device = generator.device
    seed = torch.randint(2**62, (), generator=generator, device=device).item()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        else:  # torch.manual_seed would seek every kind of device, at a millisecond a call
            torch.default_generator.manual_seed(seed)
        yield
