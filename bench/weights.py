"""A finished model's weights as one safetensors file that says what they are, and back."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from bench.config import Run
from bench.data.dataset import in_its_unit, unit_of
from bench.data.unit import Unit
from bench.errors import BenchError, nearest, one_line
from bench.grid.contract import Subject
from bench.grid.environment import commit
from bench.training.loop import STAGES
from vaes import Autoencoder, discover, with_options


def exported(subject: Subject, stage: str) -> bytes:
    """A safetensors file of the weights of a stage; what they are is its metadata, in JSON.

    `variant`, `file` (of one that is not in `vaes/`), `stage`, `run` (every field of
    `bench.config.Run`), `data_dim`, `image_shape`, `binarization`, `unit` (of a table: `mean` and
    `scale` of its columns, which are standardised with them before they are encoded), `commit` and
    `torch`. Raises BenchError on an unknown stage.
    """
    if stage not in STAGES:
        raise nearest("stage", stage, STAGES)
    data, unit = subject.data, unit_of(subject.data)
    described = {
        "variant": subject.run.variant,
        "file": _file_of(subject),
        "stage": stage,
        "run": asdict(subject.run),
        "data_dim": data.test.shape[1],
        "image_shape": data.image_shape,
        "binarization": data.binarization,
        "unit": unit and {"mean": unit.mean.tolist(), "scale": unit.scale.tolist()},
        "commit": commit(),
        "torch": torch.__version__,
    }
    metadata = {name: json.dumps(value) for name, value in described.items()}
    return safetensors.torch.save(subject.trained.checkpoints[stage], metadata)


def _file_of(subject: Subject) -> str | None:
    name = subject.run.variant
    return None if name in discover().variants else inspect.getfile(subject.variant)


def imported(path: Path, file: Path | None = None) -> Autoencoder:
    """The model of a file that `exported` made, on the CPU and evaluating.

    Arguments:
        path: the safetensors file.
        file: of the variant, where it is not in `vaes/` nor where it was.

    It takes images binarized as the file's `binarization` says; one of a table takes standardised
    rows, and its log p(x|z) is in the table's own unit. Raises BenchError where it is none, or its
    variant is not here.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            told = {name: json.loads(value) for name, value in (stored.metadata() or {}).items()}
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        given = {f.name: _tuples(told["run"][f.name]) for f in fields(Run)}
        data_dim = told["data_dim"]
        unit = told.get("unit") and Unit(**{k: np.array(v) for k, v in told["unit"].items()})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BenchError(
            f"{path} is no file of 'export-weights' ({one_line(error)}): export it again"
        ) from None
    file = file or (told.get("file") and Path(told["file"]))
    if file and not Path(file).is_file():
        raise BenchError(f"the variant of {path} was in {file}, which is gone: name its file")
    run, variants = Run(**given), discover(files=[Path(file)] if file else []).variants
    if run.variant not in variants:
        raise nearest("variant", run.variant, variants)
    variant = with_options(variants[run.variant], **run.networks)
    model = in_its_unit(variant, unit)(
        data_dim, run.latent_dim, run.hidden_dim, **dict(run.hyperparameters)
    )
    model.load_state_dict(weights)
    return model.eval()


def _tuples(value: object) -> object:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
