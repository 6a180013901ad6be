"""Weights as a safetensors file, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from subjects import subject

import vaes
from bench.errors import BenchError
from bench.weights import exported, imported
from vaes import discover, with_options


@pytest.mark.parametrize("variant", discover().variants)
def test_a_model_comes_back_as_it_was(variant, tmp_path):
    hyperparameters = (("scale", 0.25),) if variant == "fixed_variance" else ()
    changes = {"hidden_dim": (8, 6), "activation": "relu", "hyperparameters": hyperparameters}
    found = subject(variant, **changes)
    found = replace(found, variant=with_options(found.variant, "bernoulli", "mlp", "relu"))
    (tmp_path / "model.safetensors").write_bytes(exported(found, "best"))
    model = imported(tmp_path / "model.safetensors")
    assert not model.training
    x = found.data.test.float()
    assert torch.equal(model.encode(x), found.model().encode(x))
    assert torch.equal(model.decode(model.encode(x)), found.model().decode(model.encode(x)))
    assert repr(model) == repr(found.model())
    if variant == "fixed_variance":
        assert model.posterior(x).stddev.unique().item() == 0.25


def test_the_file_says_what_it_is(tmp_path):
    found = subject("input_dependent")
    found.trained.checkpoints["end"] = {
        name: value + 1 for name, value in found.trained.checkpoints["best"].items()
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(exported(found, "end"))
    with safe_open(path, "np") as file:
        told = {name: json.loads(value) for name, value in file.metadata().items()}
        for name, value in found.trained.checkpoints["end"].items():
            np.testing.assert_array_equal(file.get_tensor(name), value)
    assert (told["variant"], told["stage"]) == ("input_dependent", "end")
    assert (told["data_dim"], told["image_shape"]) == (24, [6, 4])
    assert told["binarization"] == "stochastic"
    assert told["torch"] == torch.__version__
    assert told["run"]["latent_dim"] == 3
    assert "commit" in told


def test_a_variant_from_elsewhere_is_read_from_its_file(tmp_path):
    source = Path(vaes.__file__).parent / "input_dependent.py"
    text = source.read_text(encoding="utf-8").replace("InputDependent", "Mine")
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    mine = discover(files=[tmp_path / "mine.py"]).variants["mine"]
    found = subject("input_dependent")
    found = replace(
        found,
        variant=mine,
        trained=replace(found.trained, run=found.run.with_(variant="mine")),
    )
    path = tmp_path / "model.safetensors"
    path.write_bytes(exported(found, "best"))
    x = found.data.test.float()
    assert torch.equal(imported(path).encode(x), found.model().encode(x))
    (tmp_path / "mine.py").rename(tmp_path / "elsewhere.py")
    with pytest.raises(BenchError, match="which is gone: name its file"):
        imported(path)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "elsewhere.py").rename(tmp_path / "elsewhere" / "mine.py")
    assert torch.equal(imported(path, moved).encode(x), found.model().encode(x))


def test_a_mistake_is_one_line(tmp_path):
    with pytest.raises(BenchError, match="unknown stage 'bst': did you mean 'best'"):
        exported(subject("flow"), "bst")
    path = tmp_path / "model.safetensors"
    for content in (None, b"", b"x" * 100):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BenchError, match="is no file of 'export-weights'"):
            imported(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(BenchError, match="is no file of 'export-weights'"):
        imported(path)
    found = subject("flow")
    path.write_bytes(exported(found, "best").replace(b'\\"flow\\"', b'\\"flaw\\"'))
    with pytest.raises(BenchError, match="unknown variant 'flaw': did you mean 'flow'"):
        imported(path)
