"""How the gradient's noise grows with the number of latents, by estimator.

Total variance of one example's gradient at S = 2 (the least every estimator admits), at
initialisation and after a short training.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.config import REFERENCE, Preset, Run
from bench.data.binarization import as_float
from bench.grid.contract import Request, Result, Subject
from bench.inference.gradient_variance import PosteriorGradient
from bench.questions.gradient_noise.measure import EVERY, amounts, cells_of, rows_of
from bench.questions.gradient_scaling import LATENT_DIMS, STAGES

SAMPLES = 2


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """A short training for each L, of one variant and seed."""
    if run.variant != REFERENCE or run.seed != 0:
        return
    settings = amounts(preset.gradient_images, preset.gradient_passes // 4)
    for latent_dim in LATENT_DIMS:
        yield Request(run.with_(latent_dim=latent_dim, steps=preset.scaling_steps), settings)


def measure(
    subject: Subject, images: int, passes: int, estimators: tuple[str, ...] = EVERY
) -> Result:
    """Every estimator's total variance at this run's L before and after its training."""
    x = as_float(subject.data.test[:images])
    latent_dim, rows = subject.run.latent_dim, []
    for stage, name in STAGES.items():
        gradient = PosteriorGradient.from_model(subject.model(stage), x)
        cells = cells_of(subject, gradient, stage, SAMPLES, passes, estimators)
        rows += rows_of(cells, {}, len(x), L=latent_dim, stage=name, S=SAMPLES)
    kept = ("total_variance", "variance_ratio")
    return Result([row for row in rows if row.metric in kept])
