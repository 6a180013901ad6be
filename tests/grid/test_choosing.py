"""What a grid chooses: rates at each length, hyperparameters, and what was recorded before."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bench.config import PRESETS
from bench.data.dataset import load
from bench.grid import outcome as outcomes
from bench.grid import runner, tasks
from bench.grid.runner import execute
from bench.grid.tasks import Grid
from bench.grid.tuning import RATES
from bench.questions import named
from bench.questions.estimator_training import measure as estimator_training
from bench.report import rows as tidy


def rows_of(grid: Grid, outcome: outcomes.Outcome) -> pd.DataFrame:
    return tidy.frame(outcomes.rows(grid, outcome))


def test_the_hyperparameter_of_the_highest_validation_elbo_is_chosen(grid, inline):
    outcome = execute(grid, load(grid.dataset), inline)
    (contest,) = outcome.contests
    assert contest.open.variant == "fixed_variance"
    for candidate, scores in contest.scores.items():
        for seed, score in scores.items():
            trained = outcome.trained[candidate.with_(seed=seed)]
            assert score == trained.best()["valid_elbo"]
    best = max(contest.scores, key=lambda candidate: sum(contest.scores[candidate].values()))
    assert contest.chosen() == best
    chosen = {run.hyperparameters for run in outcome.headline}
    assert chosen == {(), best.hyperparameters}
    table = rows_of(grid, outcome)
    tuning = table[table.question == "tuning"]
    assert tuning[tuning.chosen].hyperparameter_scale.unique() == best.hyperparameters[0][1]
    assert tuning.metric.unique() == "valid_elbo"
    contest.open = contest.open.with_(kl_weight=4.0)
    table = rows_of(grid, outcome)
    assert table[table.question == "tuning"].metric.unique() == "valid_objective"


def test_learning_rates_are_chosen_at_each_length_and_lengths_share_trunks(
    grid, inline, monkeypatch
):
    groups = []
    whole = tasks._train_together
    monkeypatch.setattr(
        tasks, "_train_together", lambda group, *rest: groups.append(group) or whole(group, *rest)
    )
    preset = replace(PRESETS["quick"], tuned=True, epochs={"": 4}, halvings=1)
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset}
    both = Grid(**(one | {"questions": named(["headline", "budget"])}))
    outcome = execute(both, load(grid.dataset), inline)
    assert {contest.open.epochs for contest in outcome.contests} == {2, 4}
    for contest in outcome.contests:
        rate = contest.chosen().learning_rate
        tried = {candidate.learning_rate for candidate in contest.scores}
        at_end = rate in (min(RATES), max(RATES))
        assert at_end or {rate / 2, rate * 2} <= tried
    assert groups
    assert all({task.run.epochs for task in group} == {2, 4} for group in groups)
    table = rows_of(both, outcome)
    budget = table[(table.question == "budget") & (table.metric == "elbo")]
    assert set(zip(budget.epochs, budget.seed)) == {(2, 0), (2, 1), (4, 0), (4, 1)}
    headline = table[(table.question == "headline") & (table.metric == "elbo")]
    longest = budget[budget.epochs == 4]
    # a fifth of the noise samples; equal ones are compared in test_budget.py
    assert list(longest.value) == pytest.approx(list(headline.value), abs=0.2)


def test_a_short_training_of_a_question_has_the_rate_of_the_headline(grid, inline):
    preset = replace(PRESETS["quick"], tuned=True, epochs={"": 2}, scaling_steps=3)
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset, "seeds": 1}
    overrides = (*grid.overrides, ("latent_dim", 20))
    scaled = Grid(**(one | {"overrides": overrides, "questions": named(["gradient_scaling"])}))
    outcome = execute(scaled, load(grid.dataset), inline)
    (contest,) = outcome.contests
    short = [run for run in outcome.trained if run.steps]
    assert {run.learning_rate for run in short} == {contest.chosen().learning_rate}


def test_an_estimators_rate_is_chosen_by_more_seeds_than_a_long_trainings(
    grid, inline, monkeypatch
):
    monkeypatch.setattr(estimator_training, "of_bound", lambda bound: ("pathwise",))
    preset = replace(
        PRESETS["quick"],
        tuned=True,
        halvings=0,
        sweep_seeds={"": 1},
        comparison_sweep_seeds=2,
        comparison_steps={"": 2},
    )
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset, "seeds": 1}
    compared = Grid(**(one | {"questions": named(["headline", "estimator_training"])}))
    data = load(grid.dataset)

    def seeds(choosing: bool) -> dict[int, int]:
        contests = execute(compared, data, inline, choosing=choosing).contests
        return {contest.open.steps: contest.seeds for contest in contests}

    assert seeds(choosing=True) == {0: 1, 1: 2, 2: 2}
    assert seeds(choosing=False) == {0: 1, 1: 1, 2: 1}


def test_a_rate_that_is_given_is_not_chosen(grid, inline):
    overrides = (*grid.overrides, ("learning_rate", 0.004))
    preset = replace(PRESETS["quick"], tuned=True)
    one = vars(grid) | {"preset": preset, "overrides": overrides}
    fixed = Grid(**(one | {"questions": named(["budget"])}))
    outcome = execute(fixed, load(grid.dataset), inline)
    assert {run.learning_rate for run in outcome.trained} == {0.004}
    assert {contest.open.variant for contest in outcome.contests} == {"fixed_variance"}


def test_a_record_is_of_no_use_to_a_rate_that_is_given_nor_where_it_is_chosen_anew(
    grid, inline, monkeypatch
):
    wrong = {"learning_rate": 0.123, "hyperparameters": ()}
    monkeypatch.setattr(runner.recorded, "choice", lambda run, *_: run.with_(**wrong))
    preset = replace(PRESETS["quick"], tuned=True)
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset}
    overrides = (*grid.overrides, ("learning_rate", 0.004))
    data = load(grid.dataset)

    def rates(overrides=grid.overrides, **options) -> set[float]:
        outcome = execute(Grid(**(one | {"overrides": overrides})), data, inline, **options)
        return {run.learning_rate for run in outcome.trained}

    assert rates() == {0.123}
    assert rates(overrides) == {0.004}
    assert 0.123 not in rates(choosing=True)


def test_of_headline_runs_a_record_may_be_kept_where_others_are_chosen_anew(
    grid, inline, monkeypatch
):
    given = {"learning_rate": 0.004, "hyperparameters": ()}
    monkeypatch.setattr(runner.recorded, "choice", lambda run, *_: run.with_(**given))
    preset = replace(PRESETS["quick"], tuned=True, epochs={"": 2}, halvings=1)
    one = vars(grid) | {"variants": ("input_dependent",), "preset": preset}
    short = Grid(**(one | {"questions": named(["budget"])}))
    data = load(grid.dataset)

    def lengths(**options) -> set[int]:
        outcome = execute(short, data, inline, choosing=True, **options)
        return {contest.open.epochs for contest in outcome.contests}

    assert lengths(keeping=True) == {1}
    assert lengths() == {1, 2}
