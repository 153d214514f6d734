"""Descriptors as coordinates: scaled so that distances mean the same whatever the descriptors are."""

from __future__ import annotations

import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.errors import InputError

_ENTRIES = 2_000_000  # bounds a table of distances to 16 MB


class FeatureSpace:
    """Standardised descriptors, if asked turned to their principal components, at root mean square distance 1."""

    def __init__(self, basis: FloatArray, dimensions: int | None = None, *, standardise: bool = True) -> None:
        """Fix the scales by the descriptors that matter, usually those of the whole pool.

        Args:
            basis: Shape `n x d`; columns that do not vary are left out of distances.
            dimensions: How many principal components to keep; all descriptors, unturned, if not given.
            standardise: Whether to bring every column to the same spread; not where their scales mean something.
        """
        d = basis.shape[1]
        self._centre = basis.mean(0) if len(basis) else np.zeros(d)
        deviation = basis.std(0) if len(basis) > 1 else np.ones(d)
        # a constant column says nothing; rounding may leave it a spurious spread
        self._constant = deviation <= 1e-9 * np.maximum(np.abs(self._centre), 1e-12)
        self._deviation = np.where(self._constant, 1.0, deviation) if standardise else np.ones(d)
        self._turn = np.eye(d)
        scaled = self._scale(basis)
        if dimensions is not None and dimensions < d and len(basis) > 1:
            self._turn = _principal_axes(scaled, dimensions)
        # twice the total variance is the mean square distance of two items
        total = 2.0 * float((scaled @ self._turn).var(0).sum()) if len(basis) > 1 else 1.0
        self._turn = self._turn / np.sqrt(total if total > 0 else 1.0)

    def __call__(self, X: FloatArray) -> FloatArray:
        """Coordinates of descriptors, `n x d` to `n x dimensions`.

        Raises:
            InputError: The number of descriptors is another than the basis had.
        """
        if X.shape[1] != len(self._centre):
            raise InputError(f"{len(self._centre)} descriptors were expected, but {X.shape[1]} were given")
        turned: FloatArray = self._scale(X) @ self._turn
        return turned

    def _scale(self, X: FloatArray) -> FloatArray:
        return np.where(self._constant, 0.0, (X - self._centre) / self._deviation)


def nearest_distance(A: FloatArray, B: FloatArray) -> FloatArray:
    """The distance of each row of A from the nearest row of B, infinite if there is none."""
    nearest = np.full(len(A), np.inf)
    norms = (B**2).sum(1)
    step = max(1, _ENTRIES // max(len(B), 1))
    for start in range(0, len(A) if len(B) else 0, step):
        rows = A[start : start + step]
        square = (rows**2).sum(1)[:, None] + norms - 2.0 * (rows @ B.T)
        nearest[start : start + step] = np.sqrt(np.maximum(square.min(1), 0.0))
    return nearest


def _principal_axes(scaled: FloatArray, dimensions: int) -> FloatArray:
    _, axes = np.linalg.eigh(scaled.T @ scaled)
    axes = axes[:, ::-1][:, :dimensions]
    # the sign of an eigenvector is arbitrary: fix it, for the same numbers everywhere
    largest = axes[np.abs(axes).argmax(0), np.arange(dimensions)]
    turned: FloatArray = axes * np.where(largest < 0, -1.0, 1.0)
    return turned


def feature_matrix(name: str, values: FloatArray, *, finite: bool = False) -> FloatArray:
    """The values as a float matrix.

    Raises:
        InputError: They have not two dimensions, or, where that is asked for, one of them is not finite.
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise InputError(f"{name} need two dimensions, crystals x columns, but the shape {matrix.shape} came")
    if finite and not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(f"{name} must be finite, but row {row}, column {column} is {matrix[row, column]}")
    return matrix
