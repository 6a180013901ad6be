"""The headline's table, claims and figures against made-up rows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from bench.questions.headline.report import bound_claims, elbo_claims, sections
from bench.report import rows
from bench.report.results import Results, read
from tests.stored import line

SEEDS = 5
NOISE = (-0.1, -0.05, 0.0, 0.05, 0.1)
ELBOS = {"fixed_variance": -90.0, "input_dependent": -86.0, "flow": -85.0}


def made_up(elbos=ELBOS, seeds=SEEDS, noise=NOISE, more=()):
    """Rows of some variants whose ELBOs differ from the reference by the same in each seed and
    some noise, of an autoencoder, and any more."""
    lines = [line("autoencoder", seed, "distortion", 60.0) for seed in range(seeds)]
    for variant, elbo in elbos.items():
        for seed in range(seeds):
            lines += [
                line(variant, seed, "elbo", elbo + noise[seed], standard_error=0.01, n=100),
                line(variant, seed, "rate", 20.0 + noise[seed]),
                line(variant, seed, "distortion", -elbo - 20.0),
                line(variant, seed, "iw_bound", elbo + 1, K=10),
                line(variant, seed, "iw_bound", elbo + 4, K=1000),
                line(variant, seed, "effective_sample_size", 9.0, K=1000),
            ]
            if variant != "input_dependent":
                difference = elbo - elbos.get("input_dependent", 0) + noise[seed]
                pair = {"reference": "input_dependent", "standard_error": 0.5, "n": 400}
                lines.append(line(variant, seed, "elbo_difference", difference, **pair))
    history = [
        {"variant": variant, "seed": seed, "epoch": epoch, "valid_elbo": elbo - 10 / epoch}
        for variant, elbo in elbos.items()
        for seed in range(seeds)
        for epoch in range(1, 6)
    ]
    frame = rows.frame([*lines, *more])
    return Results(Path("results/small/cpu"), frame, pd.DataFrame(history))


def test_the_table_has_means_and_intervals_over_seeds():
    (section,) = sections(made_up())
    frame = section.tables[0].frame().set_index("variant")
    low, high = stats.ttest_1samp(NOISE, 0).confidence_interval()
    assert list(frame.index) == ["autoencoder", "fixed-variance", "input-dependent", "flow"]
    assert frame.ELBO["flow"] == pytest.approx(-85.0)
    assert frame["ELBO half-width"]["flow"] == pytest.approx((high - low) / 2)
    assert frame["difference to input-dependent"]["fixed-variance"] == pytest.approx(-4.0)
    assert frame["± from test images"]["flow"] == pytest.approx(0.5 * stats.t.ppf(0.975, 399))
    assert frame["L_1000"]["flow"] == pytest.approx(-81.0)
    assert frame.loc["autoencoder", ["ELBO", "L_1000", "ESS", "rate"]].isna().all()
    assert frame.distortion["autoencoder"] == 60
    assert (frame.seeds == SEEDS).all()


def test_the_sentence_and_the_answer_say_who_beats_whom():
    (section,) = sections(made_up())
    assert section.takeaway == (
        "`input-dependent` reaches a test ELBO of −86.00 ± 0.10 nats; against it, in "
        "nats: above it `flow` (+1.00 ± 0.10); below it `fixed-variance` (−4.00 ± 0.10)."
    )
    assert section.answer == (
        "ELBO against input-dependent's, in nats: above it `flow` (+1.00 ± 0.10); "
        "below it `fixed-variance` (−4.00 ± 0.10)"
    )
    (section,) = sections(made_up(ELBOS | {"full_covariance": -85.5}))
    assert "above it `full-covariance` (+0.50 ± 0.10) and `flow` (+1.00 ± 0.10);" in section.answer


BOUNDS = {"fixed_variance": 1.5, "flow": 0.4}


def of_bounds(noise=NOISE):
    """Differences of L_1000, of ELBO − L_1000 what is left, and the test sample's error."""
    lines = []
    for variant, bound in BOUNDS.items():
        gap = bound - (ELBOS[variant] - ELBOS["input_dependent"])
        for seed in range(SEEDS):
            its = {"iw_bound_difference": bound + noise[seed], "inference_gap_difference": gap}
            pair = {"reference": "input_dependent", "K": 1000}
            lines += [line(variant, seed, name, value, **pair) for name, value in its.items()]
            lines.append(line(variant, seed, "elbo_test_sample_error", 1.0, n=10_000))
    return lines


