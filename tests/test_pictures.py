"""Pictures: exact ellipses, small arrays, and every variant drawn."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.codes import codes, covariances, unit_variances
from bench.data import Dataset
from bench.measure.pictures import GRID, measure, requests
from bench.report import pictures as report
from bench.report.common import Results, tiles
from tests.subjects import small_run, subject
from vaes import discover

COLUMNS = ["dataset", "device", "variant", "seed", "measurement", "metric", "setting", "value",
           "standard_error", "n", "unit"]  # fmt: skip
VIEWS = ("samples", "plane")


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("variant", ["fixed_variance", "learned_diagonal", "input_dependent",
                                     "full_covariance"])  # fmt: skip
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
    assert views[(("view", "plane"),)] == run.with_(latent_dim=2, epochs=2)
    assert list(requests(run.with_(seed=1), None)) == []
    assert list(requests(run.with_(likelihood="gaussian"), None)) == []


def test_tiles_are_placed_row_by_row():
    images = np.arange(1, 7, dtype=np.uint8).repeat(4).reshape(6, 2, 2)
    canvas = tiles(images, 3)
    assert canvas.shape == (5, 8)
    assert canvas[0].tolist() == [1, 1, 0, 2, 2, 0, 3, 3]
    assert canvas[3, 6] == 6
    assert (canvas[2] == 0).all()


def test_area_is_the_geometric_mean_of_the_half_axes():
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    covariance = turn @ np.diag([4.0, 0.25]) @ turn.T
    assert report.areas(covariance[None]) == pytest.approx([1.0])


def test_every_variant_is_drawn(tmp_path: Path):
    lines, pictures = [], {}
    for variant in discover().variants:
        for view in VIEWS:
            found = measure(subject(variant, latent_dim=2), view)
            for row in found.rows:
                lines.append(["small", "cpu", variant, 0, "pictures", row.metric, row.setting,
                              row.value, row.standard_error, row.n, row.unit])  # fmt: skip
            for name, value in found.pictures.items():
                pictures[f"pictures/{variant}/0/{name}"] = value.numpy()
    rows = pd.DataFrame(lines, columns=COLUMNS)
    results = Results(rows, pd.DataFrame(), pictures, tmp_path)
    drawn, plane = report.sections(results)
    assert "`input-dependent` 1 of 2" in drawn.takeaway
    assert "a point by `autoencoder`" in plane.takeaway
    assert "of one size by `fixed-variance`, `learned-diagonal`" in plane.takeaway
    for section in (drawn, plane):
        for figure, how in section.figures:
            assert (tmp_path / figure).stat().st_size > 0
            assert how


def test_no_pictures_no_section(tmp_path: Path):
    empty = Results(pd.DataFrame(columns=COLUMNS), pd.DataFrame(), {}, tmp_path)
    assert report.sections(empty) == []
