"""A finished model applied: codes and likelihoods of a file of images, and samples."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from torch import Tensor

from bench.commands import arguments, configuration, contestants
from bench.data.binarization import as_float, binarized_splits, is_binary
from bench.data.dataset import Dataset, unit_of
from bench.data.own import as_bytes, existing, read_images
from bench.errors import BenchError
from bench.grid.contract import Subject
from bench.grid.survey import Survey
from bench.inference import codes as of_codes
from bench.inference.elbo import chunks, mean_elbo
from bench.inference.importance import passes_at_once
from bench.inference.observations import observations
from bench.inference.reparameterize import prior_sample
from bench.machine.storage import write_atomically
from bench.options import Config
from bench.questions.headline.measure import REPEATED, iw_bounds
from bench.report.rows import csv
from vaes import VAE

SUFFIXES = (".npz", ".csv")


def finished_run(config: Config, seed: int, console: Console) -> Subject:
    """The headline run that `run` makes of these options, for their one variant and a seed.

    Raises BenchError where the cache does not have it.
    """
    configuration.check(config)
    variants = contestants.variants_named(config.variants, console)
    data = configuration.data_of(config)
    device, *more = configuration.devices_of(config.device)
    if more or len(variants) > 1:
        raise BenchError("one model is applied: name one variant and one device")
    grid = configuration.grid(config, data, variants, (), device)
    preset_seeds = configuration.preset_of(config).seeds
    grid = replace(grid, seeds=max(grid.seeds, seed + 1))
    found = Survey(grid, data).subject(variants[0], seed)
    if found is None:
        seeds = None if seed < preset_seeds else seed + 1
        again = arguments.command(replace(config, variants=variants[0], seeds=seeds), device)
        raise BenchError(
            f"no finished run of '{variants[0]}', seed {seed}, with these options (preset "
            f"'{config.preset}') is in {grid.cache}: make it with '{again}'"
        )
    # posteriors that are no map of given noise sample by torch's global generator
    torch.manual_seed(found.generator("own samples").initial_seed())
    return found


# --- images in, arrays out -------------------------------------------------------------------


def images_of(path: Path, data: Dataset) -> Tensor:
    """Images `(N, D)` of a file, float32, as a model of these data takes them, on their device.

    Whatever own data may be, of one array: bytes or values from 0 to 1; of a table rows in its
    own unit, which are standardised as the training rows were; of other real data numbers as they
    are. Binarized as the data's own test images were, so that their grey originals become the
    same images. Raises BenchError on a file that is no such thing.
    """
    images = read_images(str(path))
    what = f"the array of {path}"
    images = images.reshape(len(images), -1)
    if images.shape[1] != data.test.shape[1]:
        raise BenchError(
            f"{what} has images of {images.shape[1]} pixels, and those of '{data.name}' have "
            f"{data.test.shape[1]}: give images of the data that the model was trained on"
        )
    if data.binarization == "real":
        unit = unit_of(data)
        images = images if unit is None else unit.standardised(images)
        return torch.tensor(images, dtype=torch.float32, device=data.test.device)
    grey = as_bytes(what, images)
    if data.binarization == "binary" and not is_binary(grey):
        raise BenchError(f"{what} is grey, and the images of '{data.name}' are binary: binarize it")
    if data.binarization == "none" or is_binary(grey):
        return as_float(torch.tensor(grey)).to(data.test.device)
    splits = {"train": data.train, "valid": data.valid.cpu(), "test": torch.tensor(grey)}
    return as_float(binarized_splits(splits, data.binarization)["test"]).to(data.test.device)


def check_files(out: Path, images: Path | None = None) -> None:
    """Raises BenchError where there is no file of images, or `write` could not write."""
    if images is not None:
        existing(str(images))
    if out.suffix not in SUFFIXES:
        raise BenchError(f"--out {out} must end in {' or '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise BenchError(f"the folder of --out {out} does not exist: make it first")


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays with an entry an image, `(N, …)`, as `.npz`; or as `.csv`, a line an image and a
    column a number, `name` or `name_0`, `name_1`, …"""
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(path, buffer.getvalue())
        return
    columns = {}
    for name, array in arrays.items():
        flat = array.reshape(len(array), -1)
        several = {f"{name}_{place}": flat[:, place] for place in range(flat.shape[1])}
        columns |= several if array.ndim > 1 else {name: array}
    table = pd.DataFrame(columns)
    write_atomically(path, csv(table.rename_axis("image").reset_index()))


