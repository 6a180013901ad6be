"""Tidy rows: the one schema of everything that was measured, its writer and its reader.

    from bench.report import rows
    frame = rows.read("results/mnist/cpu")

gives a `pandas.DataFrame` with one line a measured number: what was measured, each setting a typed
column of its own (empty where it does not apply), and the value with its error.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError, one_line
from bench.machine.archives import gunzip
from bench.machine.storage import write_atomically

FILE = "rows.csv.gz"
FORMER_FILE = "rows.csv"
"""Where 0.1.0 stored them: read where there is no other."""
REMEDY = "make them again with 'make bench'"
IDENTITY = {
    "dataset": "str",
    "device": "str",
    "variant": "str",
    "seed": "Int64",
    "question": "str",
    "metric": "str",
}
SETTINGS = {
    "epochs": "Int64",  # of a whole training
    "learning_rate": "float64",
    "stage": "str",  # initialisation, epoch_1, best, end, trained
    "estimator": "str",  # of the gradient
    "kl": "str",  # analytic, sampled
    "sampling": "str",  # independent, antithetic, sobol
    "S": "Int64",  # noise samples an image
    "K": "Int64",  # importance samples
    "reference_K": "Int64",  # the K a bias is measured against
    "L": "Int64",  # latent dimensions
    "latent": "Int64",  # which of them
    "batch_size": "Int64",
    "images": "Int64",  # training images
    "steps": "Int64",  # of a whole training or fit
    "step": "Int64",  # a moment of it
    "budget": "str",  # equal_steps, equal_time
    "trained_on": "str",  # clean, or a corruption
    "corruption": "str",
    "level": "float64",  # of corruption
    "source": "str",  # of other images
    "noise_scale": "float64",  # s of noise added to a code
    "noise_unit": "str",  # absolute: latent units; covariance: shaped as that of the codes
    "kl_weight": "float64",  # in the objective of a training
    "code": "str",  # mean: that of the posterior, or an autoencoder's code; sampled
    "cost_function": "str",  # of one number, whose expectation is differentiated
    "k": "float64",  # its parameter
    "parameter": "str",  # what is differentiated by: location, scale
    "proposals": "Int64",  # samples behind log p(x)
    "chains": "Int64",  # of annealed importance sampling
    "temperatures": "Int64",  # of its schedule
    "reference": "str",  # what a ratio or difference is to: a variant or an estimator
    "reference_S": "Int64",  # the S of that estimator, where it is not the row's own
    "capped": "boolean",  # sampling ended before the wanted precision
    "chosen": "boolean",  # among candidates, by validation
}
HYPERPARAMETER = "hyperparameter_"
"""Prefix of a float column for each hyperparameter that a variant declares."""
MEASURED = {
    "value": "float64",
    "standard_error": "float64",
    "n": "Int64",
    "unit": "str",
    "reason": "str",
}
COLUMNS = {**IDENTITY, **SETTINGS, **MEASURED}


def frame(lines: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Lines of column → value as a checked, sorted table; raises BenchError on unknown columns."""
    return _sorted(_checked(pd.DataFrame(list(lines)), "these rows"))


def read(folder: str | Path) -> pd.DataFrame:
    """The rows stored in a folder of results, every column of the schema present and typed.

    Raises BenchError, naming the file and the remedy, where there are none or they are damaged.
    """
    path = path_in(Path(folder))
    try:
        stored = pd.read_csv(whole(path), dtype=object, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise BenchError(f"{path} does not exist: make it with 'make bench'") from None
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{path} cannot be read ({one_line(error)}): make it again with 'make bench'"
        ) from None
    table = _checked(stored, str(path))
    if foreign := [name for name in table.variant.unique() if not re.fullmatch(r"[\w.-]+", name)]:
        raise BenchError(
            f"{path} has rows of {foreign[0]!a}, as no variant can be called: {REMEDY}"
        )
    return table


