"""A folder of image files: layouts, colours, classes, and what may be wrong with one."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data.dataset import load
from bench.data.splits import SPLITS

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
BYTES = np.random.RandomState(0).randint(0, 256, (150, 4, 5)).astype(np.uint8)


def put(folder, images=BYTES, suffix="png", mode="L"):
    folder.mkdir(parents=True, exist_ok=True)
    for place, image in enumerate(images):
        Image.fromarray(image).convert(mode).save(folder / f"{place:03}.{suffix}")


def images_of(dataset):
    found = np.concatenate([getattr(dataset, split).numpy() for split in SPLITS])
    return sorted(map(bytes, found))


EXPECTED = sorted(map(bytes, BYTES.reshape(150, -1)))


def test_a_flat_folder(tmp_path):
    put(tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("not an image")
    (tmp_path / "mine" / ".hidden.png").write_text("nor this")
    dataset = load(str(tmp_path / "mine"), binarize="none")
    assert dataset.name == "mine"
    assert dataset.image_shape == (4, 5)
    assert dataset.labels is None
    assert images_of(dataset) == EXPECTED


def test_folders_of_classes(tmp_path):
    """A class has images of one brightness, so that each label can be seen in its image."""
    levels = {"bear": 40, "ant": 200, "cat": 120}
    for name, level in levels.items():
        put(tmp_path / "zoo" / name, (BYTES[:60] // 16 + level).astype(np.uint8))
    dataset = load(str(tmp_path / "zoo"), binarize="none")
    means = dataset.test.double().mean(1)
    named = [sorted(levels)[label] for label in dataset.labels]
    assert [min(levels, key=lambda n: abs(levels[n] + 8 - mean)) for mean in means] == named
    assert len(set(named)) == 3


@pytest.mark.parametrize("inner", ["", "a_class"])
def test_folders_of_splits(tmp_path, inner):
    put(tmp_path / "mine" / "train" / inner, BYTES[:120])
    put(tmp_path / "mine" / "val" / inner, BYTES[120:130])
    put(tmp_path / "mine" / "test" / inner, BYTES[130:])
    dataset = load(str(tmp_path / "mine"), binarize="none")
    assert np.array_equal(dataset.test, BYTES[130:].reshape(20, -1))
    assert [len(getattr(dataset, split)) for split in SPLITS] == [120, 10, 20]
    assert (dataset.labels is None) == (inner == "")


def test_a_class_may_be_called_train(tmp_path):
    for place, name in enumerate(("bus", "car", "train")):
        put(tmp_path / "vehicles" / name, BYTES[50 * place : 50 * place + 50])
    assert images_of(load(str(tmp_path / "vehicles"), binarize="none")) == EXPECTED


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1"])
def test_modes_of_pillow(tmp_path, mode):
    put(tmp_path / "mine", mode=mode)
    dataset = load(str(tmp_path / "mine"), binarize="none")
    assert any("grey" in notice for notice in dataset.notices) == (mode != "1")
    if mode != "1":
        assert images_of(dataset) == EXPECTED


def test_another_folder_of_the_same_name_is_other_data(tmp_path):
    put(tmp_path / "a" / "mine")
    put(tmp_path / "b" / "mine", 255 - BYTES)
    one, other = (load(str(tmp_path / name / "mine")) for name in "ab")
    assert one.name == other.name
    assert one.fingerprint != other.fingerprint


# Bad input


def test_images_of_different_sizes(tmp_path, one_line):
    put(tmp_path / "mine")
    Image.new("L", (9, 7)).save(tmp_path / "mine" / "010.png")
    Image.new("L", (8, 8)).save(tmp_path / "mine" / "020.png")
    one_line(
        load, str(tmp_path / "mine"), says=["000.png has 5 x 4 pixels", "010.png 9 x 7", "the same"]
    )


def test_a_folder_without_images(tmp_path, one_line):
    (tmp_path / "mine" / "empty").mkdir(parents=True)
    (tmp_path / "mine" / "notes.txt").write_text("nothing")
    one_line(load, str(tmp_path / "mine"), says=[tmp_path / "mine", "without images", ".png"])


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_damaged_image(tmp_path, content, one_line):
    put(tmp_path / "mine")
    path = tmp_path / "mine" / "020.png"
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    one_line(load, str(tmp_path / "mine"), says=[path, "remove it"])


def test_sixteen_bits_are_not_cut_to_eight(tmp_path, one_line):
    put(tmp_path / "mine")
    Image.fromarray(BYTES[0].astype(np.uint16) * 257).save(tmp_path / "mine" / "020.png")
    one_line(load, str(tmp_path / "mine"), says=["020.png", "8 bits"])


def test_too_few_images(tmp_path, one_line):
    put(tmp_path / "mine", BYTES[:119])
    one_line(load, str(tmp_path / "mine"), says=["99 images, of", "100"])


def test_a_folder_named_as_a_built_in_data_set(tmp_path, one_line):
    put(tmp_path / "mnist")
    one_line(load, str(tmp_path / "mnist"), says=["built-in", "rename"])