def test_the_iw_bound_is_said_beside_the_elbo():
    (section,) = sections(made_up(more=of_bounds()))
    assert section.takeaway.endswith(
        "By L_1000, a lower bound of log p(x): above it `fixed-variance` (+1.50 ± 0.10) and "
        "`flow` (+0.40 ± 0.10).\n- The ± of means, and of differences of ELBO and L_K, is over "
        "trainings, on these test images. Other test images would move all means (± 2.0 nats, "
        "variants alike) and, independently of its ±, each difference of ELBO by its *± from test "
        "images*. The ± of the generalization gap includes both."
    )
    assert section.answer.endswith(
        "below it `fixed-variance` (−4.00 ± 0.10). L_1000: above it `fixed-variance` "
        "(+1.50 ± 0.10) and `flow` (+0.40 ± 0.10)"
    )
    assert "another mean (± 2.0 nats, variants alike)" in section.notes


def test_a_difference_of_elbo_is_the_model_s_and_that_of_a_narrower_gap():
    (section,) = sections(made_up(more=of_bounds()))
    frame = section.tables[1].frame().set_index("variant")
    assert list(frame.index) == ["fixed-variance", "flow"]
    model, inference = frame["difference of L_1000"], frame["difference of ELBO − L_1000"]
    assert model.tolist() == pytest.approx([1.5, 0.4])
    assert inference.tolist() == pytest.approx([-5.5, 0.6])
    assert (model + inference).tolist() == pytest.approx(frame["difference of ELBO"].tolist())
    assert frame["verdict on L_1000"].tolist() == ["beats", "beats"]
    assert [table.name for table in sections(made_up())[0].tables] == ["elbo", "elbo_pairs"]


def test_where_it_was_measured_log_likelihood_stands_beside_the_bound():
    """The difference of ELBO over all test images, plus that of the gap: −4 + 3 and 1 − 0.5."""
    pair = {"question": "flexibility", "reference": "input_dependent"}
    gaps = {"fixed_variance": 3.0, "flow": -0.5}
    more = [
        line(variant, seed, f"{name}_difference", value, **pair)
        for variant, gap in gaps.items()
        for seed in range(SEEDS)
        for name, value in (("log_likelihood", 77.0), ("inference_gap", gap))
    ]
    (section,) = sections(made_up(more=[*of_bounds(), *more]))
    assert (
        "By log p(x) as *Simple to flexible* estimates it: above it `flow` (+0.50 ± 0.10); below "
        "it `fixed-variance` (−1.00 ± 0.10)."
    ) in section.takeaway
    assert "; below it `fixed-variance` (−4.00 ± 0.10). log p(x): above it" in section.answer
    assert "L_1000" not in section.answer
    frame = section.tables[1].frame().set_index("variant")
    assert frame["difference of log p(x)"].tolist() == pytest.approx([-1.0, 0.5])
    assert frame["verdict on log p(x)"].tolist() == ["trails", "beats"]


def test_where_log_likelihood_is_known_it_is_that():
    exact = {"question": "exact_likelihood"}
    known = {"fixed_variance": -87.0, "input_dependent": -85.0, "flow": -85.5}
    more = [
        line(
            variant,
            seed,
            "exact_log_likelihood",
            value + NOISE[seed] * (variant == "flow"),
            **exact,
        )
        for variant, value in known.items()
        for seed in range(SEEDS)
    ]
    pair = {"question": "flexibility", "reference": "input_dependent"}
    more += [line("flow", seed, "log_likelihood_difference", 9.0, **pair) for seed in range(SEEDS)]
    (section,) = sections(made_up(more=[*of_bounds(), *more]))
    frame = section.tables[1].frame().set_index("variant")
    assert frame["difference of log p(x)"].tolist() == pytest.approx([-2.0, -0.5])


@pytest.mark.parametrize(
    ("rises", "said"),
    [
        (
            {"flow": 0.25, "fixed_variance": 1.0},
            " From K = 10 to 1,000 L_K still rises by 0.25 (`flow`) to 1.00 (`fixed-variance`) "
            "nats, a sign that the slacks differ. - **The difference of",
        ),
        (
            {"flow": 0.25},
            " From K = 10 to 1,000 L_K still rises by 0.25 (`flow`) nats. - **The difference of",
        ),
        ({"flow": 0.0}, "the larger its slack tends to be. - **The difference of log p(x)**"),
    ],
)
def test_the_notes_say_how_far_the_bound_still_rises(rises, said):
    lines = [
        line(variant, seed, "iw_bound", -90 + seed + (rise if k == 1000 else 0), K=k)
        for variant, rise in rises.items()
        for seed in range(3)
        for k in (1, 10, 1000)
    ]
    (section,) = sections(Results(Path("results/small/cpu"), rows.frame(lines)))
    assert said in " ".join(section.notes.split())


