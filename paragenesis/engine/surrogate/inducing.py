"""Inducing points: the few crystals by whose residuals the others' are known best."""

from __future__ import annotations

import numpy as np

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.surrogate.kernels import Kernel, LevelKernel

_CANDIDATES = 10_000  # crystals among which inducing points are looked for; bounds time and memory
_LEAST = 1e-6  # share of the largest variance below which a further point would tell nothing


def spread_rows(n: int, k: int) -> IntArray:
    """Take k of n rows, all if there are fewer, in an order that has nothing to do with theirs; always the same."""
    rows: IntArray = np.random.default_rng(0).permutation(n)[: max(k, 0)]
    return rows


def inducing_points(kernel: Kernel | LevelKernel, X: FloatArray, levels: IntArray, m: int) -> FloatArray:
    """At most m points, by greedy conditional variance; fewer if they tell everything.

    With lower levels, half of the points describe the target level, wherever there is a crystal at any level; the
    other half the lower levels.

    Args:
        kernel: The covariance.
        X: Points, shape `n x d`, with the level in the last column if there are lower levels.
        levels: The levels again.
        m: How many.
    """
    if not levels.any():
        return _greedy(kernel, X, m)
    target = np.column_stack([X[:, :-1], np.zeros(len(X))])
    return np.vstack([_greedy(kernel, target, m - m // 2), _greedy(kernel, X[levels > 0], m // 2)])


def _greedy(kernel: Kernel | LevelKernel, X: FloatArray, m: int) -> FloatArray:
    """Points of largest variance given those before: a pivoted Cholesky factorisation.

    Burt, Rasmussen & van der Wilk, J. Mach. Learn. Res. 21, 131 (2020), section 4.2.1.
    """
    X = X[np.sort(spread_rows(len(X), _CANDIDATES))]
    m = min(m, len(X))
    left = kernel.diagonal(X)
    least = _LEAST * float(left.max())
    factor = np.empty((m, len(X)))
    chosen: list[int] = []
    for step in range(m):
        i = int(left.argmax())
        if left[i] <= least:
            break
        chosen.append(i)
        row = kernel(X[[i]], X)[0] - factor[:step, i] @ factor[:step]
        factor[step] = row / np.sqrt(left[i])
        left = np.maximum(left - factor[step] ** 2, 0.0)
        left[i] = 0.0
    return X[chosen]
