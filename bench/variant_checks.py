"""The contract of a variant, as checks that say what is wrong: `python -m bench check NAME`.

In the manner of scikit-learn's `check_estimator`: each check is a function of a variant's class and
raises `Broken` with what was found, what was expected and what to do. The tests put every file in
`vaes/` through them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution

from bench.errors import BenchError, one_line, readable
from bench.inference.elbo import elbo_terms
from bench.inference.gradients import estimator_for
from bench.inference.importance import log_weights
from bench.inference.reparameterize import draw, standard_normal
from bench.randomness import generator
from bench.training.step import objective
from vaes import VAE, Autoencoder
from vaes._deadline import TimeUp, deadline

Check = Callable[[type[Autoencoder]], None]

D, L, H, B = 16, 3, 8, 5
"""Pixels (a square of 4), latents, hidden units and images of the checks."""
STANDARD_ERRORS = 5
"""By so many two estimates of one number may differ (P < 1e-6)."""


SECONDS = 60.0
"""After which a check is given up."""


class Broken(BenchError):
    """A variant breaks its contract."""


def verdicts(variant: type[Autoencoder]) -> Iterator[tuple[Check, str]]:
    """Every check, and what is wrong, or "".

    Where a variant cannot be built, or has wrong shapes or no densities, the rest is left out.
    """
    with torch.random.fork_rng(devices=[]):
        for check in CHECKS:
            torch.manual_seed(0)  # of weights, and of what posteriors draw by themselves
            wrong = ""
            try:
                with deadline(SECONDS, f"the check '{check.__name__.replace('_', ' ')}'"):
                    check(variant)
            except KeyboardInterrupt:
                raise
            except Broken as error:
                wrong = str(error)
            except BaseException as error:  # whatever a user's code does
                wrong = f"{type(error).__name__}: {one_line(error)}"
            yield check, readable(wrong)
            if wrong and check in (builds, has_the_shapes, has_finite_densities):
                return


def problems(variant: type[Autoencoder]) -> dict[str, str]:
    """Name of a check → what is wrong; {} where the variant fulfils its contract."""
    return {check.__name__: wrong for check, wrong in verdicts(variant) if wrong}


@contextmanager
def _calling(what: str, expected: str) -> Iterator[None]:
    try:
        yield
    except (Broken, KeyboardInterrupt, TimeUp):
        raise
    except BaseException as error:  # SystemExit among them
        raise Broken(
            f"{what} raised {type(error).__name__} ({one_line(error)}): {expected}"
        ) from None


def _expect(condition: object, message: str) -> None:
    if not condition:
        raise Broken(message)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _made(variant: type[Autoencoder]) -> Autoencoder:
    return variant(D, L, H)


def _images(count: int = B) -> Tensor:
    return (torch.rand(count, D, generator=generator("cpu", "images")) < 0.3).float()


def _posterior(model: VAE, x: Tensor) -> Distribution:
    with _calling("posterior(x)", "it must return q(z|x), a torch.distributions object"):
        found = model.posterior(x)
    _expect(
        isinstance(found, Distribution),
        f"posterior(x) returned {type(found).__name__}: return a torch.distributions object",
    )
    return found


# --- the checks --------------------------------------------------------------------------------


def builds(variant: type[Autoencoder]) -> None:
    """The class is made as `Autoencoder` is, its declarations are of their kinds."""
    missing = sorted(getattr(variant, "__abstractmethods__", ()))
    _expect(not missing, f"it has no {' and no '.join(missing)}: define it in the class")
    with _calling(
        f"{variant.__name__}({D}, {L}, {H})",
        "__init__ must accept data_dim, latent_dim, hidden_dim, and pass them to super().__init__",
    ):
        _made(variant)
    _expect(
        _is_number(variant.rank),
        f"rank is {variant.rank!r}: give a number, its place in tables",
    )
    with _calling("choices", "give a mapping of names to numbers"):
        for name, values in variant.choices.items():
            _expect(
                len(values) > 0
                and all(
                    isinstance(value, int | float) and math.isfinite(value) for value in values
                ),
                f"choices[{name!r}] is {values!r}: give numbers to choose from",
            )
            variant(D, L, H, **{name: values[0]})


def has_the_shapes(variant: type[Autoencoder]) -> None:
    """Of codes, logits, likelihoods and the posterior, images first."""
    model, x, z = _made(variant).eval(), _images(), torch.zeros(4, B, L)
    for what, shape, call in (
        ("encode(x)", (B, L), lambda: model.encode(x)),
        ("decode(z)", (4, B, D), lambda: model.decode(z)),
        ("log_likelihood(x, z)", (4, B), lambda: model.log_likelihood(x, z)),
    ):
        with _calling(what, f"it must return a tensor of shape {shape}"):
            got = tuple(call().shape)
        _expect(
            got == shape,
            f"{what} has shape {got} for {B} images of {D} pixels, {L} latents and z of shape "
            f"{tuple(z.shape)}: expected {shape}",
        )
    if isinstance(model, VAE):
        posterior = _posterior(model, x)
        shapes = tuple(posterior.batch_shape), tuple(posterior.event_shape)
        _expect(
            shapes == ((B,), (L,)),
            f"posterior(x) has batch shape {shapes[0]} and event shape {shapes[1]}: expected "
            f"({B},) and ({L},); wrap it in Independent(…, 1)",
        )


def has_finite_densities(variant: type[Autoencoder]) -> None:
    """Of a posterior's own samples, under it, the prior and the likelihood."""
    model, x = _made(variant).eval(), _images()
    if not isinstance(model, VAE):
        return
    posterior = _posterior(model, x)
    noise = standard_normal(B, L, generator("cpu", "noise"))
    with _calling("a sample of posterior(x)", "it must be drawn by rsample or sample"):
        z = draw(posterior, noise, 4)
    for what, call in (
        ("log q(z|x)", lambda: posterior.log_prob(z)),
        ("log p(z)", lambda: model.prior.log_prob(z)),
        ("log p(x|z)", lambda: model.log_likelihood(x, z)),
    ):
        with _calling(what, "expected a finite number for each sample and image"):
            values = call()
        _expect(
            values.shape == (4, B) and values.isfinite().all(),
            f"{what} of the posterior's own samples is {values.flatten()[:3].tolist()}…, of shape "
            f"{tuple(values.shape)}: expected finite numbers of shape (4, {B}); is a scale "
            "negative or zero?",
        )
    for name in ("mean", "variance"):
        with _calling(f"the posterior's {name}", "leave it out where it is unknown"):
            try:
                values = getattr(posterior, name)
            except NotImplementedError:  # it is then estimated
                continue
        _expect(
            values.shape == (B, L) and values.isfinite().all(),
            f"the posterior's {name} is {values.flatten()[:3].tolist()}…, of shape "
            f"{tuple(values.shape)}: expected finite numbers of shape ({B}, {L}); a family without "
            f"a {name}, such as Cauchy's, has no ELBO",
        )


