"""A published row: what was trained, what was found, and how far from it ours may be."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError, nearest, one_line

ROWS = Path(__file__).parent / "rows"
QUANTITIES = {
    "elbo": "test ELBO",
    "train_elbo": "training ELBO",
    "log_likelihood": "test log p(x)",
}
"""What may be published → its name; all in nats an image."""
EXACT = "exact_"
"""Before the name of a quantity that theory gives of our own model."""


@dataclass(frozen=True)
class Number:
    """One published number.

    Attributes:
        quantity: a key of `QUANTITIES`.
        value: nats an image; NaN where theory gives it of the trained model itself.
        epochs: the length of the training it is of; 0 for the run's own.
        tolerance: our number agrees where it is within it.
        at_least: or where it has this size at least, and the sign.
    """

    quantity: str
    value: float
    epochs: int = 0
    tolerance: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Published:
    """A row of a table that others have published, from one file.

    Attributes:
        name: the file's.
        title, source: what it is called, and where it stands.
        options: of `python -m bench run`, all that differs from ours.
        numbers: what was found.
        variant: a name in `vaes/`, or a path from the root of the project.
        minus: options of a second training, of which the numbers are less.
        seeds: trainings behind ours.
        samples: importance samples K behind a log-likelihood.
        stage: of the weights that were evaluated: `best` on validation, or `end`.
        quick: whether it is made again in minutes.
        lengths: epochs at which ours is shown on its way, where theirs is longer than all.
        remark: what differs from their conditions, and why ours may miss.
    """

    name: str
    title: str
    source: str
    options: Mapping[str, object]
    numbers: Sequence[Number]
    variant: str = "input_dependent"
    minus: Mapping[str, object] = field(default_factory=dict)
    seeds: int = 1
    samples: int = 1000
    stage: str = "end"
    quick: bool = False
    lengths: Sequence[int] = ()
    remark: str = ""

    @property
    def epochs(self) -> tuple[int, ...]:
        """Lengths of training whose numbers are shown, ascending."""
        longest = int(self.options["epochs"])
        return tuple(self.lengths) or tuple(
            sorted({number.epochs or longest for number in self.numbers})
        )

    @property
    def is_theory(self) -> bool:
        """Whether its numbers are theory's, of the trained model itself."""
        return all(math.isnan(number.value) for number in self.numbers)

    @property
    def is_grey(self) -> bool:
        """Whether its images are not binarized: a loss of theirs is no likelihood."""
        return self.options.get("binarize") == "none"

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is to be measured of each of its trainings."""
        exact = [EXACT + number.quantity for number in self.numbers if math.isnan(number.value)]
        return tuple(sorted({number.quantity for number in self.numbers} | {*exact}))


def read(path: Path) -> Published:
    """The row of one file; raises BenchError where it is none."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        numbers = [Number(**number) for number in content.pop("published")]
        row = Published(path.stem, numbers=numbers, **content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BenchError(
            f"{path} is no published row ({one_line(error)}): see *A published number* in "
            "CONTRIBUTING.md"
        ) from None
    for number in row.numbers:
        if number.quantity not in QUANTITIES:
            raise nearest("quantity", number.quantity, QUANTITIES)
    return row


def rows(folder: Path = ROWS) -> dict[str, Published]:
    """Every row by its name, in the order of the files."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.toml"))}
