"""What is compared: every public module in this folder is one variant.

Dropping a file here makes the variant appear everywhere; nothing else is edited.
"""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from vaes._deadline import deadline
from vaes._likelihoods import LIKELIHOODS
from vaes._networks import ACTIVATIONS, DECODERS, GatedLayers
from vaes._priors import PRIORS
from vaes.base import VAE, Autoencoder

__all__ = [
    "ACTIVATIONS",
    "DECODERS",
    "LIKELIHOODS",
    "PRIORS",
    "VAE",
    "Autoencoder",
    "Discovery",
    "discover",
    "is_name",
    "variant_in",
    "with_options",
]


IMPORT_SECONDS = 20.0
"""After which the import of a file is given up."""
NO_VALUE = ("NA", "NaN", "NULL", "nan", "null", "all")
"""Words that tables read as no value, and the one that means every variant."""


@dataclass(frozen=True)
class Discovery:
    """What was found in a folder of variants.

    Attributes:
        variants: name → class, from simple to flexible.
        broken: name → why the file is not a variant.
    """

    variants: Mapping[str, type[Autoencoder]]
    broken: Mapping[str, str]


def discover(folder: Path | None = None, files: Iterable[Path] = ()) -> Discovery:
    """Import every public module of `folder` (by default this one) but `base`, and files of other
    folders, each a variant of its own name."""
    variants: dict[str, type[Autoencoder]] = {}
    broken: dict[str, str] = {}
    for path in [*sorted((folder or Path(__file__).parent).glob("*.py")), *files]:
        if path.stem.startswith("_") or path.stem == "base":
            continue
        found = _variant_or_reason(path, _stamp(path))
        if isinstance(found, str):
            broken[path.stem] = f"{path.name}: {found}"
        else:
            variants[path.stem] = found
    ordered = dict(sorted(variants.items(), key=lambda item: (item[1].rank, item[0])))
    return Discovery(ordered, broken)


def is_name(name: str) -> bool:
    """Whether a variant can be called so: in tables, in folders and as a module."""
    return name.isidentifier() and not keyword.iskeyword(name) and name not in NO_VALUE


def variant_in(path: Path) -> type[Autoencoder]:
    """The variant's class of one file; raises ImportError with the reason where it has none."""
    found = _variant_or_reason(path, _stamp(path))
    if isinstance(found, str):
        raise ImportError(found)
    return found


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file is edited."""
    try:
        stat = path.stat()
    except OSError:  # that it cannot be read is told by its import
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


@cache
def _variant_or_reason(path: Path, stamp: tuple[int, int]) -> type[Autoencoder] | str:
    """The class of a file, or why there is none: whatever a broken file does, it must not stop the
    others, nor be waited for again."""
    if not is_name(path.stem):
        return "no variant can have this name: use letters, digits and underscores, e.g. low_rank"
    try:
        with deadline(IMPORT_SECONDS, "its import"):
            return _only_variant(_import(path))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def mixins(
    variant: type[Autoencoder],
    likelihood: str = "bernoulli",
    decoder: str = "mlp",
    activation: str = "tanh",
    gated: bool = False,
    prior: str = "standard_normal",
) -> tuple[type[Autoencoder], ...]:
    """What a variant is combined with; nothing for the defaults, and no prior where it has no z.

    Raises KeyError for a name that is not in `LIKELIHOODS`, `DECODERS`, `ACTIVATIONS` or `PRIORS`.
    """
    return (
        *LIKELIHOODS[likelihood],
        *DECODERS[decoder],
        *((GatedLayers,) if gated else ACTIVATIONS[activation]),
        *(PRIORS[prior] if issubclass(variant, VAE) else ()),
    )


def with_options(variant: type[Autoencoder], *args, **kwargs) -> type[Autoencoder]:
    """The variant's class combined with its `mixins`; the class itself for the defaults."""
    found = mixins(variant, *args, **kwargs)
    if not found:
        return variant
    names = {"__module__": variant.__module__, "__qualname__": variant.__qualname__}
    return type(variant)(variant.__name__, (variant, *found), names)


def _import(path: Path) -> ModuleType:
    if path.parent.resolve() == Path(__file__).parent.resolve():
        return importlib.import_module(f"vaes.{path.stem}")
    spec = importlib.util.spec_from_file_location(f"vaes_elsewhere.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _only_variant(module: ModuleType) -> type[Autoencoder]:
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Autoencoder)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    ]
    if len(found) != 1:
        names = ", ".join(c.__name__ for c in found) or "none"
        raise TypeError(f"expected exactly one public Autoencoder or VAE class, found {names}")
    rank = found[0].rank
    if not isinstance(rank, int | float) or math.isnan(rank):
        raise TypeError(f"rank is {rank!r}: give a number, its place in tables")
    return found[0]
