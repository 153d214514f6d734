"""Hyper-parameters of a process with levels of fidelity, or from many crystals, a thousand at most.

The objective is that of `botorch_fit`, the log marginal likelihood plus log-normal priors, with its gradient written
out: at a thousand crystals that is several times faster than automatic differentiation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.surrogate.kernels import NOISE_FLOOR, Kernel, LevelKernel

_LOG = logging.getLogger(__name__)
_SMALLEST_SCALE = 1e-2
_OUT_OF_REACH = 1e10  # beyond any value per crystal
_WIDEST = 8.0  # how far a logarithm may lie above its expected value
_SLOPE_SPREAD = 0.5  # standard deviation of a lower level's slope around 1
_STEPS = 100
_TRIAL = 25  # steps from each start before the best is followed


@dataclass(frozen=True)
class LevelFit:
    """A kernel with the noise variance of each level.

    Attributes:
        kernel: The covariance of points with their level in the last column.
        noise: Learnt noise variance per level, to be added to what is known; NaN at level 0 if it is known there.
    """

    kernel: LevelKernel
    noise: FloatArray


def fit_levels(
    Z: FloatArray,
    levels: IntArray,
    y: FloatArray,
    known: FloatArray | None,
    separate: bool,
    judge: Callable[[LevelFit], float] | None = None,
) -> LevelFit:
    """Maximum a posteriori hyper-parameters.

    With lower levels there are several maxima, and the highest one may explain a wealth of cheap data well and the
    target badly. The search follows the one that the judge likes best.

    Args:
        Z: Points, shape `n x d`.
        levels: Their levels, 0 to L without gaps from 1 on, shape `n`.
        y: Residuals in units of their root mean square at level 0.
        known: Noise variances in the same unit; learnt if not given. That of lower levels is learnt in any case.
        separate: Whether each component gets its own length scale.
        judge: How well a fit predicts the target, larger is better; without, lower levels are believed to be like it.
    """
    order = np.argsort(levels, kind="stable")
    known = None if known is None else known[order]
    posterior = _Posterior(Z[order], levels[order], y[order], known, separate)
    starts = posterior.starts()
    if judge is not None and len(starts) > 1:
        trials = [_search(posterior, start, _TRIAL).x for start in starts]
        starts = [max(trials, key=lambda trial: judge(posterior.read(trial)))]
    result = _search(posterior, starts[0], _STEPS)
    _LOG.debug("hyper-parameters from %d crystals: %s", len(y), result.message)
    return posterior.read(result.x)


def _search(posterior: _Posterior, start: FloatArray, steps: int) -> Any:
    return minimize(posterior, start, jac=True, method="L-BFGS-B", bounds=posterior.bounds, options={"maxiter": steps})


class _Posterior:
    """The negative logarithm of the posterior of the hyper-parameters, per crystal, and its gradient.

    Parameters are logarithms, except slopes: bias, amplitude, length scales, noise; then for each lower level slope,
    bias, amplitude, length scales, noise. The logarithm of a log-normal density at x is `-t - (t - m)^2 / 2 s^2` with
    t = log x, up to a constant; lower levels have m in units of their own variance.
    """

    def __init__(self, Z: FloatArray, levels: IntArray, y: FloatArray, known: FloatArray | None, separate: bool):
        self._Z, self._levels, self._y, self._known = Z, levels, y, known
        self._L, self._d = int(levels.max()), Z.shape[1]
        self._scales = self._d if separate else 1
        self._blocks = [slice(*np.searchsorted(levels, [f, f + 1])) for f in range(self._L + 1)]
        # m, s, start and lower bound of each parameter
        rows = [(-1.0, 1.0, np.log(0.4), -12.0)] * 2
        rows += [(-0.7, 0.7, np.log(0.5), np.log(_SMALLEST_SCALE))] * self._scales
        rows += [(-2.5, 1.0, np.log(0.1), np.log(NOISE_FLOOR))]
        self._slopes = []
        for block in self._blocks[1:]:
            size = np.log(_own_size(y[block]))
            self._slopes.append(len(rows))
            rows += [(1.0, _SLOPE_SPREAD, 1.0, -20.0), (size - 1.0, 1.0, size - 1.0, size - 12.0)]
            rows += [(size - 2.5, 1.0, size - 1.5, size - 12.0)]
            rows += [(-0.7, 0.7, np.log(0.5), np.log(_SMALLEST_SCALE))] * self._scales
            rows += [(size - 2.5, 1.5, size - 2.0, size + np.log(NOISE_FLOOR))]
        self._mean, self._spread, self._start, lower = np.array(rows, dtype=np.float64).T
        self.bounds = list(zip(lower, self._mean + _WIDEST, strict=True))
        self._is_log = np.ones(len(rows))
        self._is_log[self._slopes] = 0.0
        if known is not None:
            self._spread[2 + self._scales] = np.inf  # this noise is no parameter then
            self._is_log[2 + self._scales] = 0.0

    def starts(self) -> list[FloatArray]:
        """Where to search from: lower levels are just like the target, half, nothing like it, or noise."""
        if not self._slopes:
            return [self._start]
        starts = [self._start.copy() for _ in range(4)]
        for at in self._slopes:
            noise = at + 3 + self._scales
            starts[0][[at + 2, noise]] -= 3.0
            starts[2][at], starts[2][at + 2] = 0.05, self._start[at + 2] + 1.5
            starts[3][at], starts[3][at + 2], starts[3][noise] = (
                0.05,
                self._start[at + 2] - 3.0,
                self._start[noise] + 2.0,
            )
        return starts

    def read(self, parameters: FloatArray) -> LevelFit:
        """Kernel and noise of a vector of parameters."""
        s = self._scales
        bias, amplitude = np.exp(parameters[:2]).tolist()
        common = Kernel(bias, amplitude, np.exp(parameters[2 : 2 + s]))
        noise = [np.nan if self._known is not None else np.exp(parameters[2 + s])]
        slopes, own = [1.0], []
        for at in self._slopes:
            bias, amplitude = np.exp(parameters[at + 1 : at + 3]).tolist()
            slopes.append(parameters[at])
            own.append(Kernel(bias, amplitude, np.exp(parameters[at + 3 : at + 3 + s])))
            noise.append(np.exp(parameters[at + 3 + s]))
        return LevelFit(LevelKernel(common, np.array(slopes), tuple(own)), np.array(noise))

    def __call__(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        """Value and gradient (Rasmussen & Williams 2006, eqs. 5.8 and 5.9)."""
        fit, n = self.read(parameters), len(self._y)
        slope = fit.kernel.slopes[self._levels]
        shared, matern, fall = _terms(fit.kernel.common, self._Z)
        K = slope[:, None] * slope[None, :] * shared
        own = []
        for block, kernel in zip(self._blocks[1:], fit.kernel.own, strict=True):
            own.append(_terms(kernel, self._Z[block]))
            K[block, block] += own[-1][0]
        K[np.diag_indices(n)] += noise_variance(fit.noise, self._levels, self._known)
        try:
            factor = cho_factor(K, lower=True, overwrite_a=True)
        except LinAlgError:  # so large beside the noise that rounding tells: the line search turns back
            return _OUT_OF_REACH, np.zeros_like(parameters)
        weights = cho_solve(factor, self._y)
        value = -0.5 * float(self._y @ weights) - float(np.log(np.diag(factor[0])).sum())
        inverse = np.tril(dpotri(factor[0], lower=1)[0])
        # the derivative of the likelihood by the covariance matrix
        W = 0.5 * (np.outer(weights, weights) - inverse - np.tril(inverse, -1).T)
        diagonal = np.diag(W)
        W_shared = W * (slope[:, None] * slope[None, :])
        gradient = np.zeros_like(parameters)
        s = self._scales
        gradient[: 2 + s] = _by_kernel(fit.kernel.common, W_shared, self._Z, matern, fall)
        if self._known is None:
            gradient[2 + s] = fit.noise[0] * diagonal[self._blocks[0]].sum()
        for f, at in enumerate(self._slopes, start=1):
            block = self._blocks[f]
            gradient[at] = 2.0 * float(((W[block] * shared[block]) @ slope).sum())
            gradient[at + 1 : at + 3 + s] = _by_kernel(
                fit.kernel.own[f - 1], W[block, block], self._Z[block], *own[f - 1][1:]
            )
            gradient[at + 3 + s] = fit.noise[f] * diagonal[block].sum()
        away = (parameters - self._mean) / self._spread
        value += float((-self._is_log * parameters - 0.5 * away**2).sum())
        gradient += -self._is_log - away / self._spread
        return -value / n, -gradient / n


def noise_variance(noise: FloatArray, levels: IntArray, known: FloatArray | None) -> FloatArray:
    """The noise variance of each crystal: what is known plus what is learnt of its level."""
    if known is None:
        return noise[levels]
    learnt = np.where(np.isnan(noise), 0.0, noise)
    return known + learnt[levels]


def _own_size(y: FloatArray) -> float:
    """The variance of a lower level's residuals, in which its own hyper-parameters are expected."""
    variance = float(y.var())
    return max(variance, 1e-2) if variance > 0 else 1.0


