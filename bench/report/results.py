"""A folder of results: what a report is made from, read with patience and stored without loss."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.archives import check_unpacked
from bench.errors import BenchError, one_line
from bench.grid import FAILURE, TRAINING, TUNING
from bench.places import without_links
from bench.report import rows as tidy
from bench.report.style import ordered
from bench.storage import write_atomically

HISTORY, PICTURES, ENVIRONMENT = "history.csv", "pictures.npz", "environment.json"
HISTORY_COLUMNS = ("variant", "seed", "epoch")
FREE = ("variants", "questions", "seeds", "jobs")
"""What may differ between runs whose numbers stand in one table."""


@dataclass
class Results:
    """What a folder holds.

    Attributes:
        folder: `results/<dataset>/<device>`.
        rows: tidy rows, see `bench.report.rows`.
        history: one line a headline run and epoch: `variant seed epoch valid_elbo …`.
        pictures: `question/variant/seed/name` → small array.
        environment: where and how the numbers were made, and the commands that make them again.
        problems: what could not be read, a line each, naming the file and the remedy.
    """

    folder: Path
    rows: pd.DataFrame
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def dataset(self) -> str:
        """The name of its folder: the data set, and what differs from its own settings."""
        return self.folder.parent.name

    @property
    def device(self) -> str:
        return self.folder.name

    def of(self, question: str, metric: str | None = None, **settings: object) -> pd.DataFrame:
        """The rows of a question, of one metric and of some settings."""
        wanted = {"question": question} | ({} if metric is None else {"metric": metric})
        return tidy.select(self.rows, **wanted, **settings)

    def variants(self, rows: pd.DataFrame | None = None) -> list[str]:
        """The variants of some rows (by default of all), from simple to flexible."""
        return ordered((self.rows if rows is None else rows).variant.unique())

    def arrays(self, question: str, name: str) -> dict[str, np.ndarray]:
        """The first seed's array of that name of every variant that has one."""
        keys = {v: f"{question}/{v}/0/{name}" for v in self.variants()}
        return {v: self.pictures[key] for v, key in keys.items() if key in self.pictures}


def read(folder: str | Path) -> Results:
    """What the folder holds; files that are missing or damaged are left out and told of."""
    folder, problems = Path(folder), []

    def attempt(reader, otherwise):
        try:
            return reader()
        except BenchError as error:
            problems.append(str(error))
            return otherwise

    return Results(
        folder,
        attempt(lambda: tidy.read(folder), tidy.frame([])),
        attempt(lambda: _read_history(folder / HISTORY), pd.DataFrame(columns=HISTORY_COLUMNS)),
        attempt(lambda: _read_pictures(folder / PICTURES), {}),
        attempt(lambda: _read_environment(folder / ENVIRONMENT), {}),
        problems,
    )


def store(
    folder: Path, rows: pd.DataFrame, history: pd.DataFrame, pictures: Mapping, environment: dict
) -> list[str]:
    """Add what a run found to a folder, each file atomically; what could not be kept, a line each.

    Of the same configuration, a run replaces what it measured anew (a question of a variant) and
    keeps the rest; rows of another configuration never mix: they are replaced.
    """
    prepare(folder)
    old = read(folder)
    lost = [
        f"{path} could not be used and is kept as {_set_aside(path).name}"
        for path in (tidy.path_in(folder), *(folder / n for n in (HISTORY, PICTURES, ENVIRONMENT)))
        # of an unknown configuration, nothing can be merged
        if path.exists() and (not old.environment or any(str(path) in p for p in old.problems))
    ]
    same = _same_configuration(old.environment, environment)
    if not same and old.environment and rows.question.eq(FAILURE).all():
        return [*lost, f"{folder} keeps its results of another configuration: every task failed"]
    if same:
        made, parts = set(zip(rows.variant, rows.question, strict=True)), set(_parts(rows))
        kept = [
            part not in parts and not (q == FAILURE and _tried_again(v, what, environment))
            for part, v, q, what in zip(
                _parts(old.rows), old.rows.variant, old.rows.question, old.rows.metric, strict=True
            )
        ]
        rows = tidy.joined(old.rows[kept], rows)
        config = environment["config"] | {"seeds": int(rows.seed.max()) + 1}
        environment = environment | {"config": config}
        if len(old.history):
            others = old.history[~old.history.variant.isin(set(history.get("variant", [])))]
            history = pd.concat([others, history], ignore_index=True)
        pictures = {
            key: array
            for key, array in old.pictures.items()
            if (key.split("/")[1], key.split("/")[0]) not in made
        } | dict(pictures)
        environment = environment | {"runs": _runs(old.environment, environment)}
    if history.empty:
        history = pd.DataFrame(columns=HISTORY_COLUMNS)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **pictures)
    write_atomically(folder / PICTURES, buffer.getvalue())
    write_atomically(folder / HISTORY, tidy.csv(history, digits=6))
    tidy.write(folder, rows)
    text = json.dumps(environment, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / ENVIRONMENT, text.encode())
    return lost


