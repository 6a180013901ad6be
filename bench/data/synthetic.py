"""Real-valued data of a known density: draws of a probabilistic PCA model (Tipping & Bishop 1999).

x = mean + W z + NOISE ε with z ~ N(0, I) and ε ~ N(0, I), so that p(x) is a Gaussian.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

DATA_DIM = 20
COLUMN_NORMS = (1.5, 0.9, 0.6, 0.45)
NOISE = 0.3
"""The columns of W are orthogonal; posterior scales run from 0.2 to 0.55."""
SEED = 19990301


def generating_model() -> LowRankMultivariateNormal:
    """The p(x) that the data set `ppca` is drawn from; event shape `(D,)`, float64."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (DATA_DIM, len(COLUMN_NORMS))
    directions, _ = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    weight = directions * torch.tensor(COLUMN_NORMS, dtype=torch.float64)
    mean = 0.3 * torch.randn(DATA_DIM, generator=generator, dtype=torch.float64)
    return LowRankMultivariateNormal(mean, weight, torch.full_like(mean, NOISE**2))


def draw_images(count: int) -> Tensor:
    """The draws that the data set is made of, `(count, D)` in float64, the same each time."""
    model, generator = generating_model(), torch.Generator().manual_seed(SEED + 1)
    numbers = torch.randn(
        (count, DATA_DIM + len(COLUMN_NORMS)), generator=generator, dtype=torch.float64
    )
    noise, z = numbers[:, :DATA_DIM], numbers[:, DATA_DIM:]
    return model.loc + z @ model.cov_factor.T + noise * model.cov_diag.sqrt()
