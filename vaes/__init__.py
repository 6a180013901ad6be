"""What is compared: every public module in this folder is one variant.

Dropping a file here makes the variant appear everywhere; nothing else is edited.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

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
    "variant_in",
    "with_options",
]


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
        try:
            variants[path.stem] = variant_in(path)
        except Exception as error:  # a broken file must not stop the others
            broken[path.stem] = f"{path.name}: {type(error).__name__}: {error}"
    ordered = dict(sorted(variants.items(), key=lambda item: (item[1].rank, item[0])))
    return Discovery(ordered, broken)


def variant_in(path: Path) -> type[Autoencoder]:
    """The variant's class of one file; raises what importing it raises, or TypeError."""
    return _only_variant(_import(path))


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
    return found[0]