def _parts(rows: pd.DataFrame) -> list[tuple]:
    """Of each row what a run measures as a whole: a question of a variant, or one choice."""
    contests = rows[["epochs", "steps", "estimator", "S"]].astype(str)
    contests = contests.where(rows.question.eq(TUNING), "")
    return [*zip(rows.variant, rows.question, *(contests[c] for c in contests), strict=True)]


def prepare(folder: Path) -> None:
    """Make the results folder; BenchError where it cannot be written."""
    try:
        without_links(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BenchError(
            f"the results folder {folder} cannot be written ({error.strerror}): "
            "change its permissions or name another with --results"
        ) from None


def _unreadable(path: Path, error: Exception) -> BenchError:
    if isinstance(error, FileNotFoundError):
        return BenchError(f"{path} does not exist: {tidy.REMEDY}")
    return BenchError(f"{path} cannot be read ({one_line(error)}): {tidy.REMEDY}")


def _read_history(path: Path) -> pd.DataFrame:
    try:
        history = pd.read_csv(tidy.whole(path))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if missing := [c for c in HISTORY_COLUMNS if c not in history]:
        raise BenchError(f"{path} lacks the column '{missing[0]}': {tidy.REMEDY}")
    if history[[*HISTORY_COLUMNS]].isna().any(axis=None):
        raise BenchError(f"{path} is cut off or damaged: {tidy.REMEDY}")
    return history


def _read_pictures(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            check_unpacked(sum(member.file_size for member in arrays.zip.infolist()))
            found = dict(arrays)
    except Exception as error:  # numpy and zipfile raise a dozen unrelated types
        raise _unreadable(path, error) from None
    if foreign := [key for key in found if key.count("/") != 3]:
        raise BenchError(f"{path} holds an array '{foreign[0]}' of another program: {tidy.REMEDY}")
    return found


def _read_environment(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from None
    if not _is_environment(found):
        raise BenchError(f"{path} is of another program or an older version: {tidy.REMEDY}")
    return found


def _is_environment(found: object) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        return False
    runs = found.get("runs")
    return isinstance(runs, list) and all(
        isinstance(run, dict) and {"command", "variants", "questions"} <= run.keys() for run in runs
    )


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.unreadable")
    path.replace(aside)
    return aside


def _same_configuration(old: Mapping, new: Mapping) -> bool:
    """Whether two runs' numbers may stand in one table."""

    def of_numbers(environment: Mapping) -> dict:
        config = json.loads(json.dumps(environment.get("config", {})))
        return {name: value for name, value in config.items() if name not in FREE}

    return of_numbers(old) == of_numbers(new)


def _tried_again(variant: str, what: str, environment: Mapping) -> bool:
    """Whether a run did what failed before: a question of a variant, or its training."""
    config = environment["config"]
    trainings = () if config["questions"] == [TUNING] else (TRAINING,)
    return variant in config["variants"] and what in (*trainings, *config["questions"])


def record(folder: Path, run: dict) -> None:
    """Note a command among those that make a folder again, where it has results."""
    stored = read(folder).environment
    if stored:
        runs = _runs(stored, {"runs": [run]})
        text = json.dumps({**stored, "runs": runs}, indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / ENVIRONMENT, text.encode())


def _runs(old: Mapping, new: Mapping) -> list[dict]:
    """The commands that make the folder again; one that a later one does entirely is dropped."""

    def work(run: dict) -> set[tuple[str, str]]:
        return {(v, q) for v in run["variants"] for q in run["questions"]}

    latest = new["runs"]
    done = set().union(*(work(run) for run in latest))
    return [run for run in old["runs"] if not work(run) <= done] + latest
