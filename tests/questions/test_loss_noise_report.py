"""Tables and sentences of the loss's noise."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bench.grid.contract import Row
from bench.questions.loss_noise import STAGES
from bench.questions.loss_noise.measure import measure
from bench.questions.loss_noise.report import sections
from tests.posteriors import Squashed
from tests.stored import lines_of, printed, stored
from tests.subjects import of_digits
from vaes import discover


def measured(variant, stage):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = variant(64, 3, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return measure(of_digits(model.eval()), stage, 6, (1, 4, 16), 4).rows


@pytest.fixture(scope="module")
def found():
    """Variant → stage → the rows of a real measurement."""
    variants = {name: discover().variants[name] for name in ("fixed_variance", "input_dependent")}
    variants["squashed"] = Squashed
    return {
        name: {stage: measured(variant, stage) for stage in STAGES}
        for name, variant in variants.items()
    }


def results(rows_of):
    return stored(
        "loss_noise",
        [(name, 0, rows) for name, stages in rows_of.items() for rows in stages.values()],
    )


def test_no_rows_no_section():
    assert sections(results({})) == []


def test_the_section_has_its_tables_and_figures(found):
    (section,) = sections(results(found))
    tables = printed(section)
    assert set(tables) == {"loss_order", "loss_variance", "loss_time", "iw_bound"}
    assert len(section.takeaway) > 50
    assert len(section.figures) == 2
    assert section.answer.startswith(
        "variance of the one-sample ELBO estimate, in one training of `input-dependent`: "
    )
    assert "nats² with the analytic KL and " in section.answer
    for name in ("analytic", "sampled"):
        (line,) = lines_of(
            tables["loss_variance"],
            "input-dependent",
            "best weights",
            f"{name} KL",
            "antithetic pairs",
        )
        assert line[4] == "n/a"  # S = 1 is odd
        assert "±" in line[-1]
    assert "use an even S" in section.notes
    assert "squashed" in section.notes
    assert len(tables["loss_variance"].variants) == len(tables["loss_variance"].lines)


@pytest.mark.parametrize(
    "keep",
    [
        lambda row: row.settings.get("stage") == "best",
        lambda row: row.settings.get("stage") == "initialisation",
        lambda row: row.settings.get("S") == 1,
        lambda row: row.settings.get("kl") == "sampled",
        lambda row: "K" in row.settings,
        lambda row: row.metric == "elbo_estimate_time",
        lambda row: bool(row.reason),
    ],
)
def test_part_of_the_rows_makes_a_section_too(found, keep):
    some = {
        name: {stage: list(filter(keep, rows)) for stage, rows in stages.items()}
        for name, stages in found.items()
    }
    (section,) = sections(results(some))
    printed(section)


def with_ratios(rows, ratio):
    """The rows with this one-sample ratio of sampled to analytic KL, ± 0.03."""
    for row in rows:
        settings = {k: v for k, v in row.settings.items() if k in ("sampling", "S")}
        wanted = row.metric == "sampled_to_analytic_variance"
        if wanted and settings == {"sampling": "independent", "S": 1}:
            yield dataclasses.replace(row, value=ratio, standard_error=0.03)
        else:
            yield row


def test_the_table_shows_where_the_order_flips(found):
    last = {"flips": 0.7, "undecided": 1.02, "stays": 1.5}
    rows_of = {
        name: {
            stage: list(with_ratios(found["input_dependent"][stage], ratio))
            for stage, ratio in (("initialisation", 2.0), ("epoch_1", 1.5), ("best", best))
        }
        for name, best in last.items()
    }
    (section,) = sections(results(rows_of))
    order = printed(section)["loss_order"]
    verdicts = {"flips": "sampled KL (reversed)", "undecided": "undecided", "stays": "analytic KL"}
    for name, verdict in verdicts.items():
        (line,) = lines_of(order, name, "best weights")
        assert line[-1] == verdict
    takeaway = section.takeaway
    assert (
        "at initialisation the analytic KL is quieter for every variant with a closed-form KL (2.0"
        in takeaway
    )
    assert "at the best weights the analytic KL is quieter for `stays` (1.50" in takeaway
    assert "; the sampled KL is quieter for `flips` (0.70" in takeaway
    assert "; undecided for `undecided` (1.02" in takeaway


def test_variants_that_are_equal_at_initialisation_are_one_measurement(found):
    """But for single precision's rounding; what differs by more is another measurement."""
    values = {"one": 2.0, "other": 2.0 * (1 + 1e-6), "own": 2.001}
    rows_of = {
        name: {"initialisation": list(with_ratios(found["input_dependent"]["initialisation"], r))}
        for name, r in values.items()
    }
    takeaway = sections(results(rows_of))[0].takeaway
    assert ", 2 measurements for 3 variants, since `one` = `other`." in takeaway
    del rows_of["other"]
    assert "measurement" not in sections(results(rows_of))[0].takeaway


def ratio(variant, value, standard_error, images):
    settings = {"stage": "best", "sampling": "independent", "S": 1}
    row = Row("sampled_to_analytic_variance", value, "ratio", settings, standard_error, images)
    return variant, 0, [row]


def test_the_verdicts_of_all_variants_hold_together():
    """p = 0.02 for each of 100 variants: alone it is decided, of many none is (Holm)."""
    alone = [ratio("input_dependent", 1.233, 0.1, 100_000)]
    (section,) = sections(stored("loss_noise", alone))
    assert (
        "at the best weights the analytic KL is quieter for `input-dependent`" in section.takeaway
    )
    many = [ratio(f"variant_{i}", 1.233, 0.1, 100_000) for i in range(100)]
    (section,) = sections(stored("loss_noise", many))
    assert (
        "at the best weights undecided for every variant with a closed-form KL ("
        in section.takeaway
    )
    assert "quieter" not in section.takeaway


def test_a_scheme_that_loses_is_named_with_its_setting():
    def gain(value, kl):
        settings = {"stage": "best", "kl": kl, "sampling": "antithetic", "S": 16}
        return Row("elbo_variance_reduction", value, "ratio", settings, 0.01, 100)

    its = [gain(3.0, "analytic"), gain(0.5, "sampled")]
    unsure = [gain(1.01, "analytic")]
    (section,) = sections(stored("loss_noise", [("flow", 0, its), ("fixed_variance", 0, unsure)]))
    said = (
        "antithetic pairs divide it by 0.5 to 3 (of 3 combinations of variant and KL, 1 show a "
        "gain and 1 a loss)"
    )
    assert said in section.takeaway
    assert section.takeaway.endswith(
        "antithetic pairs with the sampled KL (S = 16, best weights) divide that variance by "
        "0.500 ± 0.020 for `flow`."
    )
