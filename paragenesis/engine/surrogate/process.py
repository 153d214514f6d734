"""Gaussian processes of one objective's residuals, exact and variational.

The mean is zero, and a common bias has a variance of its own: with one verified crystal only part of its residual is
believed, and the doubt about the bias stays in the intervals. Prediction and leaving out are written out because both
need the same factorisation and 1e5 candidates at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.surrogate.botorch_fit import fit_exact
from paragenesis.engine.surrogate.inducing import inducing_points, spread_rows
from paragenesis.engine.surrogate.kernels import NOISE_FLOOR, Kernel, LevelKernel
from paragenesis.engine.surrogate.levels_fit import fit_levels, noise_variance
from paragenesis.engine.surrogate.settings import SurrogateSettings

_FIT_ON = 1000  # crystals that hyper-parameters are fitted to, where not to all
_FOLDS = 10  # parts that are left out in turn where leaving out one by one would be dear
_ENTRIES = 2_000_000  # bounds a cross-covariance to 16 MB


class Process(Protocol):
    """A posterior of residuals at the target level.

    Attributes:
        n: Verified crystals of the target level.
        size: Their root mean square residual; that of all levels where the target has none.
        way: How crystals are left out, in a word.
    """

    n: int
    size: float
    way: str

    def predict(self, Z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Expected residuals and their predictive variances, shape `N` each, in the objective's unit."""
        ...

    def left_out(self) -> tuple[FloatArray, FloatArray]:
        """Error and predictive variance of the target's crystals, shape `n` each, without what taught of themselves.

        A crystal that is known at lower levels, too, is left out at all of them.
        """
        ...


@dataclass(frozen=True)
class _Data:
    """Residuals of one objective in units of their size, with noise and kernel known.

    Attributes:
        X: Points, shape `n x d`; with the level in a further column if there are lower ones.
        y: Residuals over `size`; those of lower levels moved to the mean of the target's.
        noise: Their noise variances over `size` squared.
        new_noise: That of a new crystal: what is learnt as noise is scatter between crystals and belongs to a new one;
            the oracle's own does not.
        size: See `Process`.
        levels: 0 is the target.
        kernel: The covariance of the points.
    """

    X: FloatArray
    y: FloatArray
    noise: FloatArray
    new_noise: float
    size: float
    levels: IntArray
    kernel: Kernel | LevelKernel

    def at_target(self, Z: FloatArray) -> FloatArray:
        """Points at the target level, as the kernel wants them."""
        return Z if self.X.shape[1] == Z.shape[1] else np.column_stack([Z, np.zeros(len(Z))])

    def twins(self) -> dict[int, IntArray]:
        """For crystals of the target level, the rows at lower levels with the same descriptors, if any."""
        if not self.levels.any():
            return {}
        _, group = np.unique(self.X[:, :-1], axis=0, return_inverse=True)
        lower = np.flatnonzero(self.levels)
        order = lower[np.argsort(group[lower], kind="stable")]
        target = np.flatnonzero(self.levels == 0)
        bounds = np.searchsorted(group[order], [group[target], group[target] + 1])
        return {int(i): order[a:b] for i, a, b in zip(target, *bounds, strict=True) if b > a}


def learn(
    Z: FloatArray, residuals: FloatArray, noise: FloatArray | None, levels: IntArray, settings: SurrogateSettings
) -> Process:
    """The process of one objective, exact or variational.

    Args:
        Z: Points, shape `n x d`, n at least 1.
        residuals: Oracle minus ensemble, shape `n`.
        noise: Known standard deviations of the oracle, shape `n`; learnt if not given.
        levels: Level of each, 0 for the target.
        settings: When to stop being exact, and with how many inducing points.
    """
    target = levels == 0
    size = float(np.sqrt(((residuals[target] if target.any() else residuals) ** 2).mean()))
    if size == 0:  # a target without any error (a property that needs no potential) has nothing to learn from others
        keep = target if target.any() else np.ones(len(Z), dtype=bool)
        Z, residuals, levels = Z[keep], residuals[keep], levels[keep]
        noise = None if noise is None else noise[keep]
    unit = size if size > 0 else 1.0
    known = None if noise is None else np.maximum((noise / unit) ** 2, NOISE_FLOOR)
    data = _data(Z, residuals / unit, known, np.unique(levels, return_inverse=True), size, settings)
    return _Exact(data) if len(data.y) <= settings.exact_up_to else _Variational(data, settings.inducing)


