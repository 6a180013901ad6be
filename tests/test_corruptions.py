"""Corruptions against their definitions, and what they do to a training set."""

import math
from itertools import pairwise

import pytest
import torch

from bench.config import BenchError, Run
from bench.corruptions import (
    CORRUPTIONS,
    LEVELS,
    TURNED,
    augment,
    bit_flips,
    contrast,
    other_images,
    pixels_of,
    row_occlusion,
)
from bench.data import Dataset, as_float
from bench.train import train
from bench.training_set import TrainingSet, training_set
from vaes import discover

SHAPE = (6, 4)
RUN = Run("autoencoder", "striped", 0, epochs=2, latent_dim=2, hidden_dim=8)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    return (torch.rand((count, *shape), generator=draws(1)) < 0.5).float()


def dataset(train: int = 120) -> Dataset:
    grey = torch.randint(0, 256, (train, 24), generator=draws(2), dtype=torch.uint8)
    binary = (images(40).flatten(1) * 255).to(torch.uint8)
    return Dataset("striped", grey, binary[:20], binary[20:], "stochastic", SHAPE, "print")


ALL = {**CORRUPTIONS, "other_images": pixels_of(1 - images(50))}


@pytest.mark.parametrize("name", ALL)
def test_level_zero_leaves_images_as_they_are(name):
    x = images(50)
    assert torch.equal(ALL[name](x, 0.0, draws()), x)


@pytest.mark.parametrize("name", ALL)
def test_levels_are_nested(name):
    """What a lower level changed, a higher one changes too, image by image."""
    x = images(50)
    changed = [ALL[name](x, level, draws()) != x for level in LEVELS[name]]
    for lower, higher in pairwise(changed):
        assert (higher | ~lower).all()
    assert changed[-1].any()


@pytest.mark.parametrize("name", ALL)
def test_one_level_an_image_is_that_level_for_it(name):
    x = images(50)
    strongest = LEVELS[name][-1]
    levels = torch.zeros(50, 1, 1)
    levels[::2] = strongest
    corrupted = ALL[name](x, levels, draws())
    assert torch.equal(corrupted[1::2], x[1::2])
    assert torch.equal(corrupted[::2], ALL[name](x, strongest, draws())[::2])


def test_bit_flips_invert_the_stated_share():
    """Hoeffding's inequality at a fixed seed; fails by chance with P < 1e-6."""
    x = images(200, (28, 28))
    allowed = math.sqrt(math.log(2 / 1e-6) / (2 * x.numel()))
    for level in LEVELS["bit_flips"]:
        flipped = bit_flips(x, level, draws()) != x
        assert abs(flipped.double().mean() - level) < allowed


def test_row_occlusion_blackens_one_band_of_the_stated_height():
    covered = row_occlusion(torch.ones(300, 10, 3), 0.3, draws()) == 0
    rows = covered.all(-1)
    assert (covered.any(-1) == rows).all()
    assert (rows.sum(-1) == 3).all()
    first = rows.int().argmax(-1)
    assert all(rows[i, first[i] : first[i] + 3].all() for i in range(300))
    assert set(first.tolist()) == set(range(8))


def test_contrast_shrinks_towards_middle_grey():
    x = torch.tensor([[[0.0, 0.5, 1.0]]])
    assert torch.allclose(contrast(x, 0.8, draws()), torch.tensor([[[0.4, 0.5, 0.6]]]))


def test_other_images_fall_back_on_the_test_images_turned_and_inverted():
    data = dataset()
    source, others = other_images(data, "fashion_mnist", 30)  # of another shape
    assert source == TURNED
    assert others.shape == (30, *SHAPE)
    test = as_float(data.test).view(-1, *SHAPE)
    assert torch.equal(others[3], 1 - test[3].flip(0, 1))
    assert torch.equal(others[20], others[0])


# Training sets


def test_augmentation_interleaves_images_and_corrupted_copies():
    data, run = dataset(), RUN.with_(augmentation="bit_flips+row_occlusion")
    doubled = augment(data, run).train
    assert torch.equal(doubled[::2], data.train)
    assert (doubled[1::2] != data.train).any(1).double().mean() > 0.5
    assert torch.equal(doubled, augment(data, run).train)
    assert not torch.equal(doubled, augment(data, run.with_(seed=1)).train)


def test_augmentation_by_flips_inverts_grey_pixels():
    data = dataset()
    copies = augment(data, RUN.with_(augmentation="bit_flips")).train[1::2]
    changed = copies != data.train
    assert changed.any()
    assert torch.equal(copies[changed], 255 - data.train[changed])


def test_unknown_augmentation_names_the_nearest():
    with pytest.raises(BenchError, match="bit_flips"):
        augment(dataset(), RUN.with_(augmentation="bit_flip"))


def test_a_plain_run_keeps_the_data_as_they_are():
    data = dataset()
    assert training_set(data, RUN) is data
    assert training_set(data, RUN.with_(train_size=50)) is data


def test_distinct_images_are_repeated_to_the_training_size():
    data = dataset()
    changed = training_set(data, RUN.with_(distinct=30, train_size=100))
    assert isinstance(changed, TrainingSet)
    assert len(changed.train) == 100
    assert torch.equal(changed.train.unique(dim=0), data.train[:30].unique(dim=0))
    assert torch.equal(changed.test, data.test)
    assert len(changed.seen) == 30
    assert set(changed.seen.unique().tolist()) == {0, 255}


def test_seen_images_are_a_draw_of_the_training_images():
    """White is drawn with probability v / 255; Hoeffding, P < 1e-6 by chance at a fixed seed."""
    data = dataset(1000)
    seen = training_set(data, RUN.with_(distinct=1000, train_size=1000)).seen
    difference = as_float(seen).double().mean() - as_float(data.train).double().mean()
    assert abs(difference) < math.sqrt(math.log(2 / 1e-6) / (2 * seen.numel()))


def test_a_run_tracks_what_it_has_seen_as_it_tracks_the_test_images():
    run = RUN.with_(distinct=30, train_size=100, tracked=("valid", "seen", "test"))
    history = train(run, discover().variants[run.variant], training_set(dataset(), run)).history
    assert len(history) == run.epochs
    assert all(math.isfinite(entry["seen_distortion"]) for entry in history)
