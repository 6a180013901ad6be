"""What a worker of a cluster does with a task: see `bench.grid.cluster`."""

from __future__ import annotations

import pickle
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.grid import tasks
from bench.grid.environment import machine
from bench.grid.store import Store

DATA, ELSEWHERE = "data.pickle", "variants"
"""In a parcel, beside the source: the data, and the folder of variants from outside `vaes/`."""
TOLD_SECONDS = 2
"""A worker tells of its epochs at most this often: there may be thousands of workers."""


def unpacked_and_done() -> Callable[..., bytes]:
    """The function that workers are sent. Defined within another, it travels by its code, since
    there is nothing yet that a worker could import it from."""

    def there(parcel: bytes, digest: str, job: bytes, trained: bytes | None) -> bytes:
        import importlib
        import io
        import pickle
        import sys
        import zipfile
        from pathlib import Path

        from distributed import get_worker

        worker = get_worker()
        if worker.state.nthreads != 1:
            return pickle.dumps(
                f"worker {worker.address} has {worker.state.nthreads} threads, and a task is for "
                "one: start it with 'dask worker … --nthreads 1 --nworkers -1'"
            )
        folder = Path(worker.local_directory) / f"vae-bench-{digest}"
        if not folder.exists():
            zipfile.ZipFile(io.BytesIO(parcel)).extractall(folder)
        if sys.path[0] != str(folder):  # whatever is imported is of another run
            for name in [n for n in sys.modules if n.partition(".")[0] in ("bench", "vaes")]:
                del sys.modules[name]
            sys.path[:] = [str(folder), *(p for p in sys.path if "vae-bench-" not in p)]
            importlib.invalidate_caches()
        from bench.grid.remote import do

        return do(folder, job, trained)

    return there


def do(folder: Path, packed_job: bytes, trained: bytes | None) -> bytes:
    """Do a `Job` in this process; the pickled `Done`s, or why this worker will not do."""
    from distributed import get_worker

    worker, job = get_worker().address, pickle.loads(packed_job)
    if job.torch != torch.__version__:
        return pickle.dumps(
            f"worker {worker} has torch {torch.__version__}, and this machine {job.torch}: install "
            "the same there, e.g. from requirements.lock"
        )
    torch.set_num_threads(1)
    tasks.given[:] = tasks.given or [pickle.loads((folder / DATA).read_bytes())]
    tasks.tell_through(_topic(job.token.name))
    work, *given, trained_key, grid = job.call
    with TemporaryDirectory(dir=folder) as own:
        store = Store(job.token.parent if job.token.exists() else Path(own))
        if trained is not None and store.packed(trained_key) is None:
            store.keep(trained_key, trained)
        files = tuple(folder / ELSEWHERE / file.name for file in grid.files)
        done = work(*given, trained_key, replace(grid, cache=store.folder, files=files))
        keys = given[-1]
        where = {"worker": worker, **_described(grid.device)}
        content = [store.packed(key) for key in keys]
    return pickle.dumps(
        [replace(d, content=c, where=where) for d, c in zip(done, content, strict=True)]
    )


@cache
def _described(device: str) -> dict[str, str | None]:
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"cpu": machine(), "gpu": gpu, "platform": platform.platform()}


class _Topic:
    """The end of a queue of epochs that is a topic of the cluster's."""

    def __init__(self, topic: str) -> None:
        self.topic, self.last = topic, -TOLD_SECONDS

    def put(self, told: tuple[str, dict]) -> None:
        from distributed import get_worker

        label, entry = told
        if time.monotonic() - self.last >= TOLD_SECONDS:
            self.last = time.monotonic()
            worker = get_worker()
            worker.log_event(self.topic, (label, entry | {"worker": worker.address}))


_topic = cache(_Topic)
