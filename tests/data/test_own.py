"""The user's arrays: what they become, and every way in which they are unfit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data.binarization import as_float
from bench.data.dataset import in_its_unit, load, unit_of
from bench.data.own import SMALLEST_SPLIT
from bench.data.splits import SPLITS
from bench.errors import BenchError
from vaes import discover, with_options

BYTES = np.random.RandomState(2).randint(0, 256, (600, 6)).astype(np.uint8)
"""Images in which every byte occurs, none twice."""


def test_npz_of_floats(tmp_path, save):
    path = save(tmp_path / "mine.npz")
    dataset, grey = load(path), load(path, binarize="none")
    assert dataset.name == "mine"
    assert dataset.binarization == "stochastic"
    assert dataset.image_shape == (1, 6)
    stored = np.load(path)
    for split in SPLITS:
        rounded = as_float(getattr(grey, split)).numpy()
        assert np.abs(rounded - stored[split]).max() <= 0.5 / 255 + 1e-6
    assert set(dataset.test.unique().tolist()) == {0, 255}
    assert load(path, binarize="threshold").binarization == "threshold"


@pytest.mark.parametrize(
    ("shape", "expected"), [((6,), (1, 6)), ((9,), (3, 3)), ((2, 3), (2, 3)), ((1, 9), (1, 9))]
)
def test_npz_image_shapes(tmp_path, shape, expected, save):
    random = np.random.RandomState(1)
    arrays = {split: random.rand(count, *shape) for split, count in SMALLEST_SPLIT.items()}
    dataset = load(save(tmp_path / "mine.npz", **arrays))
    assert dataset.image_shape == expected
    assert dataset.train.shape == (100, math.prod(shape))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, ">f8"])
def test_npz_of_zeros_and_ones_is_binary(tmp_path, dtype, save):
    random = np.random.RandomState(0)
    arrays = {
        split: random.randint(0, 2, (count, 6)).astype(dtype)
        for split, count in SMALLEST_SPLIT.items()
    }
    dataset = load(save(tmp_path / "mine.npz", **arrays))
    assert dataset.binarization == "binary"
    for split in SPLITS:
        assert np.array_equal(getattr(dataset, split), arrays[split].astype(np.uint8) * 255)


def test_npz_of_bytes_keeps_dark_splits_dark(tmp_path, save):
    """Bytes are scaled by no split's own range."""
    train = np.arange(600, dtype=np.int64).reshape(100, 6).astype(np.uint8)
    dark = (np.arange(60) % 40).reshape(10, 6).astype(np.uint8)
    path = save(tmp_path / "mine.npz", train=train, valid=dark, test=train[:10])
    dataset = load(path, binarize="none")
    assert np.array_equal(dataset.train, train)
    assert np.array_equal(dataset.valid, dark)


def test_npz_labels_are_of_the_test_images(tmp_path, save):
    labels = np.arange(10)
    without, dataset = (
        load(save(tmp_path / "a.npz")),
        load(save(tmp_path / "b.npz", test_labels=labels)),
    )
    assert without.labels is None
    assert dataset.labels.dtype == torch.uint8
    assert dataset.labels.tolist() == labels.tolist()
    assert torch.equal(dataset.test, without.test)
    assert dataset.fingerprint == without.fingerprint


def test_a_path_with_spaces_is_a_path(tmp_path, save):
    folder = tmp_path / "my data; $(here) 'quoted'"
    folder.mkdir()
    assert load(save(folder / "with space.npz")).name == "with space"


# Names, shapes and splits


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid", "test"),
        ("x_train", "x_val", "x_test"),
        ("X_train", "X_valid", "X_test"),
        ("train_images", "val_images", "test_images"),
        ("train_data", "valid_data", "test_data"),
    ],
)
def test_customary_names_of_splits(tmp_path, names):
    splits = np.split(BYTES[:300], [200, 250])
    np.savez(tmp_path / "mine.npz", **dict(zip(names, splits, strict=True)))
    dataset = load(str(tmp_path / "mine.npz"), binarize="none")
    for split, expected in zip(SPLITS, splits, strict=True):
        assert np.array_equal(getattr(dataset, split), expected)


