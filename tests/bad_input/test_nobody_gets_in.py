"""Files and names of a stranger's run no code, fill no memory, lead nowhere and mark up nothing."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import itertools
import pickle
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy.io import savemat
from stand_ins import StandIn, environment_of, history_of, stored

from bench.commands import configuration, new_variant
from bench.data import files, formats
from bench.data.dataset import load
from bench.errors import BenchError
from bench.grid import store
from bench.machine import archives
from bench.options import Config
from bench.questions import QUESTIONS
from bench.report import page, results, rows
from bench.report.section import Section
from bench.report.table import Table

ROOT = Path(__file__).parents[2]
CODE = [*ROOT.glob("bench/**/*.py"), *ROOT.glob("vaes/*.py")]


class Touch:
    """A pickle of it makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# --- no pickle is read -----------------------------------------------------------------------


@pytest.fixture
def touched(tmp_path):
    """A file that any pickle of the test would make."""
    path = tmp_path / "touched"
    pickle.loads(pickle.dumps(Touch(path)))
    assert path.exists()  # the pickle works
    path.unlink()
    yield path
    assert not path.exists()


def entry(header: bytes, *parts: bytes) -> bytes:
    """A file of the cache whose digests are right."""
    for part in parts:
        size = b" %d" % len(part) if b"2" in header else b""
        header += size + b" " + hashlib.sha256(part).hexdigest().encode()
    return header + b"\n" + b"".join(parts)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cache_entry(tmp_path, touched, legacy):
    saved, whole = io.BytesIO(), io.BytesIO()
    torch.save({}, whole)
    torch.save({"run": Touch(touched)}, saved, _use_new_zipfile_serialization=not legacy)
    cache = store.Store(tmp_path / "cache")
    payloads = (saved.getvalue(), pickle.dumps(Touch(touched)), b"")
    files = [entry(b"vae-bench 1 key", payload) for payload in payloads]
    for plain, tensors in itertools.product((b"{}", *payloads), (whole.getvalue(), *payloads)):
        if (plain, tensors) != (b"{}", whole.getvalue()):
            files.append(entry(b"vae-bench 2 key", plain, tensors))
    for file in files:
        cache.path("key").write_bytes(file)
        assert cache.load("key") is None
        assert "of something else than plain values" in cache.notices.pop()


def test_pictures(tmp_path, touched):
    folder = stored(tmp_path / "toy" / "cpu")
    hostile = np.array([Touch(touched)], dtype=object)
    for content in ({"a/b/0/c": hostile}, {"a/b/0/c": hostile, "a/b/1/c": np.zeros(2)}):
        np.savez(folder / results.PICTURES, **content)
        found = results.read(folder)
        assert not found.pictures
        assert results.PICTURES in found.problems[0]
    (folder / results.PICTURES).write_bytes(pickle.dumps(Touch(touched)))
    assert not results.read(folder).pictures


@pytest.mark.parametrize("name", ["mine.npz", "mine.npy", "mine.mat", "mine.idx", "mine.pt"])
def test_data(tmp_path, touched, name):
    path, hostile = tmp_path / name, np.array([Touch(touched)] * 200, dtype=object)
    plain = pickle.dumps(Touch(touched))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train.npy", plain)
    contents = [plain, gzip.compress(plain), archive.getvalue()]
    for save in (np.save, lambda file, array: np.savez(file, train=array)):
        saved = io.BytesIO()
        save(saved, hostile)
        contents.append(saved.getvalue())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(BenchError, match=re.escape(name)):
            load(str(path))


def test_a_matrix_of_objects(tmp_path):
    savemat(tmp_path / "mine.mat", {"X": np.array([{"a": 1}, "text"], dtype=object)})
    with pytest.raises(BenchError, match="lacks the array"):
        load(str(tmp_path / "mine.mat"))


def test_rows_that_are_a_pickle(tmp_path, touched):
    folder = stored(tmp_path / "toy" / "cpu")
    for content in (pickle.dumps(Touch(touched)), gzip.compress(pickle.dumps(Touch(touched)))):
        rows.path_in(folder).write_bytes(content)
        (folder / results.HISTORY).write_bytes(content)
        assert len(results.read(folder).problems) == 2


