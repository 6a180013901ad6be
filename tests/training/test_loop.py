"""One run: reproducible, scheduled as stated, and ending with a clear record where it diverges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.config import Run
from bench.data.dataset import load
from bench.data.training_set import training_set
from bench.errors import BenchError
from bench.training.loop import (
    STAGES,
    Diverged,
    Trained,
    kl_weight,
    restore,
    train,
    train_branches,
    validate,
)
from vaes import discover

VARIANTS = discover().variants


def run(name: str = "input_dependent", **changes) -> Run:
    return Run(name, "tiny", 0, epochs=3, latent_dim=2, hidden_dim=8).with_(**changes)


def same(a, b) -> bool:
    return all(
        torch.equal(a.checkpoints[stage][key], b.checkpoints[stage][key])
        for stage in STAGES
        for key in a.checkpoints[stage]
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_seed_gives_the_same_weights_bit_for_bit(name, tiny):
    data = load(str(tiny))
    first, second = (train(run(name), VARIANTS[name], data) for _ in range(2))
    assert set(first.checkpoints) == set(STAGES)
    assert same(first, second)
    assert not same(first, train(run(name, seed=1), VARIANTS[name], data))


def test_checkpoints_are_of_their_stages(tiny):
    data = load(str(tiny))
    result = train(run(), VARIANTS["input_dependent"], data)
    one = train(run(epochs=1), VARIANTS["input_dependent"], data)
    key = "decoder.0.weight"
    weights = {stage: w[key] for stage, w in result.checkpoints.items()}
    assert torch.equal(weights["initialisation"], one.checkpoints["initialisation"][key])
    assert not torch.equal(weights["initialisation"], weights["epoch_1"])
    best = max(result.history, key=lambda entry: entry["valid_elbo"])
    assert result.best_epoch == best["epoch"]
    if result.best_epoch == 3:
        assert torch.equal(weights["best"], weights["end"])


def test_training_helps_and_elbo_is_minus_distortion_plus_rate(tiny):
    data = load(str(tiny))
    history = train(run(epochs=20), VARIANTS["input_dependent"], data).history
    assert history[-1]["valid_elbo"] > history[0]["valid_elbo"]
    for entry in history:
        total = entry["valid_distortion"] + entry["valid_rate"]
        assert math.isclose(entry["valid_elbo"], -total, rel_tol=1e-12)


def test_an_autoencoder_has_no_elbo(tiny):
    result = train(run("autoencoder"), VARIANTS["autoencoder"], load(str(tiny)))
    assert all(math.isnan(entry["valid_elbo"]) for entry in result.history)
    assert result.best()["valid_distortion"] == min(e["valid_distortion"] for e in result.history)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_branch_is_what_a_run_of_its_length_is(name, tiny):
    """Epochs of two batches; the rates of 1, 2, 3 and 6 epochs begin to fall within an epoch."""
    data, told = load(str(tiny)), []
    lengths = [run(name, epochs=epochs, samples=2) for epochs in (6, 1, 3, 2)]
    branches = train_branches(lengths, VARIANTS[name], data, lambda r, e: told.append(r.epochs))
    for branch in branches:
        alone = train(branch.run, VARIANTS[name], data)
        assert same(branch, alone)
        assert branch.best_epoch == alone.best_epoch
        seconds = {"seconds": None}
        entries = zip(branch.history, alone.history, strict=True)
        assert all(repr(one | seconds) == repr(other | seconds) for one, other in entries)
    assert len(told) < sum(length.epochs for length in lengths)


def test_branches_are_epochs_or_steps_long_and_validated_as_often_as_asked(tiny):
    data = load(str(tiny))
    lengths = [run(validated_every=3), run(steps=5, validated_every=3)]
    short, whole = train_branches(lengths, VARIANTS["input_dependent"], data)
    assert (short.run.steps, whole.run.epochs) == (5, 3)
    assert (len(short.history), len(whole.history)) == (2, 2)
    assert same(short, train(short.run, VARIANTS["input_dependent"], data))
    assert same(whole, train(whole.run, VARIANTS["input_dependent"], data))
    assert whole.history[0]["objective"] == short.history[0]["objective"]


def test_a_branch_of_a_compiled_training_is_what_a_run_of_its_length_is(tiny, monkeypatch):
    """Of 10, 6 and 4 steps the last are too few to be compiled."""
    data, kind = load(str(tiny)), VARIANTS["input_dependent"]
    weights = sum(w.numel() for w in kind(16, 2, 8).parameters())
    monkeypatch.setattr("bench.training.compiled.WORTHWHILE", 5.0 * weights)
    for branch in train_branches([run(epochs=5), run(), run(epochs=2)], kind, data):
        assert not branch.notice
        assert same(branch, train(branch.run, kind, data))


class Regularized(VARIANTS["input_dependent"]):
    """Its encoder differs in training and evaluation."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        width = self.hidden_dim
        self.encoder = nn.Sequential(*self.encoder, nn.BatchNorm1d(width), nn.Dropout(0.5))


