"""A finished model applied: closed forms, the data set's own images, one-line mistakes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from posteriors import ModuleFlow, perturbed
from safetensors import safe_open
from subjects import of_digits, small_data, subject

from bench.commands import apply
from bench.data.binarization import as_float
from bench.data.dataset import in_its_unit, load
from bench.data.sources import SOURCES
from bench.errors import BenchError
from bench.grid.contract import Subject
from bench.inference.elbo import elbo_terms
from bench.inference.importance import effective_sample_size, iw_bound, log_weights
from bench.inference.probabilistic_pca import exact_posterior, marginal
from bench.inference.reparameterize import standard_normal
from bench.weights import exported, imported
from vaes import VAE, discover, with_options
from vaes.base import Autoencoder


def images(found: Subject) -> torch.Tensor:
    return as_float(found.data.test)


def model_of(found: Subject, model: Autoencoder, **run) -> Subject:
    """The subject with that model at every stage."""
    trained = replace(found.trained, run=found.run.with_(**run))
    trained.checkpoints = dict.fromkeys(trained.checkpoints, model.state_dict())
    return replace(found, trained=trained, variant=type(model))


# --- codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["input_dependent", "full_covariance", "fixed_variance"])
def test_codes_are_the_posteriors_own(variant):
    found = subject(variant)
    codes, posterior = apply.codes(found, images(found)), found.model().posterior(images(found))
    np.testing.assert_allclose(codes["mean"], posterior.mean.detach(), atol=1e-6)
    np.testing.assert_allclose(codes["standard_deviation"], posterior.stddev.detach(), atol=1e-6)


def test_codes_of_a_posterior_without_known_moments():
    """z = loc + shift + ε / 2: exact, since the noise of 500 samples has mean 0 and variance 1."""
    found = of_digits(perturbed(ModuleFlow, data_dim=64))
    x = images(found)[:5]
    (shift,) = (q.transforms[0] for q in [found.model().posterior(x)])
    codes = apply.codes(found, x)
    np.testing.assert_allclose(codes["standard_deviation"], 0.5, atol=1e-5)
    expected = shift(found.model().encode(x)).detach()
    np.testing.assert_allclose(codes["mean"], expected, atol=1e-5)


def test_an_autoencoder_has_its_code_alone():
    found = subject("autoencoder")
    codes = apply.codes(found, images(found))
    assert list(codes) == ["mean"]
    expected = found.model().encode(images(found)).detach()
    np.testing.assert_allclose(codes["mean"], expected, atol=1e-6)


# --- likelihood ------------------------------------------------------------------------------


def test_likelihood_is_that_of_the_same_noise():
    found = subject("input_dependent")
    model, x = found.model(), images(found)[:7]
    values = apply.likelihood(found, x, count=5, k=20)

    def noise(purpose: str):
        return standard_normal(7, 3, found.generator(purpose))

    elbo = -sum(elbo_terms(model, x, noise("test noise"), 5)).double()
    weights = log_weights(model, x, noise("importance noise"), 20, 20)
    np.testing.assert_allclose(values["elbo"], elbo.mean(0))
    np.testing.assert_allclose(values["elbo_standard_error"], elbo.std(0) / 5**0.5)
    np.testing.assert_allclose(values["iw_bound"], iw_bound(weights))
    np.testing.assert_allclose(values["effective_sample_size"], effective_sample_size(weights))
    assert set(values["K"]) == {20}


class Exact(VAE):
    """q(z|x) = p(z|x) of a linear Gaussian model."""

    def posterior(self, x):
        q = exact_posterior(self, x)
        return type(q)(q.loc.to(x.dtype), scale_tril=q.scale_tril.to(x.dtype), validate_args=False)


def test_bounds_are_tight_where_the_posterior_is_exact():
    """log p(x) of a linear Gaussian model in closed form: all weights of an image are equal."""
    found = subject("input_dependent")
    model = perturbed(with_options(Exact, "gaussian", "linear"), data_dim=24)
    found = model_of(found, model, likelihood="gaussian", decoder="linear", hidden_dim=6)
    x = images(found)
    values = apply.likelihood(found, x, count=10, k=50)
    exact = marginal(model).log_prob(x.double())
    for name in ("elbo", "iw_bound"):
        np.testing.assert_allclose(values[name], exact, atol=1e-4 if name == "iw_bound" else 2)
    np.testing.assert_allclose(values["effective_sample_size"], 50, rtol=1e-6)
    off = (values["elbo"] - exact.numpy()) / values["elbo_standard_error"]
    assert abs(off.mean()) < 5 / len(x) ** 0.5  # 5 s.e., t(9) scores: P < 1e-5


@pytest.mark.parametrize("what", ["likelihood", "samples"])
def test_an_autoencoder_has_none(what):
    found = subject("autoencoder")
    arguments = (images(found), 5, 5) if what == "likelihood" else (3, 0)
    with pytest.raises(BenchError, match=f"'autoencoder' has no posterior and no {what}"):
        getattr(apply, what)(found, *arguments)


# --- samples ---------------------------------------------------------------------------------


def test_samples_are_draws_of_their_means():
    """2,000 images of 24 pixels: standardised sums of draws within 5 s.e. (P < 1e-6)."""
    found = subject("input_dependent")
    drawn = apply.samples(found, 2000, seed=0)
    mean, draws = drawn["mean"], drawn["draws"]
    assert mean.shape == draws.shape == (2000, *found.data.image_shape)
    assert set(np.unique(draws)) == {0, 1}
    error = np.sqrt((mean * (1 - mean)).sum())
    assert abs((draws - mean).sum()) < 5 * error
    again, other = (apply.samples(found, 2000, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again["draws"], draws)
    assert not np.array_equal(other["mean"], mean)


@pytest.mark.parametrize("likelihood", ["gaussian", "continuous_bernoulli"])
def test_samples_of_a_density(likelihood):
    """Their mean within 5 s.e., and of a Gaussian their spread within 1 %."""
    kind = with_options(type(subject("input_dependent").model()), likelihood, "mlp")
    model = perturbed(kind, data_dim=24)
    found = model_of(subject("input_dependent"), model, likelihood=likelihood, hidden_dim=6)
    drawn = apply.samples(found, 2000, seed=0)
    off = drawn["draws"] - drawn["mean"]
    assert abs(off.mean()) < 5 * off.std() / off.size**0.5
    if likelihood == "gaussian":
        assert off.std() == pytest.approx(model.log_noise.exp().item(), rel=0.01)
    else:
        assert 0 <= drawn["draws"].min() < 0.05 < 0.95 < drawn["draws"].max() <= 1


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("binarize", [None, "threshold", "none"])
def test_the_grey_test_images_become_the_runs_own(tmp_path, binarize):
    data = load("digits", binarize=binarize)
    grey = SOURCES["digits"].read("digits", None)["test"]
    np.save(tmp_path / "grey.npy", grey)
    np.savez(tmp_path / "scaled.npz", images=(grey / 255).reshape(len(grey), -1))
    for name in ("grey.npy", "scaled.npz"):
        found = apply.images_of(tmp_path / name, data)
        assert torch.equal(found, as_float(data.test)), name


def test_binary_images_stay_as_they_are(tmp_path):
    data = small_data()
    for white in (1, 255):
        np.save(tmp_path / "binary.npy", data.test.numpy() // 255 * white)
        assert torch.equal(apply.images_of(tmp_path / "binary.npy", data), as_float(data.test))
    np.save(tmp_path / "white.npy", np.full((20_000, 24), 255, dtype=np.uint8))
    assert apply.images_of(tmp_path / "white.npy", data).min() == 1
    np.save(tmp_path / "grey.npy", data.train.numpy())
    with pytest.raises(BenchError, match="is grey, and the images of 'small' are binary"):
        apply.images_of(tmp_path / "grey.npy", replace(data, binarization="binary"))


def test_real_images_are_taken_as_they_are(tmp_path):
    data = load("ppca")
    np.save(tmp_path / "real.npy", as_float(data.test).numpy())
    assert torch.equal(apply.images_of(tmp_path / "real.npy", data), as_float(data.test))
    np.save(tmp_path / "real.npy", np.full((2, 20), np.inf))
    with pytest.raises(BenchError, match="holds inf"):
        apply.images_of(tmp_path / "real.npy", data)


def of_table(tmp_path) -> Subject:
    """A Gaussian model of a table whose columns are of units far apart."""
    rows = np.random.default_rng(0).normal((5, -300, 0.2), (2, 40, 0.01), (400, 3))
    np.save(tmp_path / "table.npy", rows)
    data = load(str(tmp_path / "table.npy"))
    variant = with_options(discover().variants["input_dependent"], "gaussian")
    found = subject("input_dependent", data=data, likelihood="gaussian")
    torch.manual_seed(0)
    weights = variant(3, found.run.latent_dim, found.run.hidden_dim).state_dict()
    found.trained.checkpoints.update(dict.fromkeys(found.trained.checkpoints, weights))
    return replace(found, variant=in_its_unit(variant, data.unit))


def test_rows_of_a_table_are_given_and_drawn_in_its_own_unit(tmp_path):
    found = of_table(tmp_path)
    rows = found.data.unit.original(as_float(found.data.test).numpy())
    np.save(tmp_path / "rows.npy", rows)
    x = apply.images_of(tmp_path / "rows.npy", found.data)
    torch.testing.assert_close(x, as_float(found.data.test), atol=1e-4, rtol=0)
    drawn = apply.samples(found, 2000, 0)["draws"].reshape(2000, 3)
    # the decoder's mean moves little: s = 1 of standardised columns
    np.testing.assert_allclose(drawn.mean(0), (5, -300, 0.2), rtol=0.2)
    np.testing.assert_allclose(drawn.std(0), (2, 40, 0.01), rtol=0.3)


def test_weights_of_a_table_come_back_in_its_unit(tmp_path):
    found = of_table(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(exported(found, "best"))
    model = imported(tmp_path / "model.safetensors")
    x, z = as_float(found.data.test), torch.zeros(len(found.data.test), 3)
    torch.testing.assert_close(model.log_likelihood(x, z), found.model().log_likelihood(x, z))
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        unit = json.loads(file.metadata()["unit"])
    np.testing.assert_allclose(unit["mean"], found.data.unit.mean)
    np.testing.assert_allclose(unit["scale"], found.data.unit.scale)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (None, "does not exist"),
        (b"no array", "as an .npy file of a plain array"),
        (np.array([{}]), "as an .npy file of a plain array"),
        (np.zeros((3, 25)), "has images of 25 pixels, and those of 'small' have 24"),
        (np.zeros(24), "has shape"),
        (np.zeros((0, 24)), "at least 1"),
        (np.full((3, 24), np.nan), "NaN"),
        (np.full((3, 24), 2.0), r"scale them to \[0, 1\]"),
        (np.full((3, 24), "x"), "expected numbers"),
    ],
)
def test_an_unfit_file_is_one_line(tmp_path, stored, words):
    path = tmp_path / "images.npy"
    if isinstance(stored, bytes):
        path.write_bytes(stored)
    elif stored is not None:
        np.save(path, stored)
    with pytest.raises(BenchError, match=words):
        apply.images_of(path, small_data())


def test_an_archive_of_several_arrays_is_one_line(tmp_path):
    np.savez(tmp_path / "several.npz", a=np.zeros((1, 24)), b=np.zeros((1, 24)))
    with pytest.raises(BenchError, match=r"holds 2 arrays: save the images alone, or name"):
        apply.images_of(tmp_path / "several.npz", small_data())
    np.savez(tmp_path / "several.npz", x_train=np.zeros((1, 24)), x_test=np.ones((2, 24)))
    assert torch.equal(apply.images_of(tmp_path / "several.npz", small_data()), torch.ones(2, 24))


def test_what_is_written_is_read_again(tmp_path):
    arrays = {"elbo": np.array([-1.5, -2.25]), "mean": np.arange(6.0).reshape(2, 3)}
    apply.write(tmp_path / "all.npz", arrays)
    with np.load(tmp_path / "all.npz") as found:
        assert {name: found[name].tolist() for name in found.files} == {
            name: array.tolist() for name, array in arrays.items()
        }
    apply.write(tmp_path / "all.csv", arrays)
    table = pd.read_csv(tmp_path / "all.csv")
    assert list(table) == ["image", "elbo", "mean_0", "mean_1", "mean_2"]
    assert table.to_numpy().tolist() == [[0, -1.5, 0, 1, 2], [1, -2.25, 3, 4, 5]]


def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path):
    with pytest.raises(BenchError, match=r"must end in \.npz or \.csv"):
        apply.check_files(tmp_path / "codes.txt")
    with pytest.raises(BenchError, match="folder of --out"):
        apply.check_files(tmp_path / "absent" / "codes.csv")