def _data(
    Z: FloatArray,
    y: FloatArray,
    known: FloatArray | None,
    found: tuple[IntArray, IntArray],
    size: float,
    settings: SurrogateSettings,
) -> _Data:
    """Fit the kernel and the noise."""
    names, levels = found
    levels = levels if names[0] == 0 else levels + 1  # the target is 0 even where it has no crystals
    exact = len(y) <= settings.exact_up_to
    rows = np.arange(len(y)) if exact and not levels.any() else _sample(levels)
    separate = len(rows) >= settings.points_per_length_scale * Z.shape[1]
    kernel: Kernel | LevelKernel
    if exact and not levels.any():
        kernel, learnt = fit_exact(Z, y, known, separate)
        noise, X = np.full(len(y), learnt) if known is None else known, Z
    else:
        y = _centred(y, levels)
        fit = fit_levels(Z[rows], levels[rows], y[rows], None if known is None else known[rows], separate)
        noise, learnt = noise_variance(fit.noise, levels, known), float(fit.noise[0])
        kernel = fit.kernel if levels.any() else fit.kernel.common
        X = np.column_stack([Z, levels]) if levels.any() else Z
    return _Data(X, y, noise, learnt if known is None else 0.0, size, levels, kernel)


def _centred(y: FloatArray, levels: IntArray) -> FloatArray:
    """Residuals with those of lower levels moved to the target's mean, so that an offset of any size does no harm."""
    if not (levels == 0).any():
        return y
    moved = y.copy()
    for level in range(1, int(levels.max()) + 1):
        moved[levels == level] += y[levels == 0].mean() - y[levels == level].mean()
    return moved