@pytest.mark.parametrize("worthwhile", [1.0, math.inf])
def test_layers_that_differ_in_training_are_evaluated_in_validation(tiny, monkeypatch, worthwhile):
    monkeypatch.setattr("bench.training.compiled.WORTHWHILE", worthwhile)
    data = load(str(tiny))

    def trained() -> Trained:
        torch.manual_seed(1)  # dropout draws from torch's own generator
        return train(run(), Regularized, data)

    found, again = trained(), trained()
    assert same(found, again)
    assert (found.notice == "") == (worthwhile == math.inf)
    assert "BatchNorm1d" in found.notice or not found.notice
    model = restore(found, Regularized, data.test.shape[1], "end", "cpu")
    assert model.encoder[-2].num_batches_tracked == 6
    again = validate(model, data.valid, found.run, "valid")
    assert again["elbo"] == pytest.approx(found.history[-1]["valid_elbo"], rel=1e-6)


def test_runs_of_one_trunk_differ_only_in_their_length(tiny):
    others = [run(), run(epochs=5, seed=1)]
    with pytest.raises(BenchError, match="nothing but their length"):
        next(train_branches(others, VARIANTS["input_dependent"], load(str(tiny))))


def test_warm_up_trains_and_is_another_run(tiny):
    data = load(str(tiny))
    plain, warmed = (
        train(run(kl_warmup_epochs=k), VARIANTS["input_dependent"], data) for k in (0, 2)
    )
    assert not same(plain, warmed)


def test_the_kl_warms_up_to_its_weight():
    weights = [kl_weight(run(kl_weight=0.5, kl_warmup_epochs=2), step, 2) for step in range(6)]
    assert weights == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert kl_weight(run(), 0, 2) == 1
    assert kl_weight(run(kl_weight=0.0), 5, 2) == 0


def test_without_the_kl_a_learned_scale_is_unlearned_and_codes_grow(tmp_path, tiny):
    """And the best epoch is that of the lowest cross-entropy, not of the highest ELBO."""
    data, kind = load(str(tiny)), VARIANTS["input_dependent"]
    plain, free = (train(run(kl_weight=w, epochs=60), kind, data) for w in (1.0, 0.0))
    x = data.test.float() / 255
    spreads = [
        restore(trained, kind, x.shape[1], "end", "cpu").posterior(x).stddev.mean()
        for trained in (plain, free)
    ]
    assert spreads[1] < 0.9 * spreads[0]
    assert free.history[-1]["valid_rate"] > plain.history[-1]["valid_rate"]
    for trained, what in ((free, "valid_distortion"), (plain, "valid_elbo")):
        sign = -1 if what == "valid_distortion" else 1
        assert trained.best()[what] == sign * max(sign * entry[what] for entry in trained.history)


def test_a_loss_that_stops_being_finite_names_run_and_step(tiny):
    with pytest.raises(Diverged, match=r"tiny/input_dependent/seed 0.*at step \d+ of 6"):
        train(run(learning_rate=1e30), VARIANTS["input_dependent"], load(str(tiny)))


def test_restored_models_compute_what_was_trained(tiny):
    data = load(str(tiny))
    result = train(run(), VARIANTS["input_dependent"], data)
    model = restore(result, VARIANTS["input_dependent"], data.test.shape[1], "end", "cpu")
    assert not model.training
    x = data.test.float() / 255
    assert model.posterior(x).mean.shape == (30, 2)


def test_steps_and_train_size_bound_a_run(tiny):
    data = load(str(tiny))
    result = train(run(steps=3, tracked=("valid", "test")), VARIANTS["input_dependent"], data)
    assert len(result.history) == 2
    assert "test_elbo" in result.history[0]
    small = train(run(train_size=20), VARIANTS["input_dependent"], data)
    assert not same(small, train(run(), VARIANTS["input_dependent"], data))


def test_it_stops_early_where_epochs_bring_no_better_score(tiny):
    """At a rate that overshoots, the best epoch is soon; those of the warm-up do not count."""
    data, kind = load(str(tiny)), VARIANTS["input_dependent"]
    hasty = run(epochs=60, learning_rate=0.3, schedule="constant", early_stopping=4)
    stopped = train(hasty, kind, data)
    assert len(stopped.history) == stopped.best_epoch + 4 < 60
    warming = train(hasty.with_(kl_warmup_epochs=30), kind, data)
    assert len(warming.history) == max(30, warming.best_epoch) + 4
    whole = train(hasty.with_(early_stopping=0), kind, data)
    scores = [entry["valid_elbo"] for entry in whole.history[: len(stopped.history)]]
    assert [entry["valid_elbo"] for entry in stopped.history] == scores


def test_lengths_that_may_stop_early_are_what_they_are_alone(tiny):
    data, kind = load(str(tiny)), VARIANTS["input_dependent"]
    hasty = run(learning_rate=0.3, schedule="constant", early_stopping=2)
    for branch in train_branches([hasty.with_(epochs=n) for n in (4, 8, 40)], kind, data):
        alone = train(branch.run, kind, data)
        assert same(branch, alone)
        assert len(branch.history) == len(alone.history)


def test_where_validation_images_are_trained_on_the_last_weights_are_the_best(tiny):
    data, kind = load(str(tiny), binarize="threshold"), VARIANTS["input_dependent"]
    joined = run(learning_rate=0.3, epochs=9, training_split="train+valid")
    images = training_set(data, joined)
    assert images.train.equal(torch.cat([data.train, data.valid]))
    result = train(joined, kind, images)
    assert result.best_epoch == 9
    key = "decoder.0.weight"
    assert torch.equal(result.checkpoints["best"][key], result.checkpoints["end"][key])
