"""A subset of images is a random one: of data sorted by class it has every class."""

from __future__ import annotations

from dataclasses import replace

import torch

from bench.data.subset import subset_of_seed
from tests.subjects import small_data, subject


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_subset_of_data_sorted_by_class_has_every_class():
    """A class of ten is missing among 100 of 2,000 with a chance below 1e-3; the seed is fixed."""
    labels = torch.arange(2000) // 200
    assert len(labels[subset_of_seed(2000, 100, 1, draws())].unique()) == 10


def test_every_image_is_as_likely():
    """Each of 10 in 3 of them, 2,000 times: 600 times each, within 5 standard errors."""
    generator = draws()
    counts = torch.zeros(10)
    for _ in range(2000):
        counts[subset_of_seed(10, 3, 1, generator)] += 1
    assert (counts - 600).abs().max() < 5 * (2000 * 0.3 * 0.7) ** 0.5


def test_a_smaller_subset_of_the_first_seed_is_the_beginning_of_a_larger_one():
    larger, smaller = (subset_of_seed(50, count, 0, draws()) for count in (20, 7))
    assert torch.equal(larger[:7], smaller)


def test_variants_and_questions_share_the_images_of_a_seed_and_labels_follow():
    """The classes stand in the first pixel, in order, as in a file sorted by class."""
    data = small_data(test=400)
    labels = (torch.arange(400) // 40).to(torch.uint8)
    test = data.test.clone()
    test[:, 0] = labels
    data = replace(data, test=test, labels=labels)
    places = subject("flow", data=data).subset(100)
    assert torch.equal(places, subject("autoencoder", data=data).subset(100))
    assert not torch.equal(places, subject("flow", data=data, seed=1).subset(100))
    assert torch.equal(data.test[places][:, 0], data.labels[places])
    assert len(data.labels[places].unique()) == 10
    assert len(subject("flow", data=data).subset(9, "train")) == 9
    assert subject("flow", data=data, train_size=7).subset(9, "train").sort()[0].tolist() == [
        *range(7)
    ]


def test_seeds_share_no_image_until_all_are_dealt_out():
    hands = [subset_of_seed(100, 30, seed, draws()).tolist() for seed in range(4)]
    assert len({place for hand in hands[:3] for place in hand}) == 90
    assert {len(set(hand)) for hand in hands} == {30}
    assert hands[0] != list(range(30))
    assert len(set(hands[3]) - {place for hand in hands[:3] for place in hand}) == 10
    assert sorted(subset_of_seed(5, 9, 2, draws()).tolist()) == [0, 1, 2, 3, 4]