def test_every_pair_is_compared():
    """Those without the reference too; of one seed none is decided."""
    (section,) = sections(made_up())
    frame = section.tables[-1].frame().set_index(["variant", "minus"])
    assert frame.loc[("flow", "fixed-variance"), "difference of ELBO"] == pytest.approx(5.0)
    assert frame.loc[("input-dependent", "fixed-variance"), "verdict (Holm)"] == "beats"
    assert len(frame) == 3
    (section,) = sections(made_up(seeds=1))
    assert set(section.tables[-1].frame()["verdict (Holm)"]) == {"undecided"}


def test_verdicts_of_the_bound_hold_together_by_themselves():
    """Of one variant p = 0.03, of the other 0.04: together undecided, whatever the ELBOs' are."""
    noise = [value * 10 for value in NOISE]
    lines = of_bounds([0.0] * SEEDS)
    for its in lines:
        if its["metric"] == "iw_bound_difference":
            p = {"fixed_variance": 0.03, "flow": 0.04}[its["variant"]]
            its["value"] = stats.t.isf(p / 2, SEEDS - 1) * stats.sem(noise) + noise[its["seed"]]
    assert [c.verdict for c in bound_claims(made_up(more=lines))] == ["undecided"] * 2
    alone = [its for its in lines if its["variant"] == "flow"]
    assert [c.verdict for c in bound_claims(made_up(more=alone))] == ["beats"]


def test_where_log_likelihoods_are_known_what_is_within_the_tolerance_is_equal():
    elbos = {"learned_diagonal": -86.01, "input_dependent": -86.0, "full_covariance": -85.94}
    noise = [value / 50 for value in NOISE]
    measured = [line("flow", 0, "exact_gap", 0.1, question="exact_likelihood")]
    found = made_up(elbos, noise=noise, more=measured)
    unknown = ({}, {"dataset": "mnist"}, {"dataset": "ppca", "decoder": "mlp"})
    for config in unknown:  # whatever was measured
        found.environment = {"config": config}
        assert "below it `learned-diagonal` (−0.01" in sections(found)[0].takeaway
    asked = {"dataset": "mnist", "decoder": "linear", "likelihood": "gaussian"}
    found = made_up(elbos, noise=noise)
    for config in (asked, {"dataset": "ppca"}):
        found.environment = {"config": config}
        assert [c.verdict for c in elbo_claims(found)] == ["equal", "beats"]
    (section,) = sections(found)
    assert section.takeaway.startswith(
        "`input-dependent` reaches a test ELBO of −86.0000 ± 0.0020 nats; against "
        "it, in nats: above it `full-covariance` (+0.0600 ± 0.0020); within 0.05 nats of it "
        "`learned-diagonal` (−0.0100 ± 0.0020)."
    )
    assert section.tables[0].frame().set_index("variant").verdict["learned-diagonal"] == "equal"


def test_directions_stand_beside_axes_where_they_were_counted():
    more = [line("flow", seed, "active_directions", 15.0) for seed in range(SEEDS)]
    both = ("active_units", "active_directions")
    more += [line("input_dependent", 0, name, 18.0) for name in both]
    frame = sections(made_up(more=more))[0].tables[0].frame().set_index("variant")
    assert frame["active directions"]["flow"] == 15
    assert math.isnan(frame["active units"]["flow"])
    assert frame["active units"]["input-dependent"] == 18


def test_runs_that_were_best_in_the_last_of_their_epochs_are_counted():
    def of_epochs(count, best):
        more = [line("flow", seed, "best_epoch", epoch) for seed, epoch in enumerate(best)]
        found = made_up(more=more)
        found.history.loc[found.history.epoch == 5, "epoch"] = count
        return sections(found)[0].takeaway

    said = " 2 of 3 runs had their best epoch in the last 2 % of the {} epochs."
    assert of_epochs(5, (4, 5, 5)).endswith(said.format(5))
    assert of_epochs(200, (196, 197, 200)).endswith(said.format(200))
    assert "best epoch" not in of_epochs(200, (196, 190))


