"""Peak memory of one action, in a process of its own, beyond what torch and the suite take.

A peak never falls, so every number needs a fresh process. What it has after its imports is the
baseline. On CUDA the allocator's peak is taken, which has no torch in it.
"""

from __future__ import annotations

import torch

from bench.config import REFERENCE, Run
from bench.data.dataset import Dataset
from bench.inference.gradient_variance import PosteriorGradient, total_variance
from bench.questions.headline.measure import REPEATED, iw_bounds
from bench.questions.throughput.fresh import peak_memory
from bench.randomness import generator
from bench.training.loop import build, train
from vaes import discover

PIXELS = 784
TRAINING_IMAGES, VALIDATION_IMAGES, STEPS = 1000, 200, 20


def training(device: str, pixels: int) -> None:
    """A short training of the reference with D = `pixels`: its steps, validation, checkpoints."""
    grey = (255 * torch.rand(TRAINING_IMAGES, pixels)).to(torch.uint8)
    binary = 255 * (grey[:VALIDATION_IMAGES] > 127).to(torch.uint8)
    data = Dataset("synthetic", grey, binary, binary, "stochastic", (1, pixels), "")
    train(_run(device).with_(steps=STEPS), discover().variants[REFERENCE], data.to(device))


def importance_bound(device: str, samples: int, images: int) -> None:
    """L_K with K = `samples` of so many images, as the headline measures it."""
    noise = generator(device, "memory")
    again = torch.arange(min(images, REPEATED))
    iw_bounds(_model(device, REFERENCE), _images(device, images), noise, (samples,), again)


def gradient_variance(
    device: str, samples: int, images: int, passes: int, variant: str = REFERENCE
) -> None:
    """tr Cov[g] of the pathwise gradient with S = `samples`, from so many decoder passes."""
    gradient = PosteriorGradient.from_model(_model(device, variant), _images(device, images))
    noise = generator(device, "memory")
    total_variance(gradient, "pathwise", samples, noise, 0.0, passes)


ACTIONS = {action.__name__: action for action in (training, importance_bound, gradient_variance)}


def peak_of(action: str, device: str, settings: dict[str, object]) -> dict[str, int]:
    """Meant for a fresh process: `base_bytes` before the action and `peak_bytes` after it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = 0 if device == "cuda" else peak_memory(device)
    ACTIONS[action](device, **settings)
    return {"base_bytes": base, "peak_bytes": peak_memory(device)}


def _run(device: str) -> Run:
    return Run(REFERENCE, "synthetic", 0, 1, device=device)


def _model(device: str, variant: str):
    mean = torch.full((PIXELS,), 0.13, device=device)
    return build(_run(device), discover().variants[variant], mean).eval()


def _images(device: str, count: int) -> torch.Tensor:
    return torch.bernoulli(torch.full((count, PIXELS), 0.13)).to(device)
