"""Hands tasks to the workers of a Dask cluster, which need nothing but the installed packages.

The source and the data go there as one parcel, which workers pass on to each other; what a worker
finds comes back with its answer, so that no folder need be shared.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import pickle
import secrets
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import torch

from bench.data.dataset import Dataset
from bench.errors import BenchError, one_line
from bench.grid.fingerprint import source_files
from bench.grid.progress import Progress
from bench.grid.remote import DATA, ELSEWHERE, unpacked_and_done
from bench.grid.store import Store
from bench.grid.tasks import Grid
from bench.machine.console import say
from bench.machine.places import ROOT

PATIENCE = 5
"""Seconds in which a scheduler answers."""
RETRIES = 2
"""Of a task that a worker could not even begin; one whose worker dies is retried by Dask."""
KEPT = 100
"""Trainings that the scheduler holds for measurements to come."""


@dataclass(frozen=True)
class Job:
    """One call of `work`, as a worker is told of it.

    Attributes:
        call: the function and its arguments.
        torch: the version that the cache's keys name.
        token: a file of the cache folder: a worker that sees it shares the folder. Epochs are told
            under its name.
    """

    call: tuple
    torch: str
    token: Path


class Cluster(Executor):
    """The workers of the scheduler at an address, as an executor of `work`.

    `progress` is told how many workers there are, and of their epochs. Raises BenchError where
    Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str, grid: Grid, data: Dataset, progress: Progress) -> None:
        try:
            import dask
            from distributed import Client
        except ImportError:
            raise BenchError(
                "--engine dask needs the package distributed: run "
                "'pip install -r requirements-cluster.lock' (make ENGINE=dask does so)"
            ) from None
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is told here
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"})
        self.address, self.gpu = address, grid.device == "cuda"
        try:
            asyncio.run(asyncio.wait_for(_asked(address), PATIENCE))
            self.client = Client(address, set_as_default=False)
        except (OSError, ValueError, TypeError, TimeoutError) as error:
            why = f"within {PATIENCE} s" if isinstance(error, TimeoutError) else one_line(error)
            raise BenchError(
                f"no Dask scheduler answers at {address} ({why}): start one with 'dask scheduler', "
                "or check --scheduler"
            ) from None
        self.store = Store(grid.cache)
        # a run that is killed leaves it to be swept, like a file that was being written
        self.token = grid.cache.resolve() / f".seen.run.{secrets.token_hex(4)}"
        self.token.touch()
        self.pool = self.client.get_executor(
            pure=False,
            retries=RETRIES,
            resources={"GPU": 1} if self.gpu else None,
        )
        content = parcel(grid, data)
        self.digest = hashlib.sha256(content).hexdigest()[:16]
        self.parcel = self.client.submit(bytes, content, pure=False)
        self.trained = lru_cache(KEPT)(self._trained)
        self.client.subscribe_topic(self.token.name, lambda event: progress.hear(*event[1]))
        progress.workers = self.workers
        say(progress.console, self.described())

    @property
    def workers(self) -> int:
        """How many there are now that may be given tasks."""
        found = self.client.scheduler_info()["workers"].values()
        return sum(not self.gpu or "GPU" in worker["resources"] for worker in found)

    def described(self) -> str:
        """One line: how many workers there are, or how to start one."""
        if count := self.workers:
            return f"{count} worker{'s'[: count > 1]} of the cluster at {self.address}"
        gpu = " --resources GPU=1" if self.gpu else ""
        return (
            f"no worker yet at {self.address}, start some: "
            f"dask worker {self.address} --nthreads 1 --nworkers -1{gpu}"
        )

    def submit(self, work: Callable, /, *given) -> Future:
        """A future of what `work(tasks, keys, trained_key, grid)` returns on a worker.

        It raises BenchError where the cluster is of no use any more.
        """
        tasks, _, trained_key, _ = given
        job = pickle.dumps(Job((work, *given), torch.__version__, self.token))
        measured = tasks[0].question is not None
        there = self.pool.submit(
            unpacked_and_done(),
            self.parcel,
            self.digest,
            job,
            self.trained(trained_key) if measured else None,
            # depth first: the fewer trainings wait to be measured, the fewer must be held
            priority=int(measured),
        )
        answer: Future = Future()
        there.add_done_callback(partial(self._answer, answer))
        return answer

    def _trained(self, key: str):
        """A finished training on the cluster; None where the cache has it no more."""
        content = self.store.packed(key)
        return content and self.client.submit(bytes, content, pure=False)

    def _answer(self, answer: Future, there: Future) -> None:
        try:
            found = pickle.loads(there.result())
        except CancelledError:
            answer.set_exception(
                BenchError(
                    f"the Dask scheduler at {self.address} is gone: start it and run again; what "
                    "was finished is kept"
                )
            )
        except Exception as error:  # of Dask, or of a worker that could not begin
            answer.set_exception(error)
        else:
            if isinstance(found, str):  # why the worker will not do
                answer.set_exception(BenchError(found))
            else:
                answer.set_result(found)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what is not finished there is dropped."""
        self.client.close()
        self.token.unlink(missing_ok=True)


async def _asked(address: str) -> None:
    """Returns once a scheduler answers; a client waits longer for one that does not."""
    from distributed.core import rpc
    from distributed.security import Security

    async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
        await scheduler.identity(n_workers=0)


def parcel(grid: Grid, data: Dataset) -> bytes:
    """A zip of the project's source, the grid's variants of other folders, and the data."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in source_files():
            archive.write(path, path.relative_to(ROOT))
        for file in grid.files:
            archive.write(file, f"{ELSEWHERE}/{file.name}")
        archive.writestr(DATA, pickle.dumps(data))
    return buffer.getvalue()
