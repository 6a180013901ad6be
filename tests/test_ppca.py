"""Real-valued data: the data set `ppca`, the Gaussian likelihood, the linear decoder, the claim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from bench import tidy
from bench.config import PRESETS, BenchError, Run
from bench.data import as_float, load
from bench.ppca import generating_model
from bench.report import exact_likelihood
from bench.runner import execute, key_of
from bench.tasks import Grid, Task
from bench.train import build
from vaes import VAE, discover
from vaes._options import GaussianLikelihood, LinearDecoder, with_options

VARIANTS = discover().variants


def test_the_data_are_draws_of_the_generating_model():
    """Mahalanobis distances have mean D and variance 2D: 10,000 of them, 5 s.e. (P < 1e-6)."""
    data, model = load("ppca"), generating_model()
    assert data.binarization == "real"
    x = as_float(data.train).double()
    centred = x - model.loc
    distances = (centred @ model.precision_matrix * centred).sum(1)
    d = x.shape[1]
    assert abs(distances.mean().item() - d) < 5 * (2 * d / len(x)) ** 0.5
    entropy = model.entropy().item()
    assert -model.log_prob(x).mean().item() == pytest.approx(entropy, abs=5 * (d / 2 / 1e4) ** 0.5)


def test_the_data_are_the_same_each_time():
    first, second = load("ppca"), load("ppca")
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first.test, second.test)


def test_real_data_have_no_binarization():
    with pytest.raises(BenchError, match=r"real-valued.*--binarize"):
        load("ppca", binarize="threshold")


def made(name: str, likelihood: str = "gaussian", decoder: str = "linear"):
    run = Run(name, "toy", 0, 1, latent_dim=3, hidden_dim=8)
    mean = torch.linspace(-2, 2, 7)
    return build(run, with_options(VARIANTS[name], likelihood, decoder), mean), mean


@pytest.mark.parametrize("name", VARIANTS)
def test_gaussian_likelihood_is_that_of_torch(name):
    model, mean = made(name)
    with torch.no_grad():
        model.log_noise.fill_(-0.7)
    x, z = torch.randn(5, 7), torch.randn(2, 5, 3)
    expected = Normal(model.decode(z), model.log_noise.exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(model.log_likelihood(x, z), expected)
    assert torch.equal(model.decoder[-1].bias, mean)
    model.log_likelihood(x, z).sum().backward()
    assert model.log_noise.grad.abs() > 0


@pytest.mark.parametrize("name", VARIANTS)
def test_options_keep_the_variant_and_its_shared_start(name):
    model, _ = made(name)
    assert isinstance(model, VARIANTS[name])
    assert isinstance(model, VAE) == issubclass(VARIANTS[name], VAE)
    assert isinstance(model, GaussianLikelihood)
    assert isinstance(model, LinearDecoder)
    reference, _ = made("autoencoder")
    for key, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_the_defaults_are_the_variant_itself():
    assert with_options(VARIANTS["flow"], "bernoulli", "mlp") is VARIANTS["flow"]


def test_options_are_part_of_the_cache_key():
    run = Run("flow", "toy", 0, 1)
    runs = [run, run.with_(likelihood="gaussian"), run.with_(decoder="linear")]
    assert len({key_of(Task(r), VARIANTS["flow"], "data") for r in runs}) == 3


@pytest.fixture(scope="module")
def claim(tmp_path_factory):
    """The real path from grid to rows, one seed and a third of the default's epochs."""
    from tests.conftest import Inline

    folder = tmp_path_factory.mktemp("ppca")
    preset = replace(PRESETS["default"], epochs={"": 8})
    variants = ("learned_diagonal", "input_dependent", "full_covariance")
    grid = Grid("ppca", variants, 1, preset, cache=folder / "cache",
                measurements=("exact_likelihood",))  # fmt: skip
    outcome = execute(grid, load("ppca"), Inline())
    assert not outcome.failures
    tidy.store(folder, tidy.rows_of(grid, outcome), tidy.history_of(grid, outcome), {},
               {"config": {}})  # fmt: skip
    return tidy.read(folder)


def test_theory_is_seen_after_a_short_training(claim):
    """0.05 nats after the default's epochs; 0.15 after fewer."""
    table = exact_likelihood.exact_table(claim).set_index("variant")
    assert abs(table.elbo_difference["learned_diagonal"]) < 0.15
    assert 0 < table.exact_gap["full_covariance"] < 0.15
    assert np.allclose(table.exact_log_likelihood - table.elbo, table.exact_gap, atol=1e-6)
    assert (table.exact_log_likelihood <= table.generating_log_likelihood + 0.01).all()


def test_the_section_states_what_was_found(claim):
    (section,) = exact_likelihood.sections(claim)
    assert "nats" in section.takeaway
    assert "Learned-diagonal" in section.takeaway
    assert "full-covariance" in section.takeaway
    for file in [*section.files, *(path for path, _ in section.figures)]:
        assert (claim.folder / file).stat().st_size > 0


def test_no_rows_no_section(claim):
    empty = replace(claim, rows=claim.rows[claim.rows.measurement == "elbo"])
    assert exact_likelihood.sections(empty) == []


@pytest.mark.parametrize(
    ("gap", "difference", "words"),
    [(0.01, 0.0, ("yes", "yes")), (0.08, 0.0, ("yes", "no")), (0.01, -0.2, ("no", "yes"))],
)
def test_the_verdict_follows_the_numbers(claim, gap, difference, words):
    table = exact_likelihood.exact_table(claim)
    table.loc[table.variant == "full_covariance", "exact_gap"] = gap
    table.loc[table.variant == "learned_diagonal", "elbo_difference"] = difference
    found = exact_likelihood.takeaway_of(table).split("; ")
    assert tuple("yes" if "nats: yes" in part else "no" for part in found) == words