def test_nothing_in_the_code_could_read_one():
    """But between the processes of one run: a cluster's parent and workers, as Dask's own."""
    own = {Path("bench/grid/cluster.py"), Path("bench/grid/remote.py")}
    for path in CODE:
        if path.relative_to(ROOT) in own:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called, options = ast.unparse(node.func), {k.arg: k.value for k in node.keywords}
            where = f"{path}:{node.lineno}"
            assert called not in ("eval", "exec", "pd.read_pickle", "joblib.load"), where
            assert not called.startswith(("pickle.", "marshal.", "shelve.")), where
            if called == "np.load":
                assert ast.unparse(options["allow_pickle"]) == "False", where
            if called == "torch.load":
                assert ast.unparse(options["weights_only"]) == "True", where
            if called.startswith("subprocess."):
                assert "shell" not in options, where


# --- no archive is expanded beyond bounds ----------------------------------------------------


@pytest.fixture
def small(monkeypatch) -> bytes:
    """Bounds lowered, and zeros that are beyond them."""
    monkeypatch.setattr(archives, "LARGEST", 100_000)
    monkeypatch.setattr(formats, "LARGEST", 100_000)
    return bytes(200_000)


def test_rows_are_bounded(tmp_path, small):
    folder = stored(tmp_path / "toy" / "cpu")
    rows.path_in(folder).write_bytes(gzip.compress(small) * 3)
    with pytest.raises(BenchError, match=r"rows.csv.gz cannot be read \(it holds more than"):
        rows.read(folder)


def test_pictures_are_bounded(tmp_path, small):
    folder = stored(tmp_path / "toy" / "cpu")
    np.savez_compressed(folder / results.PICTURES, **{"a/b/0/c": np.zeros(200_000, dtype="u1")})
    assert "it holds more than" in results.read(folder).problems[0]


def test_published_files_are_bounded(tmp_path, small):
    (name,) = {file.name for file in [files.FILES["mnist"]["train"]]}
    (tmp_path / name).write_bytes(gzip.compress(small))
    with pytest.raises(BenchError, match=rf"cannot read .*{name} \(it holds more than"):
        load("mnist", tmp_path)
    savemat(tmp_path / "bomb.mat", {"X": np.zeros((1000, 1000))}, do_compression=True)
    with pytest.raises(OSError, match="it holds more than"):
        files._as_amat((tmp_path / "bomb.mat").read_bytes())


@pytest.mark.parametrize("name", ["mine.npz", "mine.mat", "mine.gz"])
def test_data_are_bounded(tmp_path, small, name):
    path, zeros = tmp_path / name, np.frombuffer(small, dtype=np.uint8).reshape(200, 1000)
    head = bytes([0, 0, 8, 2]) + np.array(zeros.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(head + small))
    if name == "mine.npz":
        np.savez_compressed(path, train=zeros)
    if name == "mine.mat":
        savemat(path, {"X": zeros}, do_compression=True)
    with pytest.raises(BenchError, match="GiB"):
        load(str(path))


# --- nothing is written through a link -------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path):
    """A folder that must stay as it is."""
    folder = tmp_path / "elsewhere"
    (folder / "cpu").mkdir(parents=True)
    for name in ("mine.csv", "page.json", "cpu/mine.csv"):
        (folder / name).write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


LINKS = ["toy", "toy/cpu", "toy/cpu/tables", "toy/cpu/figures", "toy/cpu/rows.csv.gz"]
LINKS += ["toy/cpu/throughput.json.partial", "toy/cpu/.writable", "toy/cpu/dangling"]


@pytest.mark.parametrize("link", LINKS)
def test_results_are_not_written_through_a_link(tmp_path, elsewhere, link):
    path = tmp_path / "results" / link
    path.parent.mkdir(parents=True)
    target = elsewhere if path.suffix == "" else elsewhere / "mine.csv"
    path.symlink_to(elsewhere / "not there" if path.name in ("dangling", ".writable") else target)
    with pytest.raises(BenchError, match="is a symbolic link"):
        stored(tmp_path / "results" / "toy" / "cpu")


@pytest.mark.parametrize("link", ["tables", "figures"])
def test_pages_are_not_written_through_a_link(tmp_path, elsewhere, link, in_process):
    folder = stored(tmp_path / "results" / "toy" / "cpu")
    (folder / link).symlink_to(elsewhere)
    with pytest.raises(BenchError, match="is a symbolic link"):
        page.write(tmp_path / "results", None, [])