@pytest.mark.parametrize("name", ["arr_0", "data", "X", "frames"])
def test_missing_splits_are_cut_by_a_fixed_seed(tmp_path, name):
    """The splits are all images, each once, in an order that every load repeats."""
    np.savez(tmp_path / "mine.npz", **{name: BYTES})
    dataset, again = (load(str(tmp_path / "mine.npz"), binarize="none") for _ in range(2))
    assert [len(getattr(dataset, split)) for split in SPLITS] == [480, 60, 60]
    together = np.concatenate([getattr(dataset, split).numpy() for split in SPLITS])
    assert sorted(map(bytes, together)) == sorted(map(bytes, BYTES))
    assert not np.array_equal(together[:480], BYTES[:480])
    assert dataset.fingerprint == again.fingerprint
    assert any("60 of the 600" in notice and "fixed seed" in notice for notice in dataset.notices)


def test_the_other_split_stays_when_one_is_cut(tmp_path):
    np.savez(tmp_path / "mine.npz", x_train=BYTES[:500], x_test=BYTES[500:])
    dataset = load(str(tmp_path / "mine.npz"), binarize="none")
    assert np.array_equal(dataset.test, BYTES[500:])
    assert [len(dataset.train), len(dataset.valid)] == [450, 50]


@pytest.mark.parametrize("labels", ["y_test", "test_labels", "labels_test"])
def test_labels_beside_the_test_images(tmp_path, labels):
    classes = np.arange(100)[:, None] % 7
    np.savez(tmp_path / "mine.npz", x_train=BYTES[:500], x_test=BYTES[500:], **{labels: classes})
    assert load(str(tmp_path / "mine.npz")).labels.tolist() == classes[:, 0].tolist()


def test_labels_follow_the_images_that_are_cut(tmp_path):
    """Each image's label is its first byte."""
    np.savez(tmp_path / "mine.npz", X=BYTES, y=BYTES[:, 0])
    dataset = load(str(tmp_path / "mine.npz"), binarize="none")
    assert torch.equal(dataset.labels, dataset.test[:, 0])


@pytest.mark.parametrize("shape", [(600, 2, 3), (600, 1, 2, 3), (600, 2, 3, 1)])
def test_an_axis_of_one_colour_is_left_out(tmp_path, shape):
    np.save(tmp_path / "mine.npy", BYTES.reshape(shape))
    flat = load(str(tmp_path / "mine.npy"), binarize="none")
    assert flat.image_shape == (2, 3)
    together = np.concatenate([getattr(flat, split).numpy() for split in SPLITS])
    assert sorted(map(bytes, together)) == sorted(map(bytes, BYTES))


@pytest.mark.parametrize("first", [True, False])
def test_colours_become_pillows_grey(tmp_path, first):
    from PIL import Image

    colours = np.random.RandomState(3).randint(0, 256, (150, 4, 5, 3)).astype(np.uint8)
    expected = {
        np.asarray(Image.fromarray(image).convert("L")).astype(int).tobytes(): image
        for image in colours
    }
    np.save(tmp_path / "mine.npy", np.moveaxis(colours, 3, 1) if first else colours)
    dataset = load(str(tmp_path / "mine.npy"), binarize="none")
    assert dataset.image_shape == (4, 5)
    found = np.concatenate([getattr(dataset, split).numpy() for split in SPLITS]).astype(int)
    known = np.array([np.frombuffer(grey, dtype=int) for grey in expected])
    nearest = [np.abs(known - image).max(1).min() for image in found]
    assert max(nearest) <= 1  # Pillow rounds down
    assert any("grey" in notice for notice in dataset.notices)


def test_the_order_of_memory_changes_nothing(tmp_path, save):
    fortran = {
        s: np.asfortranarray(np.random.RandomState(n).rand(n + 1, 2, 3))
        for s, n in zip(SPLITS, (100, 11, 12))
    }
    contiguous = {split: np.ascontiguousarray(array) for split, array in fortran.items()}
    one, other = save(tmp_path / "a.npz", **fortran), save(tmp_path / "b.npz", **contiguous)
    assert load(one).fingerprint == load(other).fingerprint


def test_values_beyond_one_by_rounding_are_clipped(tmp_path, save):
    random = np.random.RandomState(5).rand(100, 6)
    beyond = random.copy()
    random[0], beyond[0] = (0, 1) * 3, (-1e-7, 1.0000001) * 3
    exact, path = save(tmp_path / "a.npz", train=random), save(tmp_path / "b.npz", train=beyond)
    assert torch.equal(load(exact).train, load(path).train)