def treats_images_one_by_one(variant: type[Autoencoder]) -> None:
    """What is said of an image does not depend on the others of its batch, when evaluating."""
    model, x = _made(variant).eval(), _images()
    z = torch.linspace(-1, 1, 2 * B * L).view(2, B, L)
    if isinstance(model, VAE):
        z = draw(_posterior(model, x), standard_normal(B, L, generator("cpu", "noise")), 2)

    def said(images: Tensor, codes: Tensor) -> list[Tensor]:
        found = [model.encode(images), model.log_likelihood(images, codes).mT]
        if isinstance(model, VAE):
            found.append(_posterior(model, images).log_prob(codes).mT)
        return found

    with _calling("a batch of one image", "one image is a batch too, when evaluating"):
        alone = said(x[:1], z[:, :1])
    for name, one, all_ in zip(("encode", "log_likelihood", "posterior"), alone, said(x, z)):
        _expect(
            torch.allclose(one[0], all_[0], rtol=1e-4, atol=1e-5),
            f"{name} of an image changes with the other images of its batch: compute it image by "
            "image (axis 0), and make no use of batch statistics when evaluating",
        )


def evaluates_the_same_twice(variant: type[Autoencoder]) -> None:
    """After eval() nothing is random but what the posterior is asked to draw."""
    model, x = _made(variant).eval(), _images()
    z = torch.zeros(B, L)
    codes = [model.encode(x) for _ in range(2)]
    likelihoods = [model.log_likelihood(x, z) for _ in range(2)]
    densities = []
    if isinstance(model, VAE):
        densities = [_posterior(model, x).log_prob(z) for _ in range(2)]
    for name, values in zip(
        ("encode", "log_likelihood", "posterior"), (codes, likelihoods, densities)
    ):
        _expect(
            not values or torch.equal(*values),
            f"{name} differs from call to call after eval(): draw in training alone, or in the "
            "posterior's rsample",
        )