def test_a_linked_page_or_cache_entry_is_replaced(tmp_path, elsewhere, in_process):
    stored(tmp_path / "results" / "toy" / "cpu")
    for name in ("README.md", "index.html"):
        (tmp_path / "results" / name).symlink_to(elsewhere / "mine.csv")
    page.write(tmp_path / "results", None, [])
    cache = store.Store(tmp_path / "cache")
    cache.path("key").symlink_to(elsewhere / "mine.csv")
    cache.save("key", {"a": 1})
    assert cache.load("key") == {"a": 1}
    assert not cache.path("key").is_symlink()
    assert not (tmp_path / "results" / "index.html").is_symlink()


def test_a_new_variant_follows_no_link(tmp_path, elsewhere):
    (tmp_path / "mine.py").symlink_to(elsewhere / "mine.py")
    with pytest.raises(BenchError, match="exists already"):
        new_variant.new_variant("mine", tmp_path)


@given(st.text(min_size=1), st.sampled_from(["../../x", "a/b", "..", "x/../y"]))
def test_no_name_leaves_the_results_folder(name, path):
    """Whatever a data set's stem is, the folder is one step below the root."""
    for dataset in (f"{name}.npz", f"{path}.npz", f"/{path}/{name}.npz"):
        stem = Path(dataset).stem
        data = SimpleNamespace(name=stem, fingerprint="abcdef0", binarization="none")
        config = Config(dataset=dataset, importance_samples="1, 10")
        found = configuration.folder_name(
            config, data, {"schedule": "exponential:1e3", "betas": (0.9, 0.5)}
        )
        assert len(Path(found).parts) == 1
        assert found not in (".", "..")


# --- names are escaped -----------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a|b|c",
    "`code` ``more``",
    "[press](javascript:alert(1))",
    "](javascript:alert(1))",
    "![x](http://elsewhere/x.png)",
    "*bold* _it_ ~~not~~ # > &lt;b&gt;",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }} {% raw %}",
    r"\input{/etc/passwd} \write18{touch x} $x$ % & # ^ ~",
    "two\nlines\n\n# heading\n```\nfence",
]
MARKED_UP = re.compile(
    r"<script>alert|<img|javascript:alert\(1\)\"|onmouseover=\"|<h1>heading", re.I
)


def hostile_results(folder: Path, text: str) -> Path:
    """A folder in which whatever a user names is this text: their data, a failure, a command."""
    found = {"dataset": text, "device": "cpu", "variant": "flow", "seed": 0, "metric": "training"}
    failed = found | {"question": "failure", "value": np.nan, "unit": "", "reason": text}
    environment = environment_of(command=f"make bench DATASET={text}", likelihood=text)
    known = {"notices": [f"'{text}' is in colour"], "cpu": text}
    results.store(folder, rows.frame([failed]), history_of(), {}, environment | known)
    return folder


@pytest.mark.parametrize("text", HOSTILE)
def test_pages_show_a_hostile_text_as_it_is(tmp_path, text, in_process):
    name = text.replace("/", "-")
    folder = hostile_results(tmp_path / name / "cpu", text)

    def sections(found):
        table = Table("hostile", ["variant", text], [[text, text]], "Ours.", variants=[text])
        (reason,) = found.rows.reason
        return [Section("Failures", page.escaped(reason), tables=[table])]

    page.write(tmp_path, None, [StandIn("failure", "What failed?", sections), *QUESTIONS])
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    data = html.partition("<body>")[2].partition("<script data-libraries")[0]
    assert not MARKED_UP.search(data)
    for path in (tmp_path / "README.md", folder / "README.md"):
        shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(path.read_text())
        assert not MARKED_UP.search(shown), path
        assert 'href="javascript' not in shown
    latex = (folder / "tables" / "hostile.tex").read_text(encoding="utf-8")
    assert not re.search(r"\\(input|write18)\b", latex)
    assert not re.search(r"(?<!\\)[#%]", latex.replace(r"\%", ""))


@pytest.mark.parametrize("text", HOSTILE)
def test_rows_of_a_hostile_variant_are_refused(tmp_path, text):
    folder = stored(tmp_path / "toy" / "cpu")
    table = pd.read_csv(rows.path_in(folder))
    table.loc[0, "variant"] = text
    rows.path_in(folder).write_bytes(gzip.compress(rows.csv(table)))
    with pytest.raises(BenchError, match="no variant can be called"):
        rows.read(folder)


# --- downloads -------------------------------------------------------------------------------


def test_downloads_are_over_https_and_by_http_only_where_a_host_has_no_other():
    known = [file for some in files.FILES.values() for file in some.values()]
    known += files.LABEL_FILES.values()
    for file in known:
        assert file.url.startswith("https://")
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.mirror.startswith(("https://", "http://fashion-mnist.s3-website."))