def _terms(kernel: Kernel, Z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Covariances; the Matern-5/2 correlation; minus its derivative by the logarithm of distance, per squared one."""
    scaled_Z = Z / kernel.length_scales
    square = (scaled_Z**2).sum(1)
    distance = square[:, None] + square[None, :] - 2.0 * (scaled_Z @ scaled_Z.T)
    scaled = np.sqrt(5.0 * np.maximum(distance, 0.0))
    decay = np.exp(-scaled)
    matern = (1.0 + scaled + scaled**2 / 3.0) * decay
    return kernel.bias + kernel.amplitude * matern, matern, (5.0 / 3.0) * (1.0 + scaled) * decay


def _by_kernel(kernel: Kernel, W: FloatArray, Z: FloatArray, matern: FloatArray, fall: FloatArray) -> FloatArray:
    """Derivatives by the logarithms of bias, amplitude and length scales, given that by the covariances."""
    scaled = Z / kernel.length_scales
    G = W * fall
    by_scale = 2.0 * kernel.amplitude * ((scaled**2 * G.sum(1)[:, None]).sum(0) - (scaled * (G @ scaled)).sum(0))
    if len(kernel.length_scales) == 1:
        by_scale = by_scale.sum(keepdims=True)
    return np.array([kernel.bias * W.sum(), kernel.amplitude * (W * matern).sum(), *by_scale])
