"""`python -m bench check`: variants put through their contract."""

from __future__ import annotations

from rich.console import Console

from bench.commands import contestants
from bench.errors import BenchError, one_line
from bench.machine.console import say
from bench.options import listed
from bench.variant_checks import verdicts
from vaes import Autoencoder, discover, variant_in


def check(names: str, console: Console) -> int:
    """`python -m bench check NAMES`: the exit code, 1 where a contract is broken."""
    code = 0
    for name, variant in _to_be_checked(names, console).items():
        say(console, f"{name}:")
        for checked, wrong in verdicts(variant):
            said = checked.__name__.replace("_", " ") + (f": {wrong}" if wrong else "")
            line = f"  {'WRONG' if wrong else 'ok':5}  {said}"
            say(console, line)
            code |= bool(wrong)
    return code


def _to_be_checked(names: str, console: Console) -> dict[str, type[Autoencoder]]:
    """The variants of a list of names and of paths to files anywhere."""
    if not listed(names):
        raise BenchError(
            "no variant named: give names of files in vaes/, or paths, e.g. NAME=input_dependent"
        )
    found, known = {}, discover().variants
    for asked_for in listed(names):
        if not asked_for.endswith(".py"):
            found |= {n: known[n] for n in contestants.variants_named(asked_for, console)}
            continue
        file = contestants.existing_file(asked_for)
        try:
            found[asked_for] = variant_in(file)
        except ImportError as error:
            raise BenchError(f"{asked_for} is no variant: {one_line(error)}") from None
    return found
