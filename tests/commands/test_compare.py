"""Two folders of results compared: known differences, their intervals by scipy, what is no change.

Intervals are held against `scipy.stats`, whose tests the module does not call for its pairs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from stand_ins import environment_of
from stored import line

from bench.commands.compare import Comparison, compare
from bench.config import Run
from bench.errors import BenchError
from bench.report import rows
from bench.report.results import Results
from bench.report.table import PAGE_LINES

SEEDS = np.array([-90.0, -93.0, -88.0, -95.0])
"""ELBOs of four seeds, far apart."""
SHIFTS = np.array([0.9, 1.0, 1.2, 1.1])


def made(values: dict[tuple[str, str], np.ndarray], name: str = "a", **config) -> Results:
    """A folder that holds (variant, metric) → a value a seed, of the headline."""
    lines = [
        line(variant, seed, metric, value)
        for (variant, metric), its in values.items()
        for seed, value in enumerate(its)
    ]
    environment = environment_of(**config)
    return Results(Path(f"results/{name}/cpu"), rows.frame(lines), environment=environment)


def elbo(values: np.ndarray, **config) -> Results:
    return made({("flow", "elbo"): values}, **config)


def the_line(found: Comparison) -> tuple[float, float, float, float, str]:
    """A, B, their difference and its half-width, and the verdict, of the one line."""
    (cells,) = found.table.lines
    _, _, one, other, difference, verdict = cells
    return one.value, other.value, difference.value, difference.half_width, verdict.text


def test_equal_protocols_are_paired_by_seed():
    found = compare(elbo(SEEDS), elbo(SEEDS + SHIFTS))
    expected = stats.ttest_rel(SEEDS + SHIFTS, SEEDS).confidence_interval()
    one, other, difference, half_width, verdict = the_line(found)
    assert (one, other) == (pytest.approx(SEEDS.mean()), pytest.approx((SEEDS + SHIFTS).mean()))
    assert difference - half_width == pytest.approx(expected.low)
    assert difference + half_width == pytest.approx(expected.high)
    assert found.paired
    assert found.changed
    assert verdict == "higher"
    assert found.sentence == (
        "1 of 1 comparisons changed beyond noise: higher in B `elbo of flow` (1.05 ± 0.21)."
    )


def test_other_protocols_are_not_paired():
    """The same numbers: seeds differ by more than the folders do."""
    found = compare(elbo(SEEDS, epochs=5), elbo(SEEDS + SHIFTS, epochs=6))
    expected = stats.ttest_ind(SEEDS + SHIFTS, SEEDS, equal_var=False).confidence_interval()
    _, _, difference, half_width, verdict = the_line(found)
    assert difference - half_width == pytest.approx(expected.low)
    assert difference + half_width == pytest.approx(expected.high)
    assert not found.paired
    assert not found.changed
    assert verdict == "–"
    assert "None of 1 comparisons" in found.sentence
    assert found.differ == ["epochs: 5 | 6"]


def test_only_the_seeds_of_both_are_paired():
    found = compare(elbo(SEEDS), elbo((SEEDS + SHIFTS)[:2]))
    assert the_line(found)[2] == pytest.approx(SHIFTS[:2].mean())


def test_a_folder_is_no_change_to_itself_nor_to_its_rounding():
    assert not compare(elbo(SEEDS), elbo(SEEDS)).changed
    assert not compare(elbo(SEEDS), elbo(SEEDS * (1 + 1e-6))).changed
    assert compare(elbo(SEEDS), elbo(SEEDS * (1 + 1e-4))).changed


def test_verdicts_hold_together():
    """A difference that alone would be told is not, as one of twenty."""
    shifted = SEEDS + np.array([0.3, 1.0, 1.4, 0.6])
    assert 0.02 < stats.ttest_rel(shifted, SEEDS).pvalue < 0.05
    assert compare(elbo(SEEDS), elbo(shifted)).changed
    others = {(f"v{place}", "elbo"): SEEDS for place in range(19)}
    both = [made({("flow", "elbo"): its} | others) for its in (SEEDS, shifted)]
    assert not compare(*both).changed


def test_of_more_than_a_page_the_table_shows_what_changed():
    others = {(f"v{place}", "elbo"): SEEDS for place in range(PAGE_LINES)}
    both = [made({("flow", "elbo"): its} | others) for its in (SEEDS, SEEDS + 10 * SHIFTS)]
    found = compare(*both)
    assert the_line(found)[4] == "higher"
    assert found.sentence.startswith(f"1 of {PAGE_LINES + 1} comparisons changed beyond noise")
    assert len(compare(*(made(others) for _ in range(2))).table.lines) == PAGE_LINES


def test_what_differs_is_told_a_line_each():
    one = made({("flow", "elbo"): SEEDS, ("autoencoder", "distortion"): SEEDS}, epochs=5)
    other = elbo(SEEDS, name="b", epochs=5, learning_rate=None)
    other.environment["runs"][0]["commit"] = "def456"
    assert compare(one, other).differ == [
        "commit: abc123 | def456",
        "learning_rate: unknown | auto",
        "autoencoder in one of them alone",
        "distortion in one of them alone",
    ]


def test_an_option_that_was_not_given_is_its_default():
    one = elbo(SEEDS, learning_rate=None)
    other = elbo(SEEDS, learning_rate=None, precision="bf16", schedule=Run.schedule)
    assert compare(one, other).differ == ["precision: float32 | bf16"]


def test_a_folder_of_unknown_configuration_is_not_paired():
    other = elbo(SEEDS + SHIFTS)
    other.environment = {}
    assert not compare(elbo(SEEDS), other).paired
    one = elbo(SEEDS)
    one.environment = {}
    assert not compare(one, other).paired


def test_times_and_what_was_chosen_are_not_compared():
    """A learning rate of its own does not keep two values apart."""
    lines = [
        line("flow", seed, metric, seed, "budget", unit=unit, epochs=5, learning_rate=1e-3)
        for seed in range(3)
        for metric, unit in (("elbo", "nats/image"), ("took", "s"))
    ]
    others = [its | {"learning_rate": 2e-3, "value": its["value"] + 1} for its in lines]
    both = [
        Results(Path("results/a/cpu"), rows.frame(its), environment=environment_of())
        for its in (lines, others)
    ]
    found = compare(*both, "budget")
    ((measured, *_),) = found.table.lines
    assert measured.text == "elbo epochs 5"
    assert the_line(found) == (1, 2, 1, 0, "higher")


def test_settings_are_kept_apart():
    lines = [line("flow", seed, "iw_bound", seed + k, K=k) for seed in range(3) for k in (1, 10)]
    one = Results(Path("results/a/cpu"), rows.frame(lines), environment=environment_of())
    assert [its[0].text for its in compare(one, one).table.lines] == [
        "iw_bound K 1",
        "iw_bound K 10",
    ]


def test_other_data_are_refused():
    with pytest.raises(BenchError, match=r"of different data \(digits, ppca\), whose nats"):
        compare(elbo(SEEDS, dataset="ppca"), elbo(SEEDS, dataset="digits"))


def test_nothing_in_common_is_one_line():
    for other in (elbo(SEEDS[:1]), made({("autoencoder", "distortion"): SEEDS}, name="b")):
        with pytest.raises(BenchError, match=r"no values of 'headline' .*: nor any other$"):
            compare(elbo(SEEDS), other)
    chosen = [line("flow", seed, "valid_elbo", seed, "tuning", learning_rate=1) for seed in (0, 1)]
    noisy = [line("flow", seed, "elbo_variance", seed, "loss_noise") for seed in (0, 1)]
    held = rows.frame([*chosen, *noisy])
    beside = Results(Path("results/a/cpu"), held, environment=environment_of())
    with pytest.raises(BenchError, match=r"'tuning' .* --question \(loss_noise\)"):
        compare(beside, beside, "tuning")
    with pytest.raises(BenchError, match="'budgt'"):
        compare(elbo(SEEDS), elbo(SEEDS), "budgt")
    one = Results(Path("results/a/cpu"), rows.frame(chosen), environment=environment_of())
    with pytest.raises(BenchError, match=r"'tuning' .* nor any other"):
        compare(one, one, "tuning")
