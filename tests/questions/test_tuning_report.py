"""How hyperparameters were chosen: the sentence and the table against made-up rows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.questions.tuning.report import sections
from bench.report import rows
from bench.report.results import Results
from tests.stored import line


def made_up(elbos, chosen, variant="fixed_variance"):
    """Two seeds a candidate; `elbos`: hyperparameters as sorted pairs → mean validation ELBO."""
    lines = [
        {
            "dataset": "small",
            "device": "cpu",
            "variant": variant,
            "seed": seed,
            "question": "tuning",
            "metric": "valid_elbo",
            "chosen": candidate == chosen,
            "value": elbo + (-0.1, 0.1)[seed],
            **{f"hyperparameter_{name}": value for name, value in candidate},
        }
        for candidate, elbo in elbos.items()
        for seed in (0, 1)
    ]
    return Results(Path("results/small/cpu"), rows.frame(lines))


SCALES = {(("scale", 0.1),): -95.0, (("scale", 0.3),): -90.0, (("scale", 1.0),): -110.0}


def test_the_chosen_candidate_is_compared_with_the_worst():
    (section,) = sections(made_up(SCALES, (("scale", 0.3),)))
    assert section.title == "How fixed-variance's scale was chosen"
    assert section.takeaway == (
        "`fixed-variance`: scale 0.3 has the highest validation ELBO (−90.00 nats); "
        "scale 1 would cost 20.0 nats, and scale 0.1, the next best, 5.00."
    )
    frame = section.tables[0].frame()
    assert frame["loss against the chosen"].tolist() == pytest.approx([5.0, 0.0, 20.0])
    assert frame["lowest seed"].tolist() == pytest.approx([-95.1, -90.1, -110.1])
    assert (frame.seeds == 2).all()
    assert "| 0.3 | **−90.00** |" in section.tables[0].markdown()
    assert section.figures[0].png("small")


def test_of_one_seed_there_is_no_range_of_seeds():
    both = made_up(SCALES, (("scale", 0.3),))
    (section,) = sections(replace(both, rows=both.rows[both.rows.seed == 0]))
    names = section.tables[0].frame().columns
    assert "seeds" in names
    assert not {"lowest seed", "highest seed"} & set(names)
    assert section.figures[0].how.startswith("Of one seed;")


def test_a_choice_at_the_edge_is_told():
    (section,) = sections(made_up({c: -c[0][1] for c in SCALES}, (("scale", 0.1),)))
    assert section.takeaway.endswith("; the best lies at the edge of the grid.")


def test_two_hyperparameters_have_a_table_and_no_curve():
    grid = {(("K", d), ("width", w)): -d * w for d in (1, 2) for w in (3, 4, 5)}
    (section,) = sections(made_up(grid, (("K", 1), ("width", 3))))
    assert section.title == "How fixed-variance's K and width was chosen"
    assert len(section.tables[0].lines) == len(grid)
    assert not section.figures


def test_each_variant_has_its_section_and_none_without_candidates():
    one, other = made_up(SCALES, (("scale", 0.3),)), made_up(SCALES, None, "flow")
    both = Results(one.folder, rows.joined(one.rows, other.rows))
    assert [section.tables[0].name for section in sections(both)] == [
        "fixed_variance_tuning",
        "flow_tuning",
    ]
    assert sections(Results(one.folder, rows.frame([]))) == []


def rated(scores, chosen, variant="flow", epochs=120, metric="valid_elbo"):
    """Two seeds a learning rate; `scores`: rate → mean validation score."""
    return [
        line(variant, seed, metric, score + (-0.1, 0.1)[seed], "tuning", epochs=epochs)
        | {"learning_rate": rate, "chosen": rate == chosen}
        for rate, score in scores.items()
        for seed in (0, 1)
    ]


def of(*lines):
    return Results(Path("results/small/cpu"), rows.frame([x for its in lines for x in its]))


def test_a_chosen_rate_stands_beside_what_half_and_twice_would_cost():
    found = of(
        rated({0.001: -96.0, 0.002: -95.0, 0.004: -97.5}, 0.002),
        rated({0.002: -109.0, 0.004: -98.0, 0.008: math.nan}, 0.004, epochs=30),
        rated({0.001: 80.0, 0.002: 79.0}, 0.002, "autoencoder", metric="valid_cross_entropy"),
    )
    (section,) = sections(found)
    assert section.title == "How the learning rates were chosen"
    assert "learning rates from 0.002 to 0.004" in section.takeaway
    # not the 11 nats of the short training
    assert section.takeaway.endswith(
        "; for the variants with an ELBO, half or twice the rate at 120 epochs would cost 1.00 to "
        "2.50 nats of validation ELBO."
    )
    frame = section.tables[0].frame().set_index(["variant", "epochs"])
    whole = frame.loc[("flow", 120)]
    assert whole["nats lost at half the rate"] == pytest.approx(1.0)
    assert whole["nats lost at twice the rate"] == pytest.approx(2.5)
    assert (whole["candidates"], whole["seeds"]) == (3, 2)
    assert math.isnan(frame.loc[("flow", 30), "nats lost at twice the rate"])
    code = frame.loc[("autoencoder", 120)]
    assert code["validation score"] == pytest.approx(-79.0)
    assert code["nats lost at half the rate"] == pytest.approx(1.0)


def test_a_hyperparameter_is_shown_at_the_chosen_rate_of_the_longest_training():
    lines = []
    for rate, scale, epochs, score in (
        (0.002, 0.2, 120, -90.0),
        (0.002, 0.3, 120, -91.0),
        (0.004, 0.2, 120, -95.0),
        (0.004, 0.2, 60, -99.0),
    ):
        chosen = 0.002 if epochs == 120 and scale == 0.2 else None
        its = rated({rate: score}, chosen, "fixed_variance", epochs)
        lines += [line | {"hyperparameter_scale": scale} for line in its]
    rates, scales = sections(of(lines))
    assert rates.tables[0].frame()["hyperparameters"].tolist() == ["scale 0.2"]
    assert scales.tables[0].frame()["scale"].astype(float).tolist() == [0.2, 0.3]


def test_rates_of_runs_with_an_estimator_of_their_own_are_told():
    """And not those of trainings of a few steps, which are the comparison's of estimators."""
    whole = [x | {"estimator": "dreg"} for x in rated({0.001: -96.0, 0.002: -95.0}, 0.002)]
    short = [
        x | {"estimator": "dreg", "steps": 320} for x in rated({0.004: -99.0}, 0.004, epochs=None)
    ]
    (section,) = sections(of(whole, short))
    assert section.tables[0].frame()["learning rate"].tolist() == [0.002]


def test_a_weighted_objective_is_no_elbo():
    lines = [
        x | {"hyperparameter_scale": scale}
        for scale, score in {0.2: -90.0, 0.3: -91.0}.items()
        for x in rated({0.002: score}, 0.002 if scale == 0.2 else None, metric="valid_objective")
    ]
    rates, scales = sections(of(lines))
    assert rates.tables[0].frame()["validation score"].tolist() == [-90.0]
    said = "`flow`: scale 0.2 has the highest validation objective (−90.00 nats)"
    assert scales.takeaway.startswith(said)
    assert "ELBO" not in scales.tables[0].markdown()
