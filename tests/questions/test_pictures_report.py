"""Every variant is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.questions.pictures.measure import measure
from bench.questions.pictures.report import ELLIPSES, sections, spreads
from bench.report import rows
from bench.report.figure import tiles
from bench.report.results import Results
from tests.stored import line
from tests.subjects import subject
from vaes import discover


@pytest.fixture(scope="module")
def results():
    """Untrained models of two latents, drawn without classes."""
    lines, pictures = [], {}
    for variant in discover().variants:
        common = {"dataset": "small", "device": "cpu", "variant": variant, "seed": 0}
        for view in ("samples", "plane"):
            found = measure(subject(variant, latent_dim=2), view)
            lines += [
                common
                | {"question": "pictures", "metric": row.metric, "value": row.value}
                | dict(row.settings)
                for row in found.rows
            ]
            pictures |= {f"pictures/{variant}/0/{k}": v.numpy() for k, v in found.pictures.items()}
    return Results(Path("results/small/cpu"), rows.frame(lines), pictures=pictures)


def with_classes(results):
    images = len(next(iter(results.arrays("pictures", "codes").values())))
    labels = np.arange(images, dtype=np.uint8) % 10
    more = {f"pictures/{variant}/0/labels": labels for variant in results.variants()}
    return replace(results, pictures=dict(results.pictures) | more)


def points(figure):
    """The lines of the chart's data that are encoded images."""
    datasets = figure.specification("small")["datasets"].values()
    return [point for some in datasets for point in some if "ux" in point]


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
    assert spreads(covariance[None]) == pytest.approx([1.0])


def test_every_variant_is_drawn(results):
    drawn, plane = sections(results)
    assert "`input-dependent` 1 of 2" in drawn.takeaway
    assert "above 0.01) in seed 0: `" in drawn.takeaway
    counted = rows.frame([line("flow", 0, "active_directions", 2.0)])
    (again, _) = sections(replace(results, rows=rows.joined(results.rows, counted)))
    assert "seed 0 (the headline's table has the mean over seeds): `" in again.takeaway
    assert plane.takeaway.startswith("With two latents (seed 0) a test image is encoded as a point")
    assert "a point by `autoencoder`" in plane.takeaway
    assert "of one size by `fixed-variance` and `learned-diagonal`" in plane.takeaway
    names = [figure.name for section in (drawn, plane) for figure in section.figures]
    assert names == ["samples", "active_units", "latent_plane", "manifold"]
    for section in (drawn, plane):
        for figure in section.figures:
            assert figure.png("small")
            assert figure.how
            assert figure.alt
    assert len(plane.tables[0].lines) == len(discover().variants)
    first = plane.tables[0].markdown().splitlines()[2]
    assert first.startswith("| autoencoder | – |")
    assert first.count("–") == 4


def test_digits_are_coloured_by_class_where_it_is_known(results):
    bare, classed = (sections(r)[1].figures[0] for r in (results, with_classes(results)))
    assert not any("class" in point for point in points(bare))
    found = points(classed)
    assert {point["class"] for point in found} == {str(digit) for digit in range(10)}
    assert "class" in str(classed.specification("small")["concat"][0]["layer"][0]["encoding"])
    assert classed.png("small")


def test_an_ellipse_is_its_covariance(results):
    """Σ = u uᵀ + v vᵀ for its half-axes u and v."""
    covariances = results.arrays("pictures", "covariances")["full_covariance"].astype(float)
    (_, plane) = sections(results)
    mine = [p for p in points(plane.figures[0]) if p["variant"] == "full-covariance"]
    outlined = sum(point["ux"] is not None for point in mine)
    assert outlined == min(ELLIPSES, len(covariances))
    for point, covariance in zip(mine[:outlined], covariances, strict=False):
        u, v = (np.array([point[f"{axis}x"], point[f"{axis}y"]]) for axis in "uv")
        assert np.outer(u, u) + np.outer(v, v) == pytest.approx(covariance, abs=1e-3)


def test_one_variant_or_one_view_alone_is_drawn(results):
    for variant in results.variants():
        one = {k: v for k, v in results.pictures.items() if f"/{variant}/" in k}
        some = replace(results, rows=rows.select(results.rows, variant=variant), pictures=one)
        assert len(sections(some)) == 2
    flat = {k: v for k, v in results.pictures.items() if not k.endswith("prior_samples")}
    (plane,) = sections(replace(results, pictures=flat))
    assert plane.title == "Two latents, drawn"


def test_no_pictures_no_section(results):
    assert sections(replace(results, pictures={})) == []


def test_lines_of_values_are_not_drawn_as_images(results):
    """Codes and directions are shown as ever, decoded images left out with a word."""
    drawn, plane = sections(replace(results, environment={"image_shape": [1, 12]}))
    names = [figure.name for section in (drawn, plane) for figure in section.figures]
    assert names == ["active_units", "latent_plane"]
    assert "left out" in drawn.notes
    assert drawn.takeaway == sections(results)[0].takeaway
