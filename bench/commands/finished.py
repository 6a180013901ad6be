"""The command line of finished work: `compare`, `list`, `codes`, `samples`, `likelihood`,
`export-weights`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from bench.config import REFERENCE
from bench.errors import BenchError
from bench.machine.console import console, say
from bench.options import Config, listed

if TYPE_CHECKING:
    from bench.grid.contract import Subject

app = App(result_action="return_value", version_flags=[])
Unused = Annotated[str, Parameter(show=False)]


@dataclass(frozen=True)
class Finished(Config):
    """A run of `python -m bench run`, named by the options that it was made with."""

    variant: str = REFERENCE
    """The model's: name of a file in vaes/."""

    seed: int = 0
    """The model's."""

    variants: Unused = Config.variants
    questions: Unused = Config.questions
    jobs: Annotated[int, Parameter(show=False)] = Config.jobs
    results: Annotated[Path, Parameter(show=False)] = Config.results


DEFAULT, ONE = Config(), Finished()
Options = Annotated[Config, Parameter(name="*")]
OfOne = Annotated[Finished, Parameter(name="*")]
Images = Annotated[
    Path,
    Parameter(
        help="Images as the model was trained on, in any form of own data; of an .npz of several "
        "arrays the test images, e.g. x_test. Binarized as its test images were; of a table in its "
        "unit."
    ),
]


@app.command
def compare(a: Path, b: Path, /, *, question: str = "headline") -> int:
    """Compare two folders of results, A and B; exit code 1 where something changed beyond noise.

    Every metric that both hold at the same settings with two seeds or more is compared, variant by
    variant, times apart; of the headline ELBO, IW bounds, distortion (an autoencoder's
    cross-entropy) and rate. Differences B − A are paired by seed where data and configuration are
    the same, else Welch's; intervals are 95 %, Student's t over seeds. A difference is beyond noise
    where Holm's procedure over all comparisons rejects that it is zero: where nothing changed, one
    or more are called so in 5 % of cases at most. One within 2e-6 of the values is rounding and
    counts as none. A table longer than a page shows what changed alone. Exit code 0: nothing
    changed, 1: something did, 2: wrong use.

    Parameters
    ----------
    a
        A, e.g. results/mnist5k/cpu.
    b
        B, of another machine, commit, device or protocol.
    question
        Whose rows are compared.
    """
    from bench.commands.compare import compare
    from bench.report import results
    from bench.report.screen import screen

    known = [results.read(folder) for folder in (a, b)]
    for folder in known:
        if folder.rows.empty:
            raise BenchError(
                f"{folder.folder} holds no results: name a folder such as results/mnist5k/cpu"
            )
        for problem in folder.problems:
            say(console, problem, "yellow")
    found = compare(*known, question)
    for name, folder in zip("AB", known):
        say(console, f"{name}: {folder.folder}")
    for line in found.differ:
        say(console, f"differs: {line}")
    say(
        console,
        f"{question}: B − A, {'paired by seed' if found.paired else 'Welch, seeds unpaired'}",
    )
    if found.table.lines:
        console.print(screen(found.table))
    say(console, found.sentence)
    return int(found.changed)


@app.command(name="list")
def listing(*, config: Options = DEFAULT) -> int:
    """List what is stored and what is missing of a run, and the folders of results; trains nothing.

    What is found in the cache is done, what is not is missing; runs whose learning rate or
    hyperparameters have yet to be chosen on validation are to be tuned.
    """
    from bench.commands import configuration, contestants, listing
    from bench.grid.survey import Survey
    from bench.report.screen import screen

    configuration.check(config)
    variants = contestants.variants_named(config.variants, console)
    questions = configuration.questions_named(config.questions)
    data = configuration.data_of(config)
    name = configuration.folder_name(config, data, configuration.overrides_of(config, data))
    for device in configuration.devices_of(config.device):
        survey = Survey(configuration.grid(config, data, variants, questions, device), data)
        say(console, f"{name} on {device}, from {configuration.cache_folder(config)}:")
        console.print(screen(listing.tasks(survey.states())))
    for line in listing.folders(config.results):
        say(console, line)
    return 0


@app.command
def codes(file: Images, /, *, out: Path, config: OfOne = ONE) -> int:
    """Encode images: mean and standard deviation of q(z|x), one line or entry an image.

    Those of a posterior without known moments are of 500 samples; an autoencoder has its code.

    Parameters
    ----------
    out
        A .npz (arrays mean, standard_deviation) or .csv to write.
    """
    from bench.commands import apply

    apply.check_files(out, file)
    subject = _finished(config)
    return _write(out, apply.codes(subject, apply.images_of(file, subject.data)))


@app.command
def samples(*, out: Path, count: int = 100, noise_seed: int = 0, config: OfOne = ONE) -> int:
    """Draw images from the prior: each pixel's mean given the code, and a draw.

    Parameters
    ----------
    out
        A .npz (arrays mean, draws) or .csv to write; the mean of a binary pixel is its probability.
    count
        How many images.
    noise_seed
        Of the codes and draws.
    """
    from bench.commands import apply

    apply.check_files(out)
    return _write(out, apply.samples(_finished(config), count, noise_seed))


@app.command
def likelihood(file: Images, /, *, out: Path, config: OfOne = ONE) -> int:
    """Of each image the ELBO with its Monte Carlo standard error, and L_K, in nats.

    K is the largest of --importance-samples. The effective sample size of its weights is given too,
    and a standard error of L_K, a root mean square over images.

    Parameters
    ----------
    out
        A .npz (arrays elbo, iw_bound, …_standard_error, K, effective_sample_size) or .csv.
    """
    from bench.commands import apply, configuration

    apply.check_files(out, file)
    preset = configuration.preset_of(config)
    subject = _finished(config)
    images = apply.images_of(file, subject.data)
    k = max(preset.importance_samples)
    return _write(out, apply.likelihood(subject, images, preset.elbo_samples, k))


@app.command
def export_weights(out: Path, /, *, stage: str = "best", config: OfOne = ONE) -> int:
    """Write a model's weights as one safetensors file, with its configuration as metadata.

    `bench.weights.imported(path)` gives the model back, which takes images binarized as the file's
    metadata says; of a variant that is no file of vaes/ it needs that file, where it was or as its
    second argument.

    Parameters
    ----------
    out
        The file to write, e.g. model.safetensors.
    stage
        Of the training: initialisation, epoch_1, best, end.
    """
    from bench import weights
    from bench.machine.storage import write_atomically

    if not out.parent.is_dir():
        raise BenchError(f"the folder of {out} does not exist: make it first")
    write_atomically(out, weights.exported(_finished(config), stage))
    say(console, f"wrote {out}")
    return 0


def _finished(config: Finished) -> Subject:
    from bench.commands import apply

    given = listed(config.variants) if config.variants != Config.variants else [config.variant]
    if config.variant == Finished.variant and len(given) == 1:
        config = replace(config, variant=given[0])
    if config.variant not in given:
        raise BenchError(f"of '{config.variants}' one model is applied: name it with --variant")
    return apply.finished_run(replace(config, variants=config.variant), config.seed, console)


def _write(out: Path, arrays: dict) -> int:
    from bench.commands import apply

    apply.write(out, arrays)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    say(console, f"wrote {out}: {shapes}")
    return 0
