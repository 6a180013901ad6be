"""The training images of a run: cut, repeated, augmented."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from subjects import small_data

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.training_set import TrainingSet, augment, training_set
from bench.errors import BenchError
from bench.training.loop import train
from vaes import discover

RUN = Run("autoencoder", "small", 0, epochs=2, latent_dim=2, hidden_dim=8)


def test_augmentation_interleaves_images_and_corrupted_copies():
    data, run = small_data(), RUN.with_(augmentation="bit_flips+row_occlusion")
    doubled = augment(data, run).train
    assert torch.equal(doubled[::2], data.train)
    assert (doubled[1::2] != data.train).any(1).double().mean() > 0.5
    assert torch.equal(doubled, augment(data, run).train)
    assert not torch.equal(doubled, augment(data, run.with_(seed=1)).train)


def test_augmentation_by_flips_inverts_grey_pixels():
    data = small_data()
    copies = augment(data, RUN.with_(augmentation="bit_flips")).train[1::2]
    changed = copies != data.train
    assert changed.any()
    assert torch.equal(copies[changed], 255 - data.train[changed])


def test_unknown_augmentation_names_the_nearest():
    with pytest.raises(BenchError, match="bit_flips"):
        augment(small_data(), RUN.with_(augmentation="bit_flip"))


def test_a_plain_run_keeps_the_data_as_they_are():
    data = small_data()
    assert training_set(data, RUN) is data
    assert training_set(data, RUN.with_(train_size=len(data.train))) is data


def test_fewer_training_images_are_random_and_each_seeds_own():
    """A published file may be sorted by class, so that its first images are of one."""
    data = small_data()
    size = len(data.train) // 3
    lists = [training_set(data, RUN.with_(train_size=size, seed=seed)).train for seed in range(3)]
    assert torch.equal(lists[1], training_set(data, RUN.with_(train_size=size, seed=1)).train)
    assert not torch.equal(lists[0], data.train[:size])
    together = torch.cat(lists)
    assert len(together) == 3 * size
    assert len(together.unique(dim=0)) == len(data.train[: 3 * size].unique(dim=0))


def test_a_changed_set_keeps_the_labels_of_its_test_images():
    data = replace(small_data(), labels=torch.arange(60, dtype=torch.uint8))
    assert training_set(data, RUN.with_(distinct=30)).labels is data.labels
    assert training_set(data, RUN.with_(augmentation="salt")).labels is data.labels


def test_distinct_images_are_repeated_to_the_training_size():
    data = small_data()
    changed = training_set(data, RUN.with_(distinct=30, train_size=100))
    assert isinstance(changed, TrainingSet)
    assert len(changed.train) == 100
    kinds = changed.train.unique(dim=0)
    assert len(kinds) == 30
    assert (kinds.unsqueeze(1) == data.train).all(2).any(1).all()
    assert torch.equal(changed.test, data.test)
    assert len(changed.seen) == 30
    assert set(changed.seen.unique().tolist()) == {0, 255}


def test_a_list_is_the_seeds_own_and_every_variants():
    """Of training images sorted by class, the list has both classes: P of one alone < 1e-8."""
    data, run = small_data(), RUN.with_(distinct=30, train_size=100)
    data = replace(data, train=data.train.sort(0).values)
    train = training_set(data, run).train
    assert torch.equal(train, training_set(data, run.with_(variant="flow")).train)
    assert not torch.equal(train, training_set(data, run.with_(seed=1)).train)
    first_half = (train[:30].unsqueeze(1) == data.train[:60]).all(2).any(1)
    assert 0 < first_half.sum() < 30


def test_seeds_share_no_image_until_all_are_dealt_out():
    """An interval over seeds is then one over training images too."""
    data = small_data()
    assert len(data.train.unique(dim=0)) == 120
    lists = [training_set(data, RUN.with_(distinct=30, seed=seed)).train for seed in range(4)]
    assert len(torch.cat(lists).unique(dim=0)) == 120


def test_seen_images_are_a_draw_of_the_training_images():
    """White is drawn with probability v / 255; Hoeffding, P < 1e-6 by chance at a fixed seed."""
    data = small_data(1000)
    seen = training_set(data, RUN.with_(distinct=1000, train_size=1000)).seen
    difference = as_float(seen).double().mean() - as_float(data.train).double().mean()
    assert abs(difference) < math.sqrt(math.log(2 / 1e-6) / (2 * seen.numel()))


def test_a_run_tracks_what_it_has_seen_as_it_tracks_the_test_images():
    run = RUN.with_(distinct=30, train_size=100, tracked=("valid", "seen", "test"))
    history = train(run, discover().variants[run.variant], training_set(small_data(), run)).history
    assert len(history) == run.epochs
    assert all(math.isfinite(entry["seen_distortion"]) for entry in history)
