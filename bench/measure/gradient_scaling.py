"""How the gradient's noise grows with the number of latents, by estimator.

Total variance of one example's gradient at S = 2 (the least every estimator admits), at
initialisation and after a short training.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.config import Preset, Run
from bench.data import as_float
from bench.gradient_noise import Cut
from bench.measure import Request, Result, Subject
from bench.measure.gradient_variance import cells_of, rows_of

VARIANT = "input_dependent"
LATENT_DIMS = (2, 5, 10, 20, 50)
STAGES = {"initialisation": "initialisation", "end": "trained"}
SAMPLES = 2


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """A short training for each L, of one variant and seed."""
    if run.variant != VARIANT or run.seed != 0:
        return
    amounts = (("images", preset.gradient_images), ("passes", preset.gradient_passes // 4))
    for latent_dim in LATENT_DIMS:
        yield Request(run.with_(latent_dim=latent_dim, steps=preset.scaling_steps), amounts)


def measure(subject: Subject, images: int, passes: int) -> Result:
    """Every estimator's total variance at this run's L before and after its training."""
    x = as_float(subject.data.test[:images])
    latent_dim, rows = subject.run.latent_dim, []
    for stage, name in STAGES.items():
        cut = Cut.of(subject.model(stage), x)
        cells = cells_of(subject, cut, stage, SAMPLES, passes)
        rows += rows_of(cells, {}, len(x), L=latent_dim, stage=name, S=SAMPLES)
    kept = ("total_variance", "variance_ratio")
    return Result([row for row in rows if row.metric in kept])
