"""The unit of a table's columns: what is taken out of them before training, and put back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Unit:
    """Mean and standard deviation of each column of a table's training rows, `(D,)`, float64."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Unit:
        """The unit of rows `(N, …)` of D numbers each."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        return cls(flat.mean(0), flat.std(0))

    @property
    def log_scale(self) -> float:
        """Σ_d log s_d, nats: a log density in this unit is so much lower than that of the
        standardised values."""
        return float(np.log(self.scale).sum())

    def standardised(self, rows: np.ndarray) -> np.ndarray:
        """Rows `(N, …)` of this unit with its mean and scale taken out, float64."""
        return ((self._flat(rows) - self.mean) / self.scale).reshape(rows.shape)

    def original(self, rows: np.ndarray) -> np.ndarray:
        """Standardised rows `(N, …)` in this unit again, float64."""
        return (self._flat(rows) * self.scale + self.mean).reshape(rows.shape)

    def _flat(self, rows: np.ndarray) -> np.ndarray:
        return rows.reshape(len(rows), -1).astype(np.float64)