def _sample(levels: IntArray) -> IntArray:
    """Rows that hyper-parameters are fitted to: half of them of the target level, if it has so many."""
    target, lower = np.flatnonzero(levels == 0), np.flatnonzero(levels)
    share = min(len(target), max(_FIT_ON // 2, _FIT_ON - len(lower)))
    rows = [target[spread_rows(len(target), share)], lower[spread_rows(len(lower), _FIT_ON - share)]]
    return np.sort(np.concatenate(rows))


class _Exact:
    """The posterior given all crystals."""

    way = "leave-one-out"

    def __init__(self, data: _Data) -> None:
        self.n, self.size, self._data = int((data.levels == 0).sum()), data.size, data
        self._factor = cho_factor(data.kernel(data.X, data.X) + np.diag(data.noise), lower=True)
        self._weights = cho_solve(self._factor, data.y)

    def predict(self, Z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `Process`."""
        data, points = self._data, self._data.at_target(Z)
        mean, variance = np.empty(len(Z)), np.empty(len(Z))
        step = max(1, _ENTRIES // len(data.y))
        for start in range(0, len(Z), step):
            rows = slice(start, start + step)
            cross = data.kernel(points[rows], data.X)
            mean[rows] = cross @ self._weights
            explained = solve_triangular(self._factor[0], cross.T, lower=True, overwrite_b=False)
            variance[rows] = data.kernel.diagonal(points[rows]) - (explained**2).sum(0)
        variance = np.maximum(variance, 0.0) + data.new_noise
        return mean * data.size, variance * data.size**2

    def left_out(self) -> tuple[FloatArray, FloatArray]:
        """Each crystal from the others (Rasmussen & Williams 2006, eq. 5.12; in blocks where it has twins)."""
        data = self._data
        inverse = cho_solve(self._factor, np.eye(len(data.y)))
        error, variance = self._weights / np.diag(inverse), 1.0 / np.diag(inverse)
        for i, twins in data.twins().items():
            block = np.array([i, *twins])
            joint = np.linalg.inv(inverse[np.ix_(block, block)])
            error[i], variance[i] = joint[0] @ self._weights[block], joint[0, 0]
        variance = np.maximum(variance - data.noise, 0.0) + data.new_noise
        rows = np.flatnonzero(data.levels == 0)
        return error[rows] * data.size, variance[rows] * data.size**2


class _Variational:
    """The best Gaussian posterior that remembers m inducing points only.

    Titsias (AISTATS 2009), eq. 10, with noise variances of their own. With `L L^T = K_mm`, features of a point
    `a(x) = L^-1 k_m(x)`, all of them as columns of A, and noise variances in D, `B = I + A D^-1 A^T`: the mean is
    `a(x)^T B^-1 A D^-1 y` and the variance `k(x, x) - a(x)^T a(x) + a(x)^T B^-1 a(x)`. Time goes with `n m^2`, memory
    with `n` and `m^2`. Hyper-parameters come from the exact marginal likelihood of a part of the crystals: the bound
    itself takes for noise what m points cannot follow.
    """

    way = "left-out"

    def __init__(self, data: _Data, m: int) -> None:
        self.n, self.size, self._data = int((data.levels == 0).sum()), data.size, data
        self._points = inducing_points(data.kernel, data.X, data.levels, m)
        K = data.kernel(self._points, self._points)
        K[np.diag_indices(len(K))] += 1e-8 * data.kernel.diagonal(self._points).mean()
        self._root = cho_factor(K, lower=True)[0]
        self._B, self._b = self._evidence(np.arange(len(data.y)))
        self._B[np.diag_indices(len(K))] += 1.0

    def _features(self, X: FloatArray) -> FloatArray:
        """The features of points, shape `m x n`."""
        cross = self._data.kernel(self._points, X)
        features: FloatArray = solve_triangular(self._root, cross, lower=True, overwrite_b=True, check_finite=False)
        return features

    def _evidence(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """`A D^-1 A^T` and `A D^-1 y` of some crystals."""
        m, data = len(self._points), self._data
        B, b = np.zeros((m, m)), np.zeros(m)
        step = max(1, _ENTRIES // m)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            A = self._features(data.X[part]) / np.sqrt(data.noise[part])
            B += A @ A.T
            b += A @ (data.y[part] / np.sqrt(data.noise[part]))
        return B, b

    def predict(self, Z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `Process`."""
        return self._predict(self._data.at_target(Z), self._B, self._b)

    def _predict(self, X: FloatArray, B: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        data = self._data
        mean, variance = np.empty(len(X)), np.empty(len(X))
        root = cho_factor(B, lower=True)
        weights = cho_solve(root, b)
        step = max(1, _ENTRIES // len(b))
        for start in range(0, len(X), step):
            rows = slice(start, start + step)
            A = self._features(X[rows])
            mean[rows] = weights @ A
            variance[rows] = data.kernel.diagonal(X[rows]) - (A**2).sum(0)
            variance[rows] += (solve_triangular(root[0], A, lower=True, check_finite=False) ** 2).sum(0)
        variance = np.maximum(variance, 0.0) + data.new_noise
        return mean * data.size, variance * data.size**2

    def left_out(self) -> tuple[FloatArray, FloatArray]:
        """Parts of the target's crystals from the rest, part by part (CV+: Barber et al. 2021, section 1.3).

        What a part taught is taken out of B and b; hyper-parameters and inducing points stay, as in leave-one-out.
        """
        data = self._data
        rows = np.flatnonzero(data.levels == 0)
        twins = data.twins()
        error, variance = np.empty(len(rows)), np.empty(len(rows))
        for part in np.array_split(spread_rows(len(rows), len(rows)), min(_FOLDS, len(rows))):
            lost = np.concatenate([rows[part], *(twins[i] for i in rows[part].tolist() if i in twins)])
            B, b = self._evidence(np.unique(lost))
            mean, variance[part] = self._predict(data.X[rows[part]], self._B - B, self._b - b)
            error[part] = data.y[rows[part]] * data.size - mean
        return error, variance
