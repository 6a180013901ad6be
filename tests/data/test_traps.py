"""Scales and copies that make numbers meaningless: an error or a notice, each in one line."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.dataset import load

RANDOM = np.random.RandomState(0)
BYTES = RANDOM.randint(0, 256, (600, 6)).astype(np.uint8)
REAL = RANDOM.randn(600, 6)


@pytest.fixture
def told(tmp_path):
    """The notices of an array that is saved by itself, or of the arrays of an .npz."""

    def notices(*array, **arrays):
        path = tmp_path / "mine.npz"
        np.savez(path, *array, **arrays)
        return load(str(path)).notices

    return notices


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (BYTES / 255 / 255, ["divided by 255 twice", "Multiply by 255"]),
        (BYTES // 16, ["never exceed 15", "multiply by 255"]),
        (BYTES % 17, ["never exceed 16", "multiply by 255"]),
        (BYTES.astype(np.int16) - 1, ["from -1 to 254", "uint8"]),
        (BYTES.astype(np.uint16) * 257, ["from 0 to 65535", "uint8"]),
        (np.zeros((600, 6)), ["0 everywhere", "constant"]),
        (BYTES.astype(float), ["256 values", "from 0 to 255", "saved as uint8", "noise"]),
        (BYTES / 127.5 - 1, ["256 values", "from -1 to 1", "[0, 1]"]),
        ((BYTES / 255 - 0.1307) / 0.3081, ["256 values", "[0, 1]"]),
        (np.rint(REAL * 1000), ["quantized"]),
        (np.where(np.arange(6) == 3, 7, REAL), ["1 column(s)", "(3)", "leave them out"]),
        (REAL * 1e200, ["e+200", "rescale"]),
    ],
)
def test_meaningless_scales_are_refused(tmp_path, one_line, array, says):
    np.save(tmp_path / "mine.npy", array)
    one_line(load, str(tmp_path / "mine.npy"), says=[tmp_path / "mine.npy", *says])


@pytest.mark.parametrize("scale", [255, 1.01, 1 / 255 / 255])
def test_splits_on_different_scales_are_refused(tmp_path, one_line, scale):
    train, test = BYTES[:400] / 255, BYTES[400:] / 255 * scale
    np.savez(tmp_path / "mine.npz", train=train, test=test)
    one_line(load, str(tmp_path / "mine.npz"), says=["different scales", "'train' from 0 to 1"])


def test_good_data_are_told_of_in_one_line(told):
    (summary,) = told(train=BYTES[:400], valid=BYTES[400:500], test=BYTES[500:])
    assert summary == "400 to train, 100 to validate and 100 to test on, of 6 values"


def test_images_in_two_splits_are_counted(told):
    train, test = BYTES[:400], np.concatenate([BYTES[397:500], BYTES[:1]])
    said = told(train=train, valid=BYTES[500:], test=test)
    assert any("4 of 104 images of 'test' are also in 'train'" in notice for notice in said)
    assert not any("'valid'" in notice for notice in said)


def test_a_split_that_is_another_is_refused(tmp_path, one_line):
    np.savez(tmp_path / "mine.npz", train=BYTES[:400], valid=BYTES[400:500], test=BYTES[400:500])
    one_line(load, str(tmp_path / "mine.npz"), says=["'valid'", "'test'", "same images"])


def test_images_without_content_are_counted(told):
    train = BYTES[:400].copy()
    train[:3] = 7
    said = told(train=train, valid=BYTES[400:500], test=BYTES[500:])
    assert any("3 of 400 images of 'train' have one value everywhere" in notice for notice in said)


def test_a_split_of_nothing_is_refused(tmp_path, one_line):
    test = np.repeat(BYTES[500:, :1], 6, axis=1)
    np.savez(tmp_path / "mine.npz", train=BYTES[:400], valid=BYTES[400:500], test=test)
    one_line(
        load, str(tmp_path / "mine.npz"), says=["100 of 100 images of 'test'", "how they were"]
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_zeros_and_ones_beside_bytes_are_refused(tmp_path, one_line, split):
    arrays = {"train": BYTES[:400], "valid": BYTES[400:500], "test": BYTES[500:]}
    arrays[split] = arrays[split] % 2
    np.savez(tmp_path / "mine.npz", **arrays)
    one_line(load, str(tmp_path / "mine.npz"), says=["different scales", "from 0 to 1"])


@pytest.mark.parametrize(
    ("images", "words"),
    [(BYTES // 16, "never exceeds 15 where others reach 255"), (BYTES / 2550, "never exceeds 0.1")],
)
def test_a_split_that_is_darker_is_told_of(told, images, words):
    others = BYTES if images.dtype == np.uint8 else BYTES / 255
    said = told(train=others[:400], valid=others[400:500], test=images[500:])
    assert any(f"'test' {words}" in notice for notice in said)


@pytest.mark.parametrize("change", [lambda rows: rows * 1000, lambda rows: rows + 20])
def test_rows_of_a_table_in_another_unit_are_refused(tmp_path, one_line, change):
    np.savez(tmp_path / "mine.npz", train=REAL[:400], test=change(REAL[400:]))
    one_line(load, str(tmp_path / "mine.npz"), says=["different scales", "of 'test'", "one unit"])


@pytest.mark.parametrize("column", [np.arange(600) % 2, np.arange(600) % 50 / 7])
def test_columns_of_few_values_are_refused(tmp_path, one_line, column):
    table = REAL.copy()
    table[:, 2] = column
    np.save(tmp_path / "mine.npy", table)
    one_line(load, str(tmp_path / "mine.npy"), says=["1 column(s) of few values", "(2)", "noise"])


def test_pixels_are_no_table_whatever_is_meant(tmp_path, one_line):
    for images in (BYTES, BYTES / 255):
        np.save(tmp_path / "mine.npy", images)
        says = ["quantized pixels", "continuous_bernoulli --binarize none"]
        one_line(load, str(tmp_path / "mine.npy"), None, "real", says=says)


def test_columns_that_are_mostly_zero_are_on_the_scale_of_others(tmp_path):
    table = REAL * (RANDOM.rand(600, 6) < 0.05) + 1e-9 * REAL
    np.savez(tmp_path / "mine.npz", train=table[:590], test=table[590:])
    assert load(str(tmp_path / "mine.npz"), binarize="real").binarization == "real"


def test_a_table_from_0_to_1_is_one_where_it_is_meant(tmp_path):
    table = RANDOM.rand(600, 6)
    np.save(tmp_path / "mine.npy", table)
    data = load(str(tmp_path / "mine.npy"))
    assert data.binarization == "stochastic"
    assert any("rounded to 256 levels" in notice for notice in data.notices)
    data = load(str(tmp_path / "mine.npy"), binarize="real")
    assert data.binarization == "real"
    rows = np.concatenate([data.train, data.valid, data.test])
    assert sorted(data.unit.original(rows / 255)[:, 0]) == pytest.approx(
        sorted(table[:, 0]), abs=1e-6
    )


@pytest.mark.parametrize("binarize", [None, "none", "threshold"])
def test_zeros_and_ones_are_binary_whatever_is_asked_for(tmp_path, binarize):
    np.save(tmp_path / "mine.npy", BYTES % 2)
    assert load(str(tmp_path / "mine.npy"), binarize=binarize).binarization == "binary"
