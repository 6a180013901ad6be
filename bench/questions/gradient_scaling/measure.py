"""How the gradient's noise grows with the number of latents, by estimator.

The encoder's Monte Carlo variance at S = 2 (the least every estimator admits), at initialisation
and after a short training.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.config import REFERENCE, Preset, Run
from bench.grid.contract import Request, Result, Subject
from bench.inference.gradient_variance import PosteriorGradient
from bench.questions.gradient_noise.measure import (
    EVERY,
    amounts,
    cells_of,
    encoder_rows,
    training_images,
)
from bench.questions.gradient_scaling import LATENT_DIMS, STAGES

SAMPLES = 2


def requests(run: Run, preset: Preset) -> Iterator[Request]:
    """A short training for each L and seed, of one variant."""
    if run.variant != REFERENCE or run.seed >= preset.gradient_seeds:
        return
    settings = amounts(preset.gradient_images, preset.gradient_passes // 4)
    for latent_dim in LATENT_DIMS:
        short = run.apart(latent_dim=latent_dim, steps=preset.scaling_steps)
        yield Request(short, tuple(settings.items()))


def measure(
    subject: Subject, images: int, passes: int, estimators: tuple[str, ...] = EVERY
) -> Result:
    """Every estimator's variance at this run's L before and after its training."""
    x = training_images(subject, images)
    rows = []
    for stage, name in STAGES.items():
        gradient = PosteriorGradient.from_model(subject.model(stage), x)
        cells = cells_of(subject, gradient, stage, (SAMPLES,), passes, estimators)
        for (estimator, s), cell in cells.items():
            settings = {"L": subject.run.latent_dim, "stage": name, "S": s, "estimator": estimator}
            rows += encoder_rows(cell, settings)
    return Result([row for row in rows if row.metric == "total_variance"])