def test_the_answer_names_a_richer_variant_that_is_undecided():
    noise = [value * 20 for value in NOISE]
    said = "below it `fixed-variance` (−4.00 ± 1.96); undecided against it `flow` (+1.00 ± 1.96)"
    assert said in sections(made_up(noise=noise))[0].answer


def test_real_valued_points_are_no_images():
    found = made_up(more=[line("flow", 0, "bits_per_dim", 0.1)])
    found.environment = {"config": {"binarization": "real"}}
    (section,) = sections(found)
    said = [section.takeaway, section.answer, section.notes, section.tables[0].markdown()]
    charts = [json.dumps(figure.specification("small")) for figure in section.figures]
    assert not [text for text in (*said, *charts) if "image" in text or "pixel" in text]


def test_bits_are_a_codes_length_of_zeros_and_ones_alone():
    found = made_up(more=[line("flow", 0, "bits_per_dim", 0.1)])
    for binarization, said in (("stochastic", True), ("none", False)):
        found.environment = {"config": {"binarization": binarization}}
        assert ("lossless code" in sections(found)[0].notes) == said


def test_verdicts_hold_together():
    """p = 0.03 alone excludes zero, one of two such does not."""
    noise = [value * 10 for value in NOISE]
    shift = stats.t.isf(0.015, SEEDS - 1) * stats.sem(noise)
    alone = {"input_dependent": -86.0, "flow": -86.0 + shift}
    assert [c.verdict for c in elbo_claims(made_up(alone, noise=noise))] == ["beats"]
    two = {"fixed_variance": -86.0 + shift, **alone}
    assert [c.verdict for c in elbo_claims(made_up(two, noise=noise))] == ["undecided"] * 2
    assert "undecided against" in sections(made_up(two, noise=noise))[0].answer


def test_chosen_hyperparameters_stand_beside_the_name():
    more = [
        line("fixed_variance", 0, "valid_elbo", -90.0, "tuning", hyperparameter_scale=s, chosen=c)
        for s, c in ((0.2, False), (0.3, True))
    ]
    assert "| fixed-variance (scale 0.3) |" in sections(made_up(more=more))[0].tables[0].markdown()


def test_failures_are_shown_when_nothing_else_was_measured():
    reason = "small/flow/seed 0: training: ValueError: <b>*loud*</b>"
    failed = line("flow", 0, "training", float("nan"), "failure", reason=reason)
    only = Results(Path("results/small/cpu"), rows.frame([failed]))
    (section,) = sections(only)
    assert not section.tables
    assert not section.figures
    assert section.title == "What failed"
    assert r"ValueError: \<b\>\*loud\*\</b\>" in section.takeaway
    headline, beside = sections(made_up(more=[failed]))
    assert r"\*loud\*" in beside.takeaway
    assert headline.tables


@pytest.mark.parametrize(
    ("elbos", "seeds"),
    [(ELBOS, 1), ({}, 2), ({"flow": -85.0}, 2), (dict.fromkeys(ELBOS, float("nan")), 2)],
)
def test_little_data_is_no_error(elbos, seeds):
    """One seed; an autoencoder alone; no reference; no number at all."""
    (section,) = sections(made_up(elbos, seeds))
    assert section.takeaway.endswith(".")
    assert len(section.tables[0].lines) == 1 + len(elbos)
    for figure in section.figures:
        assert figure.png("small")


def test_one_seed_decides_nothing():
    (section,) = sections(made_up(seeds=1))
    assert "undecided against it (one seed)" in section.takeaway


def test_every_figure_is_drawn_and_diagonals_join_equal_elbo():
    (section,) = sections(made_up())
    assert [f.name for f in section.figures] == ["elbo", "rate_distortion", "learning_curves"]
    for figure in section.figures:
        assert figure.png("small")
        assert figure.how
        assert figure.alt
    data = json.dumps(section.figures[1].specification("small")["datasets"])
    ends = [end for some in json.loads(data).values() for end in some if "total" in end]
    sums = [end["rate"] + end["distortion"] for end in ends]
    assert sums == pytest.approx([end["total"] for end in ends])
    assert len({end["total"] for end in ends}) > 1


def test_no_rows_no_section(tmp_path):
    assert sections(read(tmp_path)) == []
