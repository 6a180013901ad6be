"""How far each posterior stays from the truth where log p(x) is known: probabilistic PCA.

With a linear decoder and a Gaussian likelihood, log p(x) is a Gaussian's and the optimal posterior
covariance is the same for every x (Tipping & Bishop 1999; Lucas et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from bench.bounds import log_weights, standard_normal
from bench.config import Preset, Run
from bench.data import as_float
from bench.measure import Request, Result, Row, Subject, setting
from bench.ppca import generating_model, is_ppca, marginal
from vaes import VAE

SAMPLES = 200


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement a headline run whose model is probabilistic PCA."""
    if run.decoder == "linear" and run.likelihood == "gaussian":
        yield Request(run)


def measure(subject: Subject, samples: int = SAMPLES) -> Result:
    """ELBO, the model's exact log p(x), and what the data allow, all on the test set.

    The gap log p(x) − ELBO is the KL from the true posterior; its sampled integrand has no
    variance where the two agree, so few samples resolve it.
    """
    model = subject.model()
    if not (isinstance(model, VAE) and is_ppca(model)):
        return Result()
    x = as_float(subject.data.test)
    exact = marginal(model).log_prob(x.double())
    noise = standard_normal(len(x), model.latent_dim, subject.generator("exact likelihood"))
    elbo = log_weights(model, x, noise, samples, at_once=samples)
    rows = [
        _mean("elbo", elbo.mean(0), _monte_carlo_error(elbo)),
        _mean("exact_log_likelihood", exact, math.nan),
        _mean("exact_gap", exact - elbo.mean(0), _monte_carlo_error(elbo)),
        Row("noise", model.log_noise.exp().item(), "data units"),
    ]
    rows += [_mean(name, value, math.nan) for name, value in _references(subject, x).items()]
    return Result(rows, {"elbo": elbo.mean(0), "exact_log_likelihood": exact})


def compare(results: Mapping[tuple[str, int], Result], reference: str) -> Iterator[tuple]:
    """Paired ELBO differences to the reference variant, image by image, within each seed.

    Yields `(variant, seed, Row)`; the standard error is over the per-image pairs.
    """
    for (variant, seed), result in results.items():
        other = results.get((reference, seed))
        if other is None or variant == reference or not (result.arrays and other.arrays):
            continue
        pairs = result.arrays["elbo"] - other.arrays["elbo"]
        error = (pairs.std() / math.sqrt(len(pairs))).item()
        where = setting(reference=reference)
        row = Row("elbo_difference", pairs.mean().item(), "nats/image", where, error, len(pairs))
        yield variant, seed, row


def _references(subject: Subject, x: Tensor) -> dict[str, Tensor]:
    """log p(x) of the best model of these training images, and of the one they were drawn from."""
    train = as_float(subject.data.train[: subject.run.train_size or None])
    best = PCA(subject.run.latent_dim).fit(train.double().cpu().numpy())
    scores = best.score_samples(x.double().cpu().numpy())
    found = {"maximum_likelihood": torch.from_numpy(scores)}
    if subject.run.dataset == "ppca":
        found["generating_log_likelihood"] = generating_model().log_prob(x.double().cpu())
    return found


def _monte_carlo_error(samples: Tensor) -> float:
    """Of the mean over images of means over `(S, B)` samples."""
    return (samples.var(0).sum().sqrt() / samples.shape[1] / math.sqrt(samples.shape[0])).item()


def _mean(metric: str, values: Tensor, error: float) -> Row:
    return Row(metric, values.mean().item(), "nats/image", "", error, len(values))