# --- what is computed ------------------------------------------------------------------------


@torch.no_grad()
def codes(subject: Subject, images: Tensor) -> dict[str, np.ndarray]:
    """Of images `(N, D)` the posterior's `mean` and `standard_deviation`, `(N, L)` each.

    Those of samples where torch knows no moments; an autoencoder has its code, `mean`, alone.
    """
    model = subject.model()
    found = {"mean": of_codes.codes(model, images, subject.generator("codes"))}
    if isinstance(model, VAE):
        parts = [_deviation(model, x, subject) for x in chunks(images, of_codes.AT_ONCE)]
        found["standard_deviation"] = torch.cat(parts)
    return {name: values.cpu().numpy() for name, values in found.items()}


def _deviation(model: VAE, x: Tensor, subject: Subject) -> Tensor:
    try:
        return model.posterior(x).stddev
    except NotImplementedError:
        covariances = of_codes.covariances(model, x, subject.generator("codes"))
        return covariances.diagonal(dim1=-2, dim2=-1).sqrt()


@torch.no_grad()
def samples(subject: Subject, count: int, seed: int) -> dict[str, np.ndarray]:
    """`count` images drawn from the prior: `mean` of each pixel given the code, and `draws`.

    `(N, H, W)`; the mean of a binary pixel is the probability that it is white. Rows of a table are
    in its own unit.
    Raises BenchError for an autoencoder, which has no prior, and for a variant with a likelihood of
    its own.
    """
    model = _vae(subject, "samples")
    draws = subject.generator("samples", seed)
    z = prior_sample(model, count, draws)
    mean, drawn = observations(model, z, draws)
    found = {"mean": mean, "draws": drawn}
    shape, unit = subject.data.image_shape, unit_of(subject.data)
    arrays = {name: values.unflatten(-1, shape).cpu().numpy() for name, values in found.items()}
    return arrays if unit is None else {name: unit.original(a) for name, a in arrays.items()}


def likelihood(subject: Subject, images: Tensor, count: int, k: int) -> dict[str, np.ndarray]:
    """Of images `(N, D)` the ELBO from `count` samples, its standard error, and L_K, in nats.

    The error of L_K is the same for all: a root mean square over some of them. With the noise of
    the headline: of the test images, means are the headline's numbers. Raises BenchError for an
    autoencoder, which has no likelihood of images.
    """
    model = _vae(subject, "likelihood")
    at_once = max(1, passes_at_once(images.device) // count)
    noise = subject.generator("test noise")
    elbo, error = mean_elbo(model, images, noise, count, at_once)["elbo"]
    order = subject.generator("images repeated")
    again = torch.randperm(len(images), generator=order, device=images.device)[:REPEATED]
    bounds, _ = iw_bounds(model, images, subject.generator("importance noise"), (k,), again)
    bound, its_error, size = bounds[k]
    return {
        "elbo": elbo.numpy(),
        "elbo_standard_error": error.numpy(),
        "iw_bound": bound.numpy(),
        "iw_bound_standard_error": its_error.numpy(),
        "K": np.full(len(images), k),
        "effective_sample_size": size.numpy(),
    }


def _vae(subject: Subject, what: str) -> VAE:
    model = subject.model()
    if isinstance(model, VAE):
        return model
    raise BenchError(f"variant '{subject.run.variant}' has no posterior and no {what}: name a VAE")
