"""Files that are on no machine yet: fetched, verified and kept, or told of in one line."""

from __future__ import annotations

import functools
import http.server
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.data import files as download
from bench.data.dataset import load
from tests.data.published import put


@pytest.fixture
def offline(monkeypatch):
    """A download that fails as it does without a network, in the exception's own words."""
    pooch = pytest.importorskip("pooch", reason="downloads need pooch")
    requests = pytest.importorskip("requests", reason="downloads need requests")

    def fail(*args):
        raise requests.exceptions.ConnectionError("no route\nto host")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine that publishes the files put into the folder it yields."""
    pytest.importorskip("pooch", reason="downloads need pooch")
    folder = tmp_path / "server"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def publish(folder: Path, url: str, payloads: dict, monkeypatch, labels: bool = True) -> None:
    """Serve MNIST's files from this machine; the labels' address exists even without the file."""
    put(folder, "mnist", payloads)
    for split, file in download.FILES["mnist"].items():
        moved = download.PublishedFile(f"{url}/{file.name}", file.sha256)
        monkeypatch.setitem(download.FILES["mnist"], split, moved)
    file = download.LABEL_FILES["mnist"]
    moved = download.PublishedFile(f"{url}/{file.name}", file.sha256)
    monkeypatch.setitem(download.LABEL_FILES, "mnist", moved)
    if not labels:
        (folder / file.name).unlink()


def test_download_into_the_cache(published, server, tmp_path, monkeypatch):
    folder, url = server
    publish(folder, url, published, monkeypatch)
    first = load("mnist")
    for path in folder.iterdir():
        path.unlink()
    again = load("mnist")
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.labels, first.labels)
    cached = sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir())
    assert cached == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte.gz",
    ]


def test_labels_that_cannot_be_downloaded_are_no_failure(published, server, tmp_path, monkeypatch):
    folder, url = server
    publish(folder, url, published, monkeypatch, labels=False)
    first = load("mnist")
    assert first.labels is None
    monkeypatch.setattr(download, "_download", lambda *a: pytest.fail("downloaded for labels"))
    again = load("mnist")
    assert again.labels is None
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize("sent", [b"<html>log in first</html>", b"\x1f\x8b broken", None])
def test_bad_download_is_not_kept(published, server, tmp_path, monkeypatch, sent, one_line):
    folder, url = server
    file = download.FILES["mnist"]["train"]
    moved = download.PublishedFile(f"{url}/{file.name}", file.sha256)
    monkeypatch.setitem(download.FILES["mnist"], "train", moved)
    if sent is not None:
        (folder / file.name).write_bytes(sent)
    cache = tmp_path / "cache" / "mnist"
    one_line(load, "mnist", says=[moved.url, file.sha256, cache])
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("sent", [b"<html>log in first</html>", None])
def test_a_second_source_stands_behind_each_file(published, server, monkeypatch, sent):
    """The first sends something else, or nothing; contents decide, so both are as good."""
    folder, url = server
    publish(folder, f"{url}/first", published, monkeypatch)
    (folder / "first").mkdir()
    for files in (download.FILES["mnist"], {"labels": download.LABEL_FILES["mnist"]}):
        for content, file in files.items():
            if sent is not None:
                (folder / "first" / file.name).write_bytes(sent)
            behind = replace(file, mirror=f"{url}/{file.name}")
            where = download.LABEL_FILES if content == "labels" else download.FILES["mnist"]
            monkeypatch.setitem(where, "mnist" if content == "labels" else content, behind)
    dataset = load("mnist")
    assert dataset.labels is not None
    assert dataset.test.shape == (20, 6)


def test_every_published_file_has_two_sources():
    every = [file for files in download.FILES.values() for file in files.values()]
    for file in [*every, *download.LABEL_FILES.values()]:
        assert file.mirror.rpartition("/")[2] == file.name
        assert file.mirror != file.url


def test_impossible_download(published, offline, tmp_path, one_line):
    file = download.FILES["binarized_mnist"]["train"]
    cache = tmp_path / "cache" / "binarized_mnist"
    one_line(load, "binarized_mnist", says=[file.name, file.url, file.sha256, cache])


def test_unwritable_cache(published, offline, tmp_path, one_line):
    (tmp_path / "cache").write_text("a file where the folder should be")
    one_line(load, "mnist", says=["cannot download", download.FILES["mnist"]["train"].url])


def test_download_without_pooch(published, monkeypatch, one_line):
    monkeypatch.setitem(sys.modules, "pooch", None)
    file = download.FILES["mnist"]["train"]
    one_line(load, "mnist", says=["pip install pooch", file.url, file.sha256])


def test_without_pooch_there_is_still_a_cache(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert download._cache().name == "vae-bench"