def test_whole_numbers_of_any_type_are_bytes(tmp_path):
    np.save(tmp_path / "mine.npy", BYTES.astype(np.int64))
    np.save(tmp_path / "bytes.npy", BYTES)
    one, other = (load(str(tmp_path / f"{name}.npy")) for name in ("mine", "bytes"))
    assert one.fingerprint == other.fingerprint


# Tables of real values


def table(count: int = 600) -> np.ndarray:
    random = np.random.RandomState(6)
    return random.randn(count, 4) * (0.01, 1, 50, 3) + (5, 0, -200, 1)


def test_a_table_is_standardised_with_the_training_rows(tmp_path):
    np.savez(tmp_path / "mine.npz", **dict(zip(SPLITS, np.split(table(), [400, 500]))))
    dataset = load(str(tmp_path / "mine.npz"))
    assert dataset.binarization == "real"
    assert dataset.train.dtype == torch.float32
    x = as_float(dataset.train).double()
    torch.testing.assert_close(x.mean(0), torch.zeros(4).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(4).double(), atol=1e-5, rtol=0)
    train = torch.tensor(table()[:400])
    expected = (torch.tensor(table()[500:]) - train.mean(0)) / train.std(0, correction=0)
    torch.testing.assert_close(as_float(dataset.test).double(), expected, atol=1e-4, rtol=1e-5)
    rows = dataset.unit.original(as_float(dataset.test).numpy())
    np.testing.assert_allclose(rows, table()[500:], atol=1e-4)


def test_log_scale_takes_a_density_to_the_unit_of_the_file(tmp_path):
    """log N(x; m, s²) of the file's values is that of the standardised ones less log_scale."""
    np.savez(tmp_path / "mine.npz", **dict(zip(SPLITS, np.split(table(), [400, 500]))))
    dataset = load(str(tmp_path / "mine.npz"))
    train = torch.tensor(table()[:400])
    own = torch.distributions.Normal(train.mean(0), train.std(0, correction=0))
    expected = own.log_prob(torch.tensor(table()[500:])).sum(1)
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(as_float(dataset.test)).sum(1)
    torch.testing.assert_close(
        standard.double() - dataset.unit.log_scale, expected, atol=1e-3, rtol=0
    )


def test_another_unit_is_another_table(tmp_path):
    """Standardised they are the same; their densities are not."""
    np.save(tmp_path / "mine.npy", table())
    metres = load(str(tmp_path / "mine.npy"))
    np.save(tmp_path / "mine.npy", 1024 * table())
    millimetres = load(str(tmp_path / "mine.npy"))
    assert torch.equal(metres.train, millimetres.train)
    assert millimetres.unit.log_scale - metres.unit.log_scale == pytest.approx(4 * math.log(1024))
    assert metres.fingerprint != millimetres.fingerprint


def test_a_table_has_no_binarization(tmp_path, one_line):
    np.save(tmp_path / "mine.npy", table())
    one_line(load, str(tmp_path / "mine.npy"), binarize="none", says=["real-valued", "--binarize"])


