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

from bench.config import OPTIONS, Preset, Run
from bench.data.binarization import as_float
from bench.data.synthetic import generating_model
from bench.grid.contract import Request, Result, Row, Subject
from bench.inference.importance import log_weights
from bench.inference.probabilistic_pca import best_of_scale, is_probabilistic_pca, marginal
from bench.inference.reparameterize import standard_normal
from bench.questions.averages import NATS, monte_carlo_mean, paired_differences
from vaes import VAE

SAMPLES = 200


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """One measurement a headline run whose model is probabilistic PCA, of built-in data: the
    model's own p(x) is not in the unit of a table that was standardised."""
    known = run.dataset in OPTIONS
    if known and run.decoder == "linear" and run.likelihood == "gaussian":
        yield Request(run)


def measure(subject: Subject, samples: int = SAMPLES) -> Result:
    """ELBO, the model's exact log p(x), and what the data allow, all on the test set.

    The gap log p(x) − ELBO is the KL from the true posterior; its sampled integrand has no
    variance where the two agree, so few samples resolve it.
    """
    model = subject.model()
    if not (isinstance(model, VAE) and is_probabilistic_pca(model)):
        return Result()
    x = as_float(subject.data.test)
    exact = marginal(model).log_prob(x.double())
    noise = standard_normal(len(x), model.latent_dim, subject.generator("exact likelihood"))
    sampled = log_weights(model, x, noise, samples, at_once=samples)
    elbo, error = sampled.mean(0), sampled.std(0) / math.sqrt(samples)
    known = {"exact_log_likelihood": exact, **_references(subject, x), **_predicted(subject, x)}
    rows = [
        monte_carlo_mean("elbo", elbo, error),
        monte_carlo_mean("exact_gap", exact - elbo, error),
        Row("noise", model.log_noise.exp().item(), "data units"),
        *(Row(name, value.mean().item(), NATS, n=len(x)) for name, value in known.items()),
    ]
    return Result(rows, {"elbo": elbo, "exact_log_likelihood": exact})


def compare(results: Mapping[tuple[str, int], Result], reference: str) -> Iterator[tuple]:
    """Paired ELBO differences to the reference variant."""
    return paired_differences(results, reference, ("elbo",))


def _references(subject: Subject, x: Tensor) -> dict[str, Tensor]:
    """log p(x) of the best model of these training images, and of the one they were drawn from."""
    train = as_float(subject.data.train[: subject.run.train_size or None])
    best = PCA(subject.run.latent_dim).fit(train.double().cpu().numpy())
    scores = best.score_samples(x.double().cpu().numpy())
    found = {"maximum_likelihood": torch.from_numpy(scores)}
    if subject.run.dataset == "ppca":
        found["generating_log_likelihood"] = generating_model().log_prob(x.double().cpu())
    return found


def _predicted(subject: Subject, x: Tensor) -> dict[str, Tensor]:
    """What theory says a posterior of constant variance, `scale`² in every direction, must lose on
    the test set to one whose covariance is its own."""
    scale = dict(subject.run.hyperparameters).get("scale")
    if scale is None:
        return {}
    with torch.no_grad():
        deviations = subject.model().posterior(x[:2]).stddev
    if not torch.allclose(deviations, torch.full_like(deviations, scale)):
        return {}
    train = as_float(subject.data.train[: subject.run.train_size or None])
    p, divergence = best_of_scale(train, subject.run.latent_dim, scale)
    best = _references(subject, x)["maximum_likelihood"].to(x.device)
    return {"predicted_elbo_difference": p.log_prob(x.double()) - divergence - best}
