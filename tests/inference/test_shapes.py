"""Signatures state shapes that are checked in tests, and the mathematics needs torch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import bench.inference
from bench.inference.elbo import elbo_terms
from bench.inference.importance import iw_bound
from bench.inference.reparameterize import standard_normal
from vaes import discover
from vaes.base import diagonal_gaussian


def test_what_would_broadcast_silently_is_refused():
    with pytest.raises(TypeCheckError):
        diagonal_gaussian(torch.zeros(5, 3), torch.ones(3))


def test_whole_numbers_are_no_log_weights():
    with pytest.raises(TypeCheckError):
        iw_bound(torch.ones(3, 5, dtype=torch.long))


def test_an_image_is_no_batch():
    model = discover().variants["input_dependent"](data_dim=6, latent_dim=2, hidden_dim=4)
    noise = standard_normal(6, 2, torch.Generator())
    with pytest.raises(TypeCheckError):
        elbo_terms(model, torch.ones(6), noise, samples=3)


TORCH_ALONE = """
import importlib.abc, importlib.metadata, pkgutil, re, sys



def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


needed, waiting = set(), ["torch"]
while waiting:
    name = normalised(waiting.pop())
    if name not in needed:
        needed.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [re.match(r"[\\w.-]+", r)[0] for r in requires if "extra ==" not in r]
owners = importlib.metadata.packages_distributions()


class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        of = owners.get(name.partition(".")[0], [])
        if of and needed.isdisjoint(map(normalised, of)):
            raise ModuleNotFoundError(f"{name} is not torch", name=name)


sys.meta_path.insert(0, Blocked())
import bench.inference

for module in pkgutil.iter_modules(bench.inference.__path__):
    importlib.import_module(f"bench.inference.{module.name}")
assert not {"numpy", "jaxtyping", "matplotlib", "pandas", "scipy"} & set(sys.modules)
"""


def test_the_mathematics_imports_torch_alone():
    root = Path(bench.inference.__file__).parents[2]
    command = [sys.executable, "-c", TORCH_ALONE]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