def path_in(folder: Path) -> Path:
    """The file of a folder's rows, whether it is there or not."""
    former = folder / FORMER_FILE
    return former if former.exists() and not (folder / FILE).exists() else folder / FILE


def whole(path: Path) -> io.BytesIO:
    """A file of lines, unpacked; raises ValueError where it is cut off, OSError like `open`."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gunzip(content)
        except (EOFError, zlib.error):
            raise ValueError("it is cut off") from None
    if not content.endswith(b"\n"):
        raise ValueError("it is cut off")
    return io.BytesIO(content)


def write(folder: Path, rows: pd.DataFrame) -> None:
    """Store rows in a folder, atomically; settings that none of them has are left out."""
    rows = _checked(rows, "these rows")
    used = [c for c in rows if c not in SETTINGS or rows[c].notna().any()]
    # without the time of writing: equal rows are equal bytes
    write_atomically(folder / FILE, gzip.compress(csv(rows[used]), mtime=0))


def csv(table: pd.DataFrame, digits: int = 8) -> bytes:
    """A table as UTF-8 CSV."""
    return table.to_csv(index=False, float_format=f"%.{digits}g").encode()


def select(rows: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows whose columns equal the values given; a list or tuple means any of them."""
    fits = np.ones(len(rows), dtype=bool)
    for column, value in wanted.items():
        here = rows[column]
        same = here.isin(value) if isinstance(value, list | tuple) else here == value
        fits &= same.fillna(False).to_numpy(dtype=bool)
    return rows[fits]


def most_images(rows: pd.DataFrame) -> int:
    """Over how many images the measured numbers are, at most."""
    return max((int(n) for n in rows.n.dropna()), default=0)


def hyperparameters(rows: pd.DataFrame) -> list[str]:
    """The names of the hyperparameters that these rows have values of."""
    names = [column for column in rows if column.startswith(HYPERPARAMETER)]
    return [name.removeprefix(HYPERPARAMETER) for name in names if rows[name].notna().any()]


def _checked(table: pd.DataFrame, what: str) -> pd.DataFrame:
    own = [c for c in table if c.startswith(HYPERPARAMETER)]
    if unknown := [str(c) for c in table if c not in COLUMNS and c not in own]:
        raise BenchError(
            f"{what} have a column '{unknown[0]}' that no row has, another program's or an older "
            f"version's: {REMEDY}"
        )
    if missing := [c for c in (*IDENTITY, "value") if c not in table and len(table.columns)]:
        raise BenchError(f"{what} lack the column '{missing[0]}': {REMEDY}")
    types = {**IDENTITY, **SETTINGS, **dict.fromkeys(own, "float64"), **MEASURED}
    typed = {}
    for column, kind in types.items():
        values = table[column] if column in table else pd.Series(index=table.index, dtype=object)
        try:
            typed[column] = _typed(values, kind)
        except (TypeError, ValueError, OverflowError) as error:
            raise BenchError(
                f"{what} hold something else than {kind} in the column '{column}' "
                f"({one_line(error)}): {REMEDY}"
            ) from None
    whole = pd.DataFrame(typed)
    if whole[[*IDENTITY]].isna().any(axis=None):
        raise BenchError(f"{what} are cut off or damaged: {REMEDY}")
    return whole


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    own = [column for column in table if column.startswith(HYPERPARAMETER)]
    order = [*IDENTITY, *SETTINGS, *own]
    return table.sort_values(order, kind="stable", ignore_index=True)


def _typed(values: pd.Series, kind: str) -> pd.Series:
    if kind == "str":
        return values.astype("str").where(values.notna())
    if kind == "boolean":
        truths = {"True": True, "False": False, True: True, False: False}
        if not values.dropna().isin(list(truths)).all():
            raise ValueError(f"'{values.dropna().iloc[0]}'")
        return values.map(truths).astype("boolean")
    return pd.to_numeric(values).astype(kind)


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    """Several tables of rows as one."""
    whole = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
    return _sorted(_checked(whole, "these rows"))
