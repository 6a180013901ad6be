"""The suite against a VAE written apart from it: `tests/independent_vae.py`, in plain PyTorch.

Both are trained on `digits` with several seeds, and both are asked about the same binary test
images, so that no difference comes from the draw of their pixels. What remains is chance between
seeds: the Welch interval of the difference of the mean test ELBOs covers 0 but for a probability of
1e-3, the chance of a false alarm where nothing is wrong. Seeds are fixed. Its half-width is about
0.2 nats, of 24.
"""

from __future__ import annotations

import ast
from pathlib import Path

import independent_vae
import pytest
import torch
from scipy import stats
from torch import Tensor

from bench.config import Run
from bench.data.binarization import as_float
from bench.data.dataset import Dataset, load
from bench.data.splits import SPLITS
from bench.grid.contract import Subject
from bench.questions.headline.measure import measure
from bench.training.loop import train
from vaes import discover

CONFIDENCE = 0.999
SEEDS = 5
EPOCHS, LATENT_DIM, HIDDEN_DIM = 40, 8, 100
SAMPLES = 100

Model = independent_vae.VAE


def agree(one: list[float], other: list[float]) -> bool:
    """Whether the Welch interval of the difference of means covers 0."""
    found = stats.ttest_ind(one, other, equal_var=False).confidence_interval(CONFIDENCE)
    return found.low <= 0 <= found.high


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def suite(data) -> list[float]:
    """The test ELBO of `input_dependent` by seed, as the headline table has it."""
    variant = discover().variants["input_dependent"]
    elbos = []
    for seed in range(SEEDS):
        run = Run("input_dependent", "digits", seed, EPOCHS, LATENT_DIM, HIDDEN_DIM)
        subject = Subject(train(run, variant, data), variant, data)
        rows = measure(subject, samples=SAMPLES, importance_samples=(1,)).rows
        elbos += [row.value for row in rows if row.metric == "elbo"]
    return elbos


def independent(data: Dataset, seeds: int) -> list[Model]:
    """The other's models by seed."""
    grey, valid = independent_vae.digits()[0], as_float(data.valid)
    return [
        independent_vae.train(grey, valid, seed, EPOCHS, LATENT_DIM, HIDDEN_DIM)
        for seed in range(seeds)
    ]


def elbos_of(models: list[Model], data: Dataset) -> list[float]:
    """Their test ELBOs."""
    test = as_float(data.test)
    return [independent_vae.mean_elbo(model, test, SAMPLES) for model in models]


def test_it_imports_nothing_of_ours():
    tree = ast.parse(Path(independent_vae.__file__).read_text(encoding="utf-8"))
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (getattr(node, "module", None), *(alias.name for alias in node.names))
        if name
    }
    assert "torch" in modules
    assert not modules & {"bench", "vaes"}


def test_both_split_the_same_images_alike():
    ours = load("digits", binarize="none")
    for split, theirs in zip(SPLITS, independent_vae.digits(), strict=True):
        assert torch.equal(as_float(getattr(ours, split)), theirs)


def test_both_reach_the_same_elbo(suite, data):
    assert agree(elbos_of(independent(data, SEEDS), data), suite)


def test_a_mistake_would_be_seen(suite, data, monkeypatch):
    """A scale taken for a variance in the KL of training: a nat worse, even with fewer seeds."""

    def wrong(mean: Tensor, log_scale: Tensor) -> Tensor:
        return 0.5 * (mean**2 + log_scale.exp() - 1 - log_scale).sum(-1)

    with monkeypatch.context() as patched:
        patched.setattr(independent_vae, "kl_to_prior", wrong)
        models = independent(data, seeds=4)
    assert not agree(elbos_of(models, data), suite)