def learns_with_every_parameter(variant: type[Autoencoder]) -> None:
    """The loss of a batch in training is finite, and its gradient reaches every parameter."""
    model, x = _made(variant), _images()
    estimator = None
    if isinstance(model, VAE):
        with _calling("estimator_for(posterior)", "a posterior must have rsample or log_prob"):
            estimator = estimator_for("auto", _posterior(model, x), model.prior)
    with _calling("the loss of a batch", "it must be finite and differentiable"):
        loss = objective(model, x, standard_normal(B, L, generator("cpu", "noise")), estimator)
        _expect(loss.isfinite(), f"the loss of a batch is {loss.item()}: expected a finite number")
        loss.backward()
    for name, parameter in model.named_parameters():
        _expect(
            parameter.grad is not None,
            f"parameter '{name}' gets no gradient: use it in posterior, encode or decode (outside "
            "no_grad, not detached), or register it as a buffer",
        )
        _expect(
            parameter.grad.isfinite().all(),
            f"the gradient of parameter '{name}' is not finite: check for 0/0, sqrt(0), log(0)",
        )


def starts_from_the_mean_image(variant: type[Autoencoder]) -> None:
    """What sets the output's bias before training knows the decoder that there is."""
    model = _made(variant)
    with _calling(
        "initialise_output(mean)",
        "it sets the bias of the last layer of self.decoder; with a decoder of your own write your "
        "own, which may do nothing",
    ):
        model.initialise_output(torch.full((D,), 0.3))


def is_repeated_from_its_seeds(variant: type[Autoencoder]) -> None:
    """What is drawn follows from the noise that is given and from torch's generator."""

    def said() -> list[Tensor]:
        torch.manual_seed(2)
        model, x = _made(variant), _images()
        noise = standard_normal(B, L, generator("cpu", "noise"))
        found = [model.encode(x).detach()]
        if isinstance(model, VAE):
            found.append(draw(_posterior(model, x), noise, 4).detach())
        return found

    for name, *values in zip(("encode(x)", "a sample of posterior(x)"), said(), said()):
        _expect(
            torch.equal(*values),
            f"{name} in training differs from the same noise and the same torch.manual_seed: draw "
            "by rsample or torch's own generator, not by numpy's, random's or one of your own",
        )


def is_restored_from_its_weights(variant: type[Autoencoder]) -> None:
    """A second model with the first one's `state_dict` says the same."""
    first, x = _made(variant).eval(), _images()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.01)
    torch.manual_seed(1)
    second = _made(variant).eval()
    with _calling("load_state_dict", "the same arguments must make the same parameters"):
        second.load_state_dict(first.state_dict())
    z = torch.zeros(B, L)

    def said(model: Autoencoder) -> Tensor:
        density = _posterior(model, x).log_prob(z) if isinstance(model, VAE) else 0
        return model.log_likelihood(x, model.encode(x)) + density

    _expect(
        torch.equal(said(first), said(second)),
        "a model restored from state_dict differs from the one it was saved of: keep numbers that "
        "are drawn or learned in parameters or buffers",
    )


def has_one_elbo(variant: type[Autoencoder]) -> None:
    """E log w = −(distortion + rate): the KL and log q(z|x) belong to the same posterior."""
    model, x, count = _made(variant).eval(), _images(), 4000
    if not isinstance(model, VAE):
        return
    noise = [standard_normal(B, L, generator("cpu", "elbo", k)) for k in range(2)]
    with _calling("the ELBO", "posterior and prior must have log_prob"), torch.no_grad():
        distortion, rate = elbo_terms(model, x, noise[0], count)
        weights = log_weights(model, x, noise[1], count, at_once=1000)
    elbo = -(distortion + rate).double()
    difference = (elbo.mean() - weights.double().mean()).abs().item()
    error = ((distortion.var() + weights.var()) / (count * B)).sqrt().item()
    _expect(
        difference <= STANDARD_ERRORS * error,
        f"−(distortion + rate) and the mean of log p(x, z) − log q(z|x) differ by {difference:.3g} "
        f"nats (± {error:.2g}): does log_prob belong to what rsample draws, and kl_divergence to "
        "both?",
    )


CHECKS: tuple[Check, ...] = (
    builds,
    has_the_shapes,
    has_finite_densities,
    treats_images_one_by_one,
    evaluates_the_same_twice,
    learns_with_every_parameter,
    starts_from_the_mean_image,
    is_repeated_from_its_seeds,
    is_restored_from_its_weights,
    has_one_elbo,
)
