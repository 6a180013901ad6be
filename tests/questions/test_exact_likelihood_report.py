"""What probabilistic PCA shows, from the grid to the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.config import PRESETS
from bench.data.dataset import load
from bench.grid import outcome as outcomes
from bench.grid.runner import execute
from bench.grid.tasks import Grid
from bench.questions import named
from bench.questions.exact_likelihood.report import sections, statements
from bench.report import rows
from bench.report.results import Results
from bench.statistics import Estimate
from tests.conftest import Inline


@pytest.fixture(scope="module")
def claim(tmp_path_factory):
    """The real path from grid to rows, one seed, one rate and a quarter of the default's epochs."""
    preset = replace(PRESETS["default"], epochs={"": 20}, tuned=False)
    variants = ("learned_diagonal", "input_dependent", "full_covariance")
    cache = tmp_path_factory.mktemp("ppca") / "cache"
    grid = Grid("ppca", variants, 1, preset, cache=cache, questions=named(["exact_likelihood"]))
    found = execute(grid, load("ppca"), Inline())
    assert not found.failures
    return Results(Path("results/ppca/cpu"), rows.frame(outcomes.rows(grid, found)))


def test_theory_is_seen_after_a_short_training(claim):
    """0.05 nats after the default's epochs; 0.15 after fewer."""
    (section,) = sections(claim)
    table = section.tables[0].frame().set_index("variant")
    assert abs(table.difference["learned-diagonal"]) < 0.15
    assert 0 < table.gap["full-covariance"] < 0.15
    assert np.allclose(table["exact log p(x)"] - table.ELBO, table.gap, atol=1e-6)
    best = claim.of("exact_likelihood", "generating_log_likelihood").value.iloc[0]
    assert (table["exact log p(x)"] <= best + 0.01).all()


def test_the_section_states_what_was_found(claim):
    (section,) = sections(claim)
    assert "nats" in section.takeaway
    assert "within 0.05 nats: learned-diagonal ties input-dependent (" in section.takeaway
    assert "; full-covariance reaches its exact log p(x) (" in section.takeaway
    assert "The maximum-likelihood model of the same training data reaches −" in section.notes
    assert "the model the data were drawn from −" in section.notes
    assert section.figures[0].png("ppca")


def test_no_rows_no_section(claim):
    empty = replace(claim, rows=claim.rows[claim.rows.question == "tuning"])
    assert sections(empty) == []


@pytest.mark.parametrize(
    ("gap", "difference", "words"),
    [(0.01, 0.0, ("yes", "yes")), (0.08, 0.0, ("yes", "no")), (0.01, -0.2, ("no", "yes"))],
)
def test_the_verdict_follows_the_numbers(gap, difference, words):
    said = statements(
        {
            ("full_covariance", "exact_gap"): Estimate(gap, 0.01, 5),
            ("learned_diagonal", "elbo_difference"): Estimate(difference, 0.01, 5),
        }
    )
    found = said.split("; ")
    assert tuple("yes" if "(yes: " in part else "no" for part in found) == words


def test_theory_holds_only_with_the_whole_interval_within_the_tolerance():
    """A mean of zero says nothing where the seeds differ by more than the tolerance."""
    key = ("learned_diagonal", "elbo_difference")
    assert "(yes: " in statements({key: Estimate(0.0, 0.04, 5)})
    said = statements({key: Estimate(0.0, 0.06, 5)})
    assert said == "learned-diagonal ties input-dependent (not shown: 0.000 ± 0.060 nats)"
    # of one seed no interval is known
    assert "(not shown: 0.000" in statements({key: Estimate(0.0, n=1)})


def test_without_the_variants_of_the_theory_the_closest_is_named(claim):
    some = replace(claim, rows=rows.select(claim.rows, variant="input_dependent"))
    (section,) = sections(some)
    assert section.takeaway.startswith("input-dependent comes closest to its exact log p(x): 0.")
    assert len(section.tables[0].lines) == 1
