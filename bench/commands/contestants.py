"""The variants asked for: found by name or path, sound by their contract, fit for the options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

from bench.config import Run
from bench.errors import BenchError, nearest, one_line, readable
from bench.inference.gradients import ESTIMATORS, admit, estimator_for
from bench.machine.console import say
from bench.machine.places import ROOT, usable
from bench.options import OPTION_OF, Config, listed
from bench.variant_checks import problems
from vaes import VAE, Autoencoder, discover, with_options

OF_A_POSTERIOR = (
    "kl_weight",
    "free_bits",
    "kl_warmup_epochs",
    "prior",
    "estimator",
    "samples",
)
"""Fields of a run that change nothing of a plain autoencoder's."""
NETWORKS = ("hidden", "activation", "gated", "decoder")
"""Options of the networks that variants have from `vaes.base`."""


def variants_named(text: str, console: Console) -> tuple[str, ...]:
    """The variants of a comma-separated list, or all of `vaes/`; BenchError names what is none."""
    found = discover(files=variant_files(text))
    wanted = [Path(name).stem if name.endswith(".py") else name for name in listed(text)]
    for name, reason in found.broken.items():
        if name not in wanted:
            _leave_out(reason, console)
    if text == "all":
        return tuple(found.variants)
    for name in wanted:
        if name in found.broken:
            raise BenchError(f"variant '{name}' cannot be used: {found.broken[name]}")
        if name not in found.variants:
            raise nearest("variant", name, found.variants)
    if not wanted:
        raise BenchError("no variant named: give --variants names of files in vaes/, or 'all'")
    return tuple(sorted(set(wanted), key=list(found.variants).index))


def _leave_out(reason: str, console: Console) -> None:
    say(console, f"not a variant, left out: {readable(reason)}", "yellow")


def sound_variants(text: str, console: Console) -> tuple[str, ...]:
    """`variants_named` that fulfil their contract; BenchError where one that is named does not."""
    known, sound = discover(files=variant_files(text)).variants, []
    for name in variants_named(text, console):
        wrong = problems(known[name])
        for check, reason in wrong.items():
            broken = f"variant '{name}' breaks its contract, {check.replace('_', ' ')}: {reason}"
            if text != "all":
                raise BenchError(broken)
            _leave_out(broken, console)
        sound += [] if wrong else [name]
    if not sound:
        raise BenchError("no variant fulfils its contract: name others with --variants")
    return tuple(sound)


def some_left_out(text: str, variants: tuple[str, ...]) -> bool:
    """Whether a file of `vaes/` is no variant, or was not `sound` where all were asked for."""
    return bool(discover().broken) or (text == "all" and len(variants) < len(discover().variants))


def existing_file(path: str) -> Path:
    """The file of a variant, absolute; raises BenchError where it is not there."""
    file = usable("variant file", path).absolute()
    if not file.is_file():
        raise BenchError(f"variant file {file} does not exist: check the path")
    return file


def variant_files(text: str) -> tuple[Path, ...]:
    """The files named by their paths among comma-separated variants.

    Raises BenchError where one is not there, or has the name of another variant.
    """
    files = [existing_file(name) for name in listed(text) if name.endswith(".py")]
    taken = {*discover().variants, *discover().broken}
    own = {ROOT / "vaes" / f"{name}.py" for name in taken}
    for file in files:
        if file in own and file.stem in discover().variants:
            raise BenchError(f"{file} is the variant '{file.stem}': name it so")
        if file.stem in taken:
            raise BenchError(
                f"variant file {file} has the name of another variant: rename the file"
            )
        taken.add(file.stem)
    return tuple(files)


def check_variants(
    known: Mapping[str, type[Autoencoder]],
    names: Sequence[str],
    overrides: Mapping[str, object],
    data_dim: int,
) -> None:
    """Refuse images of `data_dim` pixels, an estimator, free bits, a prior or training images that
    a variant named does not admit."""
    run = Run("", "", 0, 0).with_(**overrides)
    if not any(issubclass(known[name], VAE) for name in names):
        given = [OPTION_OF.get(field, field) for field in OF_A_POSTERIOR if field in overrides]
        if given:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise BenchError(
                f"{', '.join(names)}: without a posterior nothing changes by {options}: name a VAE "
                "too, or leave them out"
            )
    for name in names:
        own_prior = issubclass(known[name], VAE) and known[name].prior is not VAE.prior
        if own_prior and run.prior != Run.prior:
            raise BenchError(f"variant '{name}' has a prior of its own: leave out --prior, or it")
        if known[name].choices and run.training_split != Run.training_split:
            raise BenchError(
                f"variant '{name}' has hyperparameters to be chosen on validation images, and "
                f"--training-split {run.training_split} trains on them: leave one of the two out"
            )
        variant = with_options(known[name], **run.networks)
        try:
            model = variant(data_dim, 3, 8).eval()
        except Exception as error:
            raise BenchError(
                f"variant '{name}' cannot be made with these options for images of {data_dim:,} "
                f"pixels: {one_line(error)}"
            ) from None
        try:
            posterior = model.posterior(torch.zeros(1, data_dim))
            chosen = estimator_for(run.estimator, posterior, model.prior).__name__
        except Exception:  # an autoencoder, or one that says itself what is wrong when trained
            continue
        try:
            admit(chosen, posterior, model.prior, run.samples, run.free_bits)
        except Exception as error:  # BenchError, or whatever a posterior of a user's raises
            no_kl = "KL" in str(error) and isinstance(error.__cause__, NotImplementedError)
            remedy = ": use --estimator pathwise_sampled_kl" if no_kl else ""
            raise BenchError(f"variant '{name}' cannot be trained so: {error}{remedy}") from None


def own_shapes(
    known: Mapping[str, type[Autoencoder]], names: Iterable[str], shape: tuple[int, int]
) -> Iterator[str]:
    """A line where images are no squares, but their number of pixels would pass for one, and
    variants have networks of their own that may take them so."""
    height, width = shape
    own = [name for name in names if known[name].decode is not Autoencoder.decode]
    if own and height != width and math.isqrt(height * width) ** 2 == height * width:
        yield (
            f"with networks of their own: {', '.join(own)}; images are {height} x {width} pixels: "
            "make sure that these are not taken for squares"
        )


def unused_options(
    known: Mapping[str, type[Autoencoder]], names: Iterable[str], config: Config
) -> Iterator[str]:
    """A line each variant with networks of its own, in which options that were given change
    nothing."""
    given = [name for name in NETWORKS if getattr(config, name) != getattr(Config, name)]
    for variant in names:
        unused = [name for name in given if not _changes(known[variant], name, config)]
        if unused:
            options = " and ".join(f"--{name}" for name in unused)
            yield f"{variant}: has networks of its own, in which nothing changes by {options}"


def of_one_sample(config: Config) -> Iterator[str]:
    """A line where a bound of several samples is asked for with one."""
    estimator = ESTIMATORS.get(config.estimator)
    several = config.objective == "iwae" or (estimator and estimator.bound == "iw_bound")
    if several and config.samples == 1:
        yield "the bound of one sample is the ELBO: for another add --samples, e.g. 5"


def _changes(variant: type[Autoencoder], name: str, config: Config) -> bool:
    """Whether a model is another with the option."""
    option = {} if name == "hidden" else {name: getattr(config, name)}
    try:
        return repr(variant(16, 3, 8)) != repr(
            with_options(variant, **option)(16, 3, 12 if name == "hidden" else 8)
        )
    except Exception:  # one that says itself what is wrong when trained
        return True
