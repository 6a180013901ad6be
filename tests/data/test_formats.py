"""The user's files, format by format, and every way in which one cannot be read."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bench.data import formats
from bench.data.dataset import load
from bench.data.splits import SPLITS

BYTES = np.random.RandomState(0).randint(0, 256, (600, 2, 3)).astype(np.uint8)
CLASSES = np.arange(600, dtype=np.uint8) % 5


def idx(array: np.ndarray, code: int = 8) -> bytes:
    head = bytes([0, 0, code, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return head + array.tobytes()


def same_images(dataset, images: np.ndarray = BYTES) -> bool:
    found = np.concatenate([getattr(dataset, split).numpy() for split in SPLITS])
    return sorted(map(bytes, found)) == sorted(map(bytes, images.reshape(len(images), -1)))


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">f4", "?"])
@pytest.mark.parametrize("fortran", [False, True])
def test_npy(tmp_path, dtype, fortran):
    images = BYTES % 2 if dtype == "?" else BYTES
    array = images.astype(dtype) / 255 if dtype == ">f4" else images.astype(dtype)
    np.save(tmp_path / "mine.npy", np.asfortranarray(array) if fortran else array)
    dataset = load(str(tmp_path / "mine.npy"), binarize="none")
    assert dataset.image_shape == (2, 3)
    assert same_images(dataset, images * 255 if dtype == "?" else images)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["frames", "frames.idx", "frames-idx3-ubyte.gz"])
def test_a_lone_idx_file(tmp_path, compress, name):
    (tmp_path / name).write_bytes(compress(idx(BYTES)))
    dataset = load(str(tmp_path / name), binarize="none")
    assert dataset.image_shape == (2, 3)
    assert same_images(dataset)


def test_idx_of_floats(tmp_path):
    (tmp_path / "mine").write_bytes(idx((BYTES / 255).astype(">f4"), 13))
    assert same_images(load(str(tmp_path / "mine"), binarize="none"))


def test_a_folder_of_idx_files_as_torchvision_leaves_it(tmp_path):
    """`root/MNIST/raw`: each file plain and gzipped, with labels."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in {
        "train-images-idx3-ubyte": BYTES[:500],
        "train-labels-idx1-ubyte": CLASSES[:500],
        "t10k-images-idx3-ubyte": BYTES[500:],
        "t10k-labels-idx1-ubyte": CLASSES[500:],
    }.items():
        (folder / name).write_bytes(idx(array))
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    dataset = load(str(folder), binarize="none")
    assert np.array_equal(dataset.test, BYTES[500:].reshape(100, 6))
    assert dataset.labels.tolist() == CLASSES[500:].tolist()
    assert same_images(dataset)


def test_a_folder_of_npy_files(tmp_path):
    (tmp_path / "mine").mkdir()
    for name, array in {
        "x_train": BYTES[:500],
        "x_test": BYTES[500:],
        "y_test": CLASSES[500:],
    }.items():
        np.save(tmp_path / "mine" / f"{name}.npy", array)
    dataset = load(str(tmp_path / "mine"), binarize="none")
    assert same_images(dataset)
    assert dataset.labels.tolist() == CLASSES[500:].tolist()


def test_mat(tmp_path):
    """MATLAB's classes are doubles in a column; of an image file of its own, colours come third."""
    savemat = pytest.importorskip("scipy.io", reason="needs scipy").savemat
    path = tmp_path / "mine.mat"
    savemat(path, {"X": BYTES, "y": CLASSES[:, None].astype(float), "note": "text"})
    dataset = load(str(path), binarize="none")
    assert same_images(dataset)
    assert len(dataset.labels) == len(dataset.test)
    savemat(path, {"X": np.repeat(BYTES.transpose(1, 2, 0)[:, :, None], 3, 2)}, do_compression=True)
    assert same_images(load(str(path), binarize="none"))


def test_arrays_that_nobody_asked_for_are_not_read(tmp_path):
    """Among them pickles, which would run code."""
    np.savez(tmp_path / "mine.npz", imgs=BYTES, metadata=np.array({"a": 1}, dtype=object))
    assert same_images(load(str(tmp_path / "mine.npz"), binarize="none"))


# Bad input


def archive(path: Path, **members: bytes) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "."), content)
    return str(path)


