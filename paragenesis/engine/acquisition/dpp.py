"""Diverse batches: greedy maximum a posteriori inference in a determinantal point process (DPP)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.errors import InputError

Floats = npt.NDArray[np.floating[Any]]
Quality = Callable[[IntArray], FloatArray]

# Added to the diagonal of the similarity matrix: the squared share of an item that is its own. It keeps the matrix
# regular, so that a duplicate is a very poor pick rather than an impossible one.
NUGGET = 1e-6


def greedy_map_dpp(
    features: FloatArray,
    quality: FloatArray | Quality,
    k: int,
    given: FloatArray | None = None,
    length_scale: float = 1.0,
    weight: float = 1.0,
) -> tuple[IntArray, FloatArray]:
    """Pick k items of high quality that are unlike each other and unlike those given.

    The DPP has the kernel `L_ij = q_i (exp(-|x_i - x_j|^2 / 2 l^2) + NUGGET [i = j]) q_j`, conditioned on the given
    items. Greedy MAP by an incremental Cholesky factorisation (Chen, Zhang, Zhou, NeurIPS 2018): O(N k (D + k)) time
    and O(N (k + g)) memory; rows of the kernel are made one at a time, when their item is picked.

    Args:
        features: Shape `N x D`; the similarity is a Gaussian of their distance. float32 halves the memory.
        quality: Non-negative numbers, shape `N`; a quality of zero is never picked. Or a function that gives them anew
            before each pick, from the items picked so far.
        k: How many to pick; fewer come if fewer have a quality above zero.
        given: Features of items that are already chosen, labelled or pending, shape `g x D`.
        length_scale: The distance at which the similarity is exp(-1/2).
        weight: Exponent on the determinant of the similarities, against the product of the squared qualities; 1 is
            the plain DPP, 0 takes the best qualities.

    Returns:
        Indices in the order of picking, and the gain of each in the logarithm of `prod q_i^2 det(S)^weight`. Of equal
        items the first is picked.

    Raises:
        InputError: Shapes disagree, a feature or quality is not finite, a quality is negative, or k is negative.
    """
    X, fixed = _checked(features, given, k, length_scale, weight)
    qualities = quality if callable(quality) else lambda _: quality
    k = min(k, len(X))
    items = np.concatenate([fixed, X])
    if k > 0:
        # distances are differences of large numbers: take them around the centre
        items -= items.mean(0, dtype=np.float64).astype(X.dtype)
    items /= X.dtype.type(length_scale)
    factor = _Cholesky(items, len(fixed) + k)
    for item in range(len(fixed)):
        factor.condition(item)
    picked: list[int] = []
    gains: list[float] = []
    while len(picked) < k:
        total = _log_squared(qualities(np.array(picked, dtype=np.int64)), len(X))
        total += weight * np.log(factor.left[len(fixed) :])
        total[picked] = -np.inf
        best = int(np.argmax(total))
        if total[best] == -np.inf:
            break
        picked.append(best)
        gains.append(float(total[best]))
        factor.condition(len(fixed) + best)
    return np.array(picked, dtype=np.int64), np.array(gains)


def log_determinant(features: FloatArray, length_scale: float = 1.0) -> float:
    """How diverse a set is: log det of its similarity matrix (see `greedy_map_dpp`), 0 at best."""
    X = np.asarray(features, dtype=np.float64) / length_scale
    square = ((X[:, None, :] - X[None, :, :]) ** 2).sum(-1)
    return float(np.linalg.slogdet(np.exp(-0.5 * square) + NUGGET * np.eye(len(X)))[1])


def _checked(
    features: FloatArray, given: FloatArray | None, k: int, length_scale: float, weight: float
) -> tuple[Floats, Floats]:
    """The features of pool and given items, in one precision."""
    X = np.asarray(features)
    X = X if X.dtype == np.float32 else X.astype(np.float64)
    if X.ndim != 2 or not np.isfinite(X).all():
        raise InputError(f"a DPP needs finite features of shape N x D, but {X.shape} came; leave other items out")
    fixed = np.zeros((0, X.shape[1]), X.dtype) if given is None else np.asarray(given, dtype=X.dtype)
    if fixed.ndim != 2 or fixed.shape[1] != X.shape[1] or not np.isfinite(fixed).all():
        raise InputError(f"given needs finite features of shape g x {X.shape[1]}, but {fixed.shape} came")
    if k < 0 or not length_scale > 0 or not weight >= 0:
        raise InputError(
            f"a DPP needs k >= 0, length_scale > 0 and weight >= 0, but {k}, {length_scale} and {weight} were given"
        )
    return X, fixed


def _log_squared(quality: FloatArray, n: int) -> FloatArray:
    q = np.asarray(quality, dtype=np.float64)
    if q.shape != (n,) or not np.isfinite(q).all() or (q < 0).any():
        raise InputError(f"a DPP needs {n} finite, non-negative qualities, one an item, but {q.shape} came")
    with np.errstate(divide="ignore"):
        return np.asarray(2.0 * np.log(q))


class _Cholesky:
    """The growing factor: one row, as long as the pool, for every item that was conditioned on."""

    def __init__(self, X: Floats, most: int) -> None:
        self._X = X
        self._norms = np.einsum("nd,nd->n", X, X)
        self._rows = np.empty((most, len(X)), X.dtype)
        self._size = 0
        self.left = np.full(len(X), 1.0 + NUGGET, X.dtype)  # conditional variance of every item

    def condition(self, index: int) -> None:
        """Take up one more item of the pool."""
        item, before = self._X[index], self._rows[: self._size]
        row = np.exp(-0.5 * np.maximum(self._norms + item @ item - 2.0 * (self._X @ item), 0.0))
        row[index] = 1.0 + NUGGET
        row -= before[:, index] @ before
        row /= np.sqrt(self.left[index])
        self._rows[self._size] = row
        self._size += 1
        self.left -= row * row
        # rounding must not make an item look less than its own share
        np.maximum(self.left, NUGGET, out=self.left)
