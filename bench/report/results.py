"""A folder of results: what a report is made from, read with patience and stored without loss."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError, one_line
from bench.grid import FAILURE, TRAINING, TUNING
from bench.machine.archives import check_unpacked
from bench.machine.places import without_links
from bench.machine.storage import locked, rewritten, set_aside, sweep, write_atomically
from bench.report import rows as tidy
from bench.report.style import ordered

HISTORY, PICTURES, ENVIRONMENT = "history.csv", "pictures.npz", "environment.json"
STORED = (tidy.FILE, HISTORY, PICTURES, ENVIRONMENT)
TIMINGS = "throughput.json"
DIGESTS = "sha256"
"""In the environment: file → digest of its bytes, and of the environment itself without them."""
HISTORY_COLUMNS = ("variant", "seed", "epoch")
WHERE = (
    "cpu",
    "cores",
    "gpu",
    "platform",
    "python",
    "packages",
    "commit",
    "workers",
    "load_average_at_start",
)
"""In the environment: where the numbers were made."""
FREE = ("variants", "questions", "seeds", "jobs")
"""What may differ between runs whose numbers stand in one table."""


def in_bf16(folder: Path) -> Path:
    """Where the same runs in bf16 are stored."""
    return folder.parent.with_name(f"{folder.parent.name}-bf16") / folder.name


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

    environment = attempt(lambda: _read_environment(folder / ENVIRONMENT), {})

    def stored(path: Path, reader, otherwise, remedy: str = tidy.REMEDY):
        return attempt(lambda: _as_stored(path, reader, environment, remedy), otherwise)

    stored(folder / TIMINGS, lambda path: None, None, "make it again with 'make throughput'")
    return Results(
        folder,
        stored(tidy.path_in(folder), lambda path: tidy.read(folder), tidy.frame([])),
        stored(folder / HISTORY, _read_history, pd.DataFrame(columns=HISTORY_COLUMNS)),
        stored(folder / PICTURES, _read_pictures, {}),
        environment,
        problems,
    )


def store(
    folder: Path,
    rows: pd.DataFrame,
    history: pd.DataFrame,
    pictures: Mapping,
    environment: dict,
    computed: bool = True,
) -> list[str]:
    """Add what a run found to a folder, in one step; what could not be kept, a line each.

    Where nothing was `computed`, all of it found in the cache, machine, packages and commit stay as
    they are stored.

    Of the same configuration, a run replaces what it measured anew (a question of a variant) and
    keeps the rest; where tasks of it failed, it replaces only what has no more rows than it found.
    Rows of another configuration never mix: they are replaced.
    """
    prepare(folder)
    old = read(folder)
    files = (tidy.path_in(folder), *(folder / name for name in (HISTORY, PICTURES, ENVIRONMENT)))
    # of an unknown configuration, nothing can be merged
    unusable = [
        path
        for path in files
        if path.exists() and (not old.environment or any(str(path) in p for p in old.problems))
    ]
    with rewritten(folder) as new:
        lost = [
            f"{path} could not be used and is kept as {set_aside(new / path.name).name}"
            for path in unusable
        ]
        same = _same_configuration(old.environment, environment)
        if not same and old.environment and rows.question.eq(FAILURE).all():
            return [
                *lost,
                f"{folder} keeps its results of another configuration: every task failed",
            ]
        if history.empty:
            history = pd.DataFrame(columns=HISTORY_COLUMNS)
        if same and not computed:
            environment = environment | _made_before(old.environment, environment)
        if same:
            rows, history, pictures, environment = _merged(
                old, rows, history, pictures, environment
            )
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(sorted(pictures.items())))
        write_atomically(new / PICTURES, buffer.getvalue())
        write_atomically(new / HISTORY, tidy.csv(history, digits=6))
        tidy.write(new, rows)
        made = {name: _digest(new / name) for name in (tidy.FILE, HISTORY, PICTURES)}
        timings = {TIMINGS: old.environment.get(DIGESTS, {}).get(TIMINGS)}
        _write_environment(new, environment | {DIGESTS: timings | made})
    return lost


def _merged(
    old: Results, rows: pd.DataFrame, history: pd.DataFrame, pictures: Mapping, environment: dict
) -> tuple[pd.DataFrame, pd.DataFrame, dict, dict]:
    """What is stored, with what a run of the same configuration found in its place."""
    failed = rows.question.eq(FAILURE).any()

    def anew(before: list, now: list) -> set:
        """What the run replaces, of what its lines and those before are about."""
        counted, found = Counter(before), Counter(now)
        return {part for part in found if not failed or found[part] >= counted[part]}

    parts, stood = _parts(rows), _parts(old.rows)
    replaced = anew(stood, parts) | {part for part in parts if part[1] == FAILURE}
    kept = np.array(
        [
            part not in replaced
            and not (part[1] == FAILURE and _tried_again(part[0], what, environment))
            for part, what in zip(stood, old.rows.metric, strict=True)
        ],
        dtype=bool,
    )
    made = {part[:2] for part in replaced}
    rows = tidy.joined(old.rows[kept], rows[[part in replaced for part in parts]])
    trained = anew([*old.history.variant], [*history.variant])
    if len(old.history):
        others = old.history[~old.history.variant.isin(trained)]
        history = pd.concat([others, history[history.variant.isin(trained)]], ignore_index=True)

    smaller = {part[:2] for part in parts} - made

    def of(key: str) -> tuple[str, str]:
        question, variant, *_ = key.split("/")
        return variant, question

    pictures = {k: array for k, array in old.pictures.items() if of(k) not in made} | {
        k: array for k, array in pictures.items() if of(k) not in smaller
    }
    config = environment["config"] | {"seeds": int(rows.seed.max()) + 1}
    runs = _runs(old.environment, environment)
    return rows, history, pictures, environment | {"config": config, "runs": runs}


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


@contextmanager
def writing(root: Path, say: Callable[[str], None]) -> Iterator[None]:
    """No other run writes to the results folder meanwhile; what killed ones left is removed."""
    with locked(root, say):
        sweep(root, "index.html", "README.md")
        for dataset in (path for path in root.glob("*") if path.is_dir()):
            sweep(dataset, "cpu", "cuda")
        yield


def _as_stored(path: Path, reader, environment: Mapping, remedy: str):
    """What a reader finds in a file; raises BenchError where that is not what was stored."""
    found = reader(path)
    digest = environment.get(DIGESTS, {}).get(path.name)
    try:
        if digest and digest != _digest(path):
            raise BenchError(f"{path} was damaged or changed after it was stored: {remedy}")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({one_line(error)}): {remedy}") from None
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    for column in history.columns.drop("variant"):
        if not pd.api.types.is_numeric_dtype(history[column]) and len(history):
            raise BenchError(f"{path} holds no numbers in the column '{column}': {tidy.REMEDY}")
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
    if DIGESTS in found and found[DIGESTS].get(path.name) != _without_digests(found)[1]:
        raise BenchError(f"{path} was damaged or changed after it was stored: {tidy.REMEDY}")
    return found


def _is_environment(found: object) -> bool:
    def named(run: object) -> bool:
        lists = isinstance(run, dict) and [run.get("variants"), run.get("questions")]
        return (
            isinstance(run, dict)
            and isinstance(run.get("command"), str)
            and all(
                isinstance(names, list) and all(isinstance(name, str) for name in names)
                for names in lists
            )
        )

    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        return False
    runs = found.get("runs")
    parts = (found.get("packages", {}), found.get(DIGESTS, {}))
    return (
        all(isinstance(p, dict) for p in parts) and isinstance(runs, list) and all(map(named, runs))
    )


def _without_digests(environment: Mapping) -> tuple[dict, str]:
    """The environment alone, and its digest."""
    rest = {name: value for name, value in environment.items() if name != DIGESTS}
    return rest, hashlib.sha256(_json(rest)).hexdigest()


def _write_environment(folder: Path, environment: Mapping) -> None:
    rest, digest = _without_digests(environment)
    digests = {name: d for name, d in environment[DIGESTS].items() if d} | {ENVIRONMENT: digest}
    # sorted: a run that finds everything leaves the file, and the page kept of it, as they were
    write_atomically(folder / ENVIRONMENT, _json(rest | {DIGESTS: dict(sorted(digests.items()))}))


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


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


def record(folder: Path, run: dict | None = None) -> None:
    """Note that speeds were timed, where a folder has results, and the command that did so."""
    stored = read(folder).environment
    if not stored:
        return
    runs = stored["runs"] if run is None else _runs(stored, {"runs": [run]})
    digests = stored.get(DIGESTS, {})
    if (folder / TIMINGS).is_file():
        digests = digests | {TIMINGS: _digest(folder / TIMINGS)}
    _write_environment(folder, {**stored, "runs": runs, DIGESTS: digests})


def _made_before(old: Mapping, new: Mapping) -> dict:
    """Where the numbers of a run that computed none of them were made."""
    where = {name: old[name] for name in WHERE if name in old}
    known = {run["command"]: run for run in old["runs"]}
    return where | {"runs": [known.get(run["command"], run) for run in new["runs"]]}


def _runs(old: Mapping, new: Mapping) -> list[dict]:
    """The commands that make the folder again; one that a later one does entirely is dropped."""

    def work(run: dict) -> set[tuple[str, str]]:
        return {(v, q) for v in run["variants"] for q in run["questions"]}

    latest = new["runs"]
    done = set().union(*(work(run) for run in latest))
    return [run for run in old["runs"] if not work(run) <= done] + latest