def saved(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        {"train": b"raw bytes"},
        {"train__npy": b"raw bytes"},
        {"images__zip": b"PK\x05\x06" + b"\0" * 18},
        {"train__npy": saved(np.array([{}, []], dtype=object), allow_pickle=True)},
        {"train__npy": saved(BYTES)[:-9]},
        {"train__npy": saved(BYTES).replace(b"(600, 2, 3)", b"(6*9**99,) ")},
        {"train__npy": saved(BYTES).replace(b"(600, 2, 3)", b"(9999999999999,)"[:11])},
    ],
)
def test_members_that_are_no_arrays(tmp_path, members, one_line):
    path = archive(tmp_path / "mine.npz", **members)
    one_line(load, path, says=[path, "cannot read", "np.savez"])


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"\x93NUMPY\x01\0\xff\xff{"])
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".mat", ".idx", ""])
def test_damaged_files(tmp_path, content, suffix, one_line):
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(content)
    one_line(load, str(path), says=[path])


def test_pickles_are_never_read(tmp_path, one_line):
    path = tmp_path / "mine.npy"
    for content in (
        pickle.dumps(BYTES),
        saved(np.array([{}, []], dtype=object), allow_pickle=True),
    ):
        path.write_bytes(content)
        one_line(load, str(path), says=[path, "cannot read", "np.save"])
    for name in ("mine.pkl", "mine.pt", "mine.csv"):
        (tmp_path / name).write_bytes(pickle.dumps(BYTES))
        one_line(load, str(tmp_path / name), says=["is no data file", ".npz, .npy, .mat"])


def test_sizes_are_bounded_before_anything_is_read(tmp_path, monkeypatch, one_line):
    """A zip bomb: a few kB that announce more than fits."""
    monkeypatch.setattr(formats, "LARGEST", 10_000)
    zeros = np.zeros((200, 100), dtype=np.uint8)
    np.savez_compressed(tmp_path / "mine.npz", train=zeros)
    np.save(tmp_path / "mine.npy", zeros)
    (tmp_path / "mine").write_bytes(gzip.compress(idx(zeros)))
    paths = [tmp_path / name for name in ("mine.npz", "mine.npy", "mine")]
    monkeypatch.setattr(np, "array", lambda *a, **k: pytest.fail("read"))
    for path in paths:
        one_line(load, str(path), says=[path, "GiB", "save fewer images"])


def test_a_matrix_is_bounded_too(tmp_path, monkeypatch, one_line):
    scipy = pytest.importorskip("scipy.io", reason="needs scipy")
    monkeypatch.setattr(formats, "LARGEST", 10_000)
    scipy.savemat(tmp_path / "mine.mat", {"X": np.zeros((200, 100))}, do_compression=True)
    one_line(load, str(tmp_path / "mine.mat"), says=["GiB"])


def test_a_header_that_announces_too_much(tmp_path, one_line):
    path = tmp_path / "mine"
    whole = idx(BYTES)
    for content in (whole[:-1], whole + b"\0", whole[:9], bytes([0, 0, 8, 3]), b"\0\0\x08\0"):
        path.write_bytes(content)
        one_line(load, str(path), says=[path])
    path.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12)
    one_line(load, str(path), says=[path, "GiB"])
    path.write_bytes(gzip.compress(whole)[:-20])
    one_line(load, str(path), says=[path])


def test_matlab_73_is_named(tmp_path, one_line):
    path = tmp_path / "mine.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    one_line(load, str(path), says=[path, "7.3", "-v7"])


def test_a_matrix_of_text_or_cells(tmp_path, one_line):
    savemat = pytest.importorskip("scipy.io", reason="needs scipy").savemat
    savemat(tmp_path / "mine.mat", {"train": np.array(["a", "b"], dtype=object), "note": "text"})
    one_line(load, str(tmp_path / "mine.mat"), says=["lacks the array 'train'"])


def test_several_arrays_without_customary_names(tmp_path, one_line):
    np.savez(tmp_path / "mine.npz", BYTES[:500], BYTES[500:])
    one_line(load, str(tmp_path / "mine.npz"), says=["'arr_0', 'arr_1'", "train=..."])
    np.savez(tmp_path / "mine.npz")
    one_line(load, str(tmp_path / "mine.npz"), says=["holds none"])
