"""Whatever lies at the path of data is read, or answered by one line that names it."""

from __future__ import annotations

import gzip
import io
from itertools import count

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.io import savemat

pytestmark = pytest.mark.usefixtures("unchecked")
BYTES = np.random.RandomState(0).randint(0, 256, (130, 2, 3)).astype(np.uint8)
NAMES = ["train", "valid", "test", "x_train", "X", "y", "y_test", "arr_0", "images", "labels"]
DTYPES = st.one_of(
    arrays.scalar_dtypes(),
    arrays.byte_string_dtypes(max_len=3),
    arrays.unicode_string_dtypes(max_len=3),
    arrays.nested_dtypes(),
)
SHAPES = st.one_of(
    arrays.array_shapes(max_dims=5, min_side=0, max_side=3),
    st.tuples(st.sampled_from([9, 10, 99, 100, 130]), *[st.integers(0, 3)] * 2),
)
ARRAYS = arrays.arrays(DTYPES, SHAPES)
numbers = count()


def saved(save, *arguments, **named) -> bytes:
    file = io.BytesIO()
    save(file, *arguments, **named)
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    shape = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


WHOLE = {
    ".npz": saved(np.savez_compressed, train=BYTES, labels=BYTES[:, 0, 0]),
    ".npy": saved(np.save, BYTES),
    ".mat": saved(savemat, {"X": BYTES, "y": BYTES[:, 0, 0]}, do_compression=True),
    ".idx": idx(BYTES),
    ".gz": gzip.compress(idx(BYTES)),
}


@pytest.fixture
def asked_of(answer, tmp_path):
    """The answer about a file of these bytes, with the file's own name or another each time."""

    def ask(suffix: str, content: bytes, name: str = "") -> tuple[str | int, str]:
        path = tmp_path / f"{name or f'mine{next(numbers)}'}{suffix}"
        path.write_bytes(content)
        code, text = answer("run", "--dataset", path, "--binarize", "none")
        assert code in (2, "begun")
        if code == 2 and path.name.isprintable():
            assert path.name in text
        return code, text

    return ask


@pytest.mark.parametrize("suffix", WHOLE)
def test_whole_files_are_read(asked_of, suffix):
    assert asked_of(suffix, WHOLE[suffix])[0] == "begun"


@given(st.sampled_from(sorted(WHOLE)), st.binary())
def test_any_bytes(asked_of, suffix, content):
    asked_of(suffix, content)


@given(st.data())
@pytest.mark.parametrize("suffix", WHOLE)
def test_damaged_files(asked_of, suffix, data):
    """Some bytes changed, cut out or put in."""
    content = bytearray(WHOLE[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    asked_of(suffix, bytes(content))


@given(st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=5)), ARRAYS, max_size=3))
def test_any_named_arrays(asked_of, tmp_path, named):
    try:
        content = saved(np.savez, **named)
    except (TypeError, ValueError, UnicodeError):
        assume(False)
    asked_of(".npz", content)


@given(ARRAYS)
def test_any_array(asked_of, array):
    asked_of(".npy", saved(np.save, array))


@given(ARRAYS)
def test_any_matrix(asked_of, array):
    try:
        content = saved(savemat, {"X": array})
    except Exception:  # what MATLAB has no type for
        assume(False)
    asked_of(".mat", content)


@given(st.text(min_size=1, max_size=60))
def test_any_name(asked_of, tmp_path, name):
    try:
        (tmp_path / f"{name}.npz").touch()
    except (OSError, ValueError):
        assume(False)
    asked_of(".npz", WHOLE[".npz"], name)


@given(st.sampled_from(["png", "bmp", "gif", "tiff", "jpeg", "ppm"]), st.data())
def test_damaged_images(answer, tmp_path, kind, data):
    folder = tmp_path / f"folder{next(numbers)}"
    folder.mkdir()
    whole = saved(Image.fromarray(BYTES[0]).save, kind)
    for number in range(130):
        (folder / f"{number}.{kind}").write_bytes(whole)
    content = bytearray(whole)
    start = data.draw(st.integers(0, len(content)))
    content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    (folder / f"0.{kind}").write_bytes(bytes(content))
    code, _ = answer("run", "--dataset", folder, "--binarize", "none")
    assert code in (2, "begun")
