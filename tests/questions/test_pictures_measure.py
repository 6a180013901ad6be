"""Pictures: exact ellipses and small arrays."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from bench.commands import new_variant
from bench.data.dataset import Dataset
from bench.grid.contract import Subject
from bench.inference.codes import codes, covariances, unit_variances
from bench.questions.pictures.measure import GRID, measure, requests
from tests.subjects import of_digits, small_data, small_run, subject
from vaes import VAE, discover, variant_in
from vaes.base import diagonal_gaussian

VIEWS = ("samples", "plane")


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "variant", ["fixed_variance", "learned_diagonal", "input_dependent", "full_covariance"]
)
def test_ellipses_of_gaussians_are_exact(variant):
    one = subject(variant)
    x = one.data.test.float() / 255
    with torch.no_grad():
        posterior = one.model().posterior(x)
        found = covariances(one.model(), x, draws())
    exact = getattr(posterior, "covariance_matrix", None)
    if exact is None:
        exact = torch.diag_embed(posterior.variance)
    assert torch.allclose(found, exact, atol=1e-5)


def test_the_code_of_a_flow_is_its_mean_not_its_base_distributions():
    """Coupling layers that shift by a constant: the mean moves by it, in every image alike."""

    def shift(model) -> None:
        for layer in model.out:
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[: len(layer.bias) // 2] = 1.0

    one = subject("flow", shift)
    x = one.data.test.float() / 255
    with torch.no_grad():
        moved = codes(one.model(), x, draws()) - one.model().encode(x)
    assert torch.allclose(moved, torch.full_like(moved, 2.0), atol=1e-4)
    variances = unit_variances(one.model(), x, draws())
    assert torch.allclose(variances, one.model().encode(x).var(0), rtol=1e-3)


def test_a_plain_autoencoder_encodes_points():
    pictures = measure(subject("autoencoder", latent_dim=2), "plane").pictures
    assert (pictures["covariances"] == 0).all()
    codes = pictures["codes"].float()
    assert (pictures["axes"].float().amin(1) >= codes.amin(0)).all()
    assert (pictures["axes"].float().amax(1) <= codes.amax(0)).all()


def of_two_latents(kind: type[VAE]) -> Subject:
    one = of_digits(kind(64, 2, 8))
    one.trained.history.append({"valid_elbo": -1.0, "valid_distortion": 1.0})
    one.trained.best_epoch = 1
    return one


def test_the_plane_of_another_prior_is_cut_where_that_ends():
    """At its quantiles, and without the circle of N(0, I)."""

    class Moved(discover().variants["input_dependent"]):
        @property
        def prior(self):
            return diagonal_gaussian(self.prior_loc + 5, self.prior_scale * 2)

    pictures = measure(of_two_latents(Moved), "plane").pictures
    ends = 5 + 2 * Normal(0.0, 1.0).icdf(torch.tensor([0.02, 0.98]))
    # a quantile of 10,000 draws has a standard error of 0.06 here
    assert (pictures["axes"].float()[:, [0, -1]] - ends).abs().max() < 0.3
    assert "own_prior" in pictures
    known = measure(of_two_latents(discover().variants["input_dependent"]), "plane").pictures
    assert "own_prior" not in known


def test_codes_that_are_not_continuous_have_no_plane():
    example = Path(new_variant.FOLDER) / "_examples" / "bernoulli_latents.py"
    result = measure(of_two_latents(variant_in(example)), "plane")
    assert not result.rows
    assert not result.pictures
    assert "no plane" in result.notice


def test_the_manifold_is_decoded_with_the_second_latent_upwards():
    one = subject("input_dependent", latent_dim=2)
    pictures = measure(one, "plane").pictures
    horizontal, vertical = pictures["axes"].float()
    corner = torch.stack([horizontal[0], vertical[-1]])
    with torch.no_grad():
        exact = 255 * torch.sigmoid(one.model().decode(corner)).view(6, 4)
    assert pictures["manifold"].shape == (GRID, GRID, 6, 4)
    assert (pictures["manifold"][0, 0] - exact).abs().max() < 255 / 31


def test_pictures_of_a_variant_fit_in_fifty_kilobytes():
    """Six variants of 28 × 28 pixels then stay under 300 KB, even if their images are noise."""
    splits = [
        255 * torch.randint(0, 2, (n, 784), generator=draws(), dtype=torch.uint8)
        for n in (50, 20, 300)
    ]
    data = Dataset("large", *splits, "binary", (28, 28), "print")
    arrays = {}
    for view in VIEWS:
        found = measure(subject("input_dependent", data=data, latent_dim=2), view).pictures
        arrays |= {name: value.numpy() for name, value in found.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    assert len(buffer.getvalue()) < 50_000


def test_only_seed_zero_is_drawn():
    run = small_run("flow", epochs=10)
    views = {r.settings: r.run for r in requests(run, None)}
    assert views[(("view", "samples"),)] == run
    plane = run.with_(latent_dim=2, learning_rate=4e-3)
    assert views[(("view", "plane"),)] == plane.with_(epochs=2)
    for epochs, its in ((3, 1), (60, 12), (240, 12)):
        _, flat = requests(run.with_(epochs=epochs), None)
        assert flat.run == plane.with_(epochs=its)
    assert list(requests(run.with_(seed=1), None)) == []
    assert list(requests(run.with_(likelihood="gaussian"), None)) == []


def test_the_plane_has_the_classes_of_its_images_where_the_data_set_has_them():
    data = small_data(test=400)
    assert "labels" not in measure(subject("flow", data=data, latent_dim=2), "plane").pictures
    labels = (torch.arange(400) // 40).to(torch.uint8)  # sorted, as published files may be
    test = data.test.clone()
    test[:] = 25 * labels.unsqueeze(1)
    data = replace(data, test=test, labels=labels)
    one = subject("flow", data=data, latent_dim=2)
    pictures = measure(one, "plane").pictures
    assert len(pictures["labels"].unique()) == 10
    with torch.no_grad():
        images = pictures["labels"].unsqueeze(1).float().mul(25 / 255).expand(-1, 24)
        found = codes(one.model(), images, one.generator("codes"))
    assert torch.allclose(found, pictures["codes"].float(), atol=2e-3)