# Bad input


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"valid": None}, ["'train'", "90 images, of 100", "100"]),
        ({"train": None, "test": None}, ["lacks", "'train'", "'valid'"]),
        ({"x_train": np.zeros((100, 6))}, ["two arrays", "'train'", "'x_train'"]),
        ({"train": np.zeros(100)}, ["'train'", "(100,)"]),
        ({"test": np.zeros((10, 5, 2, 7))}, ["'test'", "(10, 5, 2, 7)", "colours"]),
        ({"test": np.zeros((10, 5, 2, 3))}, ["different shapes", "test (5, 2)"]),
        ({"train": np.zeros((100, 0))}, ["'train'", "(100, 0)"]),
        ({"test": np.zeros((10, 7))}, ["different shapes", "test (7,)"]),
        ({"test": np.zeros((10, 2, 3))}, ["different shapes", "test (2, 3)"]),
        ({"train": np.zeros((99, 6))}, ["'train'", "99 images", "100"]),
        ({"valid": np.zeros((9, 6))}, ["'valid'", "9 images", "10"]),
        ({"test": np.zeros((0, 6))}, ["'test'", "0 images"]),
        ({"valid": np.full((10, 6), np.nan)}, ["'valid'", "NaN"]),
        ({"valid": np.full((10, 6), np.inf)}, ["'valid'", "inf", "[0, 1]"]),
        ({"test": np.full((10, 6), 1.01)}, ["'test'", "1.01", "[0, 1]"]),
        ({"test": np.full((10, 6), -0.01)}, ["'test'", "-0.01", "[0, 1]"]),
        ({"train": np.full((100, 6), 255)}, ["'train'", "255", "uint8"]),
        ({"train": BYTES[:100]}, ["different scales", "'train' from 0 to 255", "uint8"]),
        ({"test": np.full((10, 6), 1.0001)}, ["different scales", "1.0001"]),
        ({"train": np.full((100, 6), "a")}, ["'train'", "<U1"]),
        ({"train": np.zeros((100, 6), dtype=complex)}, ["'train'", "complex"]),
        ({"train": np.full((100, 6), None)}, ["cannot read", "np.savez"]),
        ({"test_labels": np.zeros(9, int)}, ["'test_labels'", "(9,)", "expected (10,)"]),
        ({"test_labels": np.zeros((10, 10), int)}, ["'test_labels'", "(10, 10)"]),
        ({"test_labels": np.full(10, 256)}, ["'test_labels'", "integers from 0 to 255"]),
        ({"test_labels": np.full(10, -1)}, ["'test_labels'", "integers from 0 to 255"]),
        ({"test_labels": np.zeros(10)}, ["'test_labels'", "integers from 0 to 255"]),
        ({"test_labels": np.full(10, "cat")}, ["'test_labels'", "integers from 0 to 255"]),
    ],
)
def test_unfit_arrays(tmp_path, changes, says, save, one_line):
    path = save(tmp_path / "mine.npz", **changes)
    one_line(load, path, says=[path, *says])


def test_unreadable_npz(tmp_path, save, one_line):
    path = tmp_path / "mine.npz"
    one_line(load, str(path), says=[path, "does not exist"])
    whole = Path(save(path)).read_bytes()
    np.save(tmp_path / "array.npy", np.zeros((100, 6)))
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    single = (tmp_path / "array.npy").read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], single, bytes(flipped)):
        path.write_bytes(content)
        one_line(load, str(path), says=[path, "cannot read", "np.savez"])


def test_npz_named_as_a_built_in_data_set(tmp_path, save, one_line):
    """Its results would land in the folder of the real one."""
    one_line(load, save(tmp_path / "mnist.npz"), says=["mnist.npz", "rename"])


@pytest.mark.parametrize(
    "name",
    [
        "~nosuchuser/x.npz",
        f"{'a/' * 2500}x.npz",
        f"{'a' * 5000}.npz",
        "nowhere/folder",
        "x\udcff.npz",
        "nul\0.npz",
    ],
)
def test_paths_that_lead_nowhere(name, one_line):
    one_line(load, name)
    with pytest.raises(BenchError) as caught:
        load(name)
    assert len(str(caught.value)) < 400
    str(caught.value).encode()


@pytest.mark.parametrize("name", [".", "..", "./"])
def test_a_folder_needs_a_name(name, one_line):
    one_line(load, name, says=["own name"])


def test_a_variant_speaks_of_the_unit_of_the_file(tmp_path):
    """log p(x|z) falls by Σ log s for a table, and stays what it is for pixels."""
    np.save(tmp_path / "mine.npy", table())
    np.save(tmp_path / "bytes.npy", BYTES)
    real, pixels = (load(str(tmp_path / f"{name}.npy")) for name in ("mine", "bytes"))
    variant = with_options(discover().variants["input_dependent"], "gaussian", "mlp", "tanh")
    assert in_its_unit(variant, unit_of(pixels)) is variant
    model = in_its_unit(variant, unit_of(real))(data_dim=4, latent_dim=2, hidden_dim=3)
    x, z = as_float(real.test), torch.zeros(len(real.test), 2)
    plain = variant.log_likelihood(model, x, z)
    torch.testing.assert_close(model.log_likelihood(x, z), plain - real.unit.log_scale)
