"""Gaussian processes of one objective's residuals, exact and variational.

The mean is zero, and a common bias has a variance of its own: with one verified crystal only part of its residual is
believed, and the doubt about the bias stays in the intervals. Prediction and leaving out are written out because both
need the same factorisation and 1e5 candidates at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.surrogate.botorch_fit import fit_exact
from paragenesis.engine.surrogate.inducing import inducing_points, spread_rows
from paragenesis.engine.surrogate.kernels import NOISE_FLOOR, Kernel, LevelKernel
from paragenesis.engine.surrogate.levels_fit import LevelFit, fit_levels, noise_variance
from paragenesis.engine.surrogate.settings import SurrogateSettings

_WRITTEN_OUT_FROM = 400  # crystals from which the fit with its gradient written out is the faster one
_FIT_ON = 1000  # crystals that hyper-parameters are fitted to, where not to all
_FOLDS = 10  # parts that are left out in turn where leaving out one by one would be dear
_ENTRIES = 2_000_000  # bounds a cross-covariance to 16 MB


class Process(Protocol):
    """A posterior of residuals at the target level.

    Attributes:
        n: Verified crystals of the target level.
        size: Their root mean square residual; that of all levels where the target has none.
        way: How crystals are left out, in a word.
        own_noise: The oracle's known standard deviations for the target's crystals, shape `n`; zeros where learnt.
    """

    n: int
    size: float
    own_noise: FloatArray
    way: str

    def predict(self, Z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Expected residuals and their predictive variances, shape `N` each, in the objective's unit."""
        ...

    def correlation(self, Z: FloatArray) -> FloatArray:
        """How the errors of `predict` go together, shape `N x N`, 1 on the diagonal.

        Beside what is not known of the function, a crystal's error holds its own scatter, which tells of no other.
        """
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
        own_noise: See `Process`.
        levels: 0 is the target.
        kernel: The covariance of the points.
    """

    X: FloatArray
    y: FloatArray
    noise: FloatArray
    new_noise: float
    size: float
    own_noise: FloatArray
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
    levels = np.unique(np.append(levels, 0), return_inverse=True)[1][:-1]  # without gaps, 0 stays the target
    target = levels == 0
    size = float(np.sqrt(((residuals[target] if target.any() else residuals) ** 2).mean()))
    if size == 0 and target.any():
        # a target without any error (a property that needs no potential) has nothing to learn from other levels
        Z, residuals, levels = Z[target], residuals[target], levels[target]
        noise, target = None if noise is None else noise[target], target[target]
    unit = size if size > 0 else 1.0
    known = None if noise is None else np.maximum((noise / unit) ** 2, NOISE_FLOOR)
    separate_from = settings.points_per_length_scale * Z.shape[1]
    exact = len(Z) <= settings.exact_up_to
    y, X = residuals / unit, Z
    kernel: Kernel | LevelKernel
    if len(Z) < min(_WRITTEN_OUT_FROM, settings.exact_up_to + 1) and target.all():
        kernel, learnt = fit_exact(Z, y, known, len(Z) >= separate_from)
        variance = np.full(len(y), learnt) if known is None else known
    else:
        y, rows = _centred(y, levels), _sample(levels)
        some = None if known is None else known[rows]
        judge = partial(_target_evidence, Z[rows], levels[rows], y[rows], some) if target.any() else None
        fit = fit_levels(Z[rows], levels[rows], y[rows], some, len(rows) >= separate_from, judge)
        kernel, learnt, variance = fit.kernel.common, float(fit.noise[0]), noise_variance(fit.noise, levels, known)
        if not target.all():
            kernel, X = fit.kernel, np.column_stack([Z, levels])
    own = np.zeros(target.sum()) if noise is None else noise[target]
    data = _Data(X, y, variance, learnt if known is None else 0.0, size, own, levels, kernel)
    return _Exact(data) if exact else _Variational(data, settings.inducing)


def _target_evidence(Z: FloatArray, levels: IntArray, y: FloatArray, known: FloatArray | None, fit: LevelFit) -> float:
    """Log density of the target's residuals, each given all others (Rasmussen & Williams 2006, eq. 5.11)."""
    target = levels == 0
    own = np.zeros(target.sum()) if known is None else np.sqrt(known[target])
    variance, new_noise = noise_variance(fit.noise, levels, known), float(fit.noise[0]) if known is None else 0.0
    data = _Data(np.column_stack([Z, levels]), y, variance, new_noise, 1.0, own, levels, fit.kernel)
    error, doubt = _Exact(data).left_out()
    doubt = doubt + own**2
    return float(-0.5 * (error**2 / doubt + np.log(doubt)).sum())


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
        self.n, self.size, self.own_noise, self._data = len(data.own_noise), data.size, data.own_noise, data
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

    def correlation(self, Z: FloatArray) -> FloatArray:
        """See `Process`."""
        data, points = self._data, self._data.at_target(Z)
        explained = solve_triangular(self._factor[0], data.kernel(data.X, points), lower=True, overwrite_b=True)
        return _correlation(data.kernel(points, points) - explained.T @ explained, data.new_noise)

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
        self.n, self.size, self.own_noise, self._data = len(data.own_noise), data.size, data.own_noise, data
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

    def correlation(self, Z: FloatArray) -> FloatArray:
        """See `Process`."""
        data, points = self._data, self._data.at_target(Z)
        A = self._features(points)
        learnt = solve_triangular(cho_factor(self._B, lower=True)[0], A, lower=True, check_finite=False)
        return _correlation(data.kernel(points, points) - A.T @ A + learnt.T @ learnt, data.new_noise)

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


def _correlation(covariance: FloatArray, scatter: float) -> FloatArray:
    """The correlations of sums of what is shared and of scatter of each one's own; 0 where nothing is uncertain."""
    std = np.sqrt(np.maximum(np.diag(covariance), 0.0) + scatter)
    inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
    correlation: FloatArray = np.clip(covariance * inverse[:, None] * inverse, -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation
