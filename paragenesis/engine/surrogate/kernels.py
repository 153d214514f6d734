"""Covariances of residuals: between crystals, and between levels of fidelity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paragenesis.crystals import FloatArray

NOISE_FLOOR = 1e-4  # smallest noise variance relative to the mean square residual; keeps the factorisation stable


@dataclass(frozen=True)
class Kernel:
    """A constant plus a Matern-5/2 covariance."""

    bias: float
    amplitude: float
    length_scales: FloatArray

    def diagonal(self, A: FloatArray) -> FloatArray:
        """The covariance of each point with itself, shape `n`."""
        return np.full(len(A), self.bias + self.amplitude)

    def __call__(self, A: FloatArray, B: FloatArray) -> FloatArray:
        """The covariances of the rows of A with those of B."""
        A, B = A / self.length_scales, B / self.length_scales
        square = (A**2).sum(1)[:, None] + (B**2).sum(1)[None, :] - 2.0 * (A @ B.T)
        scaled = np.sqrt(5.0 * np.maximum(square, 0.0))
        matern: FloatArray = (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)
        return self.bias + self.amplitude * matern


@dataclass(frozen=True)
class LevelKernel:
    """The covariance of residuals at several levels of fidelity; the last column of a point is its level.

    A lower level is the target times a slope plus a function of its own (Kennedy & O'Hagan, Biometrika 87, 1 (2000),
    eq. 1, with the target at the root of all levels):
    `k((x, f), (x', f')) = r_f r_f' common(x, x') + [f = f' > 0] own_f(x, x')`, and r_0 = 1.

    Attributes:
        common: What all levels share.
        slopes: The r of each level; 1 for level 0.
        own: What each level from 1 on has for itself.
    """

    common: Kernel
    slopes: FloatArray
    own: tuple[Kernel, ...]

    def diagonal(self, A: FloatArray) -> FloatArray:
        """The covariance of each point with itself, shape `n`."""
        levels = A[:, -1].astype(int)
        own = np.array([0.0, *(kernel.bias + kernel.amplitude for kernel in self.own)])
        variance: FloatArray = self.slopes[levels] ** 2 * self.common.diagonal(A) + own[levels]
        return variance

    def __call__(self, A: FloatArray, B: FloatArray) -> FloatArray:
        """The covariances of the rows of A with those of B."""
        f, g = A[:, -1].astype(int), B[:, -1].astype(int)
        A, B = A[:, :-1], B[:, :-1]
        covariance = self.common(A, B)
        if f.any() or g.any():
            covariance *= self.slopes[f][:, None] * self.slopes[g][None, :]
        for level, own in enumerate(self.own, start=1):
            rows, columns = np.flatnonzero(f == level), np.flatnonzero(g == level)
            if rows.size and columns.size:
                covariance[np.ix_(rows, columns)] += own(A[rows], B[columns])
        return covariance
