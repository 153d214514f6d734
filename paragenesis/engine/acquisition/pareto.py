"""Pareto fronts, hypervolumes and reference points of utilities (larger is better in every objective)."""

from __future__ import annotations

import numpy as np

from paragenesis.crystals import BoolArray, FloatArray
from paragenesis.errors import InputError


def pareto_front(utilities: FloatArray) -> BoolArray:
    """Which points no other point dominates.

    A point dominates another if it is at least as good everywhere and better somewhere; equal points do not
    dominate each other. Points with a NaN are never on the front.

    Args:
        utilities: Shape `n x m`, larger is better.

    Returns:
        A mask of shape `n`.
    """
    points = _matrix(utilities)
    mask = np.zeros(len(points), dtype=bool)
    finite = np.flatnonzero(~np.isnan(points).any(1))
    distinct, inverse = np.unique(points[finite], axis=0, return_inverse=True)
    # `np.unique` sorts by the first objective, so seen from the end a point is dominated only by points before it.
    left, front = np.arange(len(distinct))[::-1], []
    while left.size:
        best = left[0]
        front.append(best)
        left = left[~(distinct[left] <= distinct[best]).all(1)]
    mask[finite] = np.isin(inverse.reshape(-1), front)
    return mask


def hypervolume(utilities: FloatArray, reference_point: FloatArray) -> float:
    """The exact volume that the points dominate above the reference point.

    By slicing objectives (While et al., IEEE Trans. Evol. Comput. 10, 29 (2006)): the cost grows as
    `front^(m-1)`, so it is meant for up to four objectives and fronts of hundreds.

    Args:
        utilities: Shape `n x m`, larger is better; points with a NaN are left out.
        reference_point: Shape `m`; points that are not above it everywhere add nothing.
    """
    points, reference = _matrix(utilities), np.asarray(reference_point, dtype=np.float64)
    if reference.shape != (points.shape[1],):
        raise InputError(f"a reference point needs {points.shape[1]} values, but {reference.shape} came")
    above = points[(points > reference).all(1)] - reference
    return _sliced(above[pareto_front(above)])


def _sliced(points: FloatArray) -> float:
    """Volume of the union of boxes from the origin to each (positive) point."""
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(-points[:, -1], kind="stable")]
    if points.shape[1] == 2:
        widths = np.maximum.accumulate(points[:, 0])
        return float((widths * (points[:, 1] - np.append(points[1:, 1], 0.0))).sum())
    depths = points[:, -1] - np.append(points[1:, -1], 0.0)
    rest, volume = points[:0, :-1], 0.0
    for point, depth in zip(points[:, :-1], depths, strict=True):
        rest = np.vstack([rest[~(rest <= point).all(1)], point]) if not _covered(rest, point) else rest
        volume += _sliced(rest) * float(depth) if depth > 0 else 0.0
    return volume


def _covered(points: FloatArray, point: FloatArray) -> bool:
    """Whether one of the points is at least as good as `point` everywhere."""
    return bool((points >= point).all(1).any())


def infer_reference_point(observed: FloatArray, pool: FloatArray | None = None) -> FloatArray:
    """A reference point: what an objective must at least reach for a crystal to count.

    With at least two different points on the observed front: their worst value in each objective, a tenth of their
    range below (Ishibuchi et al., 2011, as BoTorch has it). That would leave no room beside a front of one or two
    points, so with fewer observed front points than objectives plus one the pool's median utility is taken where it
    is lower, and alone where nothing was observed. It moves with the units and zero points of the utilities.

    Args:
        observed: Utilities of verified crystals, shape `k x m`; `k` may be 0; rows with a NaN are left out.
        pool: Expected utilities of the candidates, shape `N x m`.

    Returns:
        Shape `m`.

    Raises:
        InputError: Neither holds a row without NaN.
    """
    known = _matrix(observed)
    known = known[~np.isnan(known).any(1)]
    front = np.unique(known[pareto_front(known)], axis=0)
    candidates = known if pool is None else _matrix(pool)
    candidates = candidates[~np.isnan(candidates).any(1)]
    everything = np.vstack([known, candidates])
    if len(everything) == 0:
        raise InputError("a reference point needs at least one observed crystal or candidate with known utilities")
    corner = front.min(0) if len(front) else np.median(candidates, axis=0)
    if len(front) <= known.shape[1] and len(candidates):
        corner = np.minimum(corner, np.median(candidates, axis=0))
    extent = np.ptp(front, axis=0) if len(front) > 1 else np.zeros(known.shape[1])
    extent = np.where(extent > 0, extent, np.ptp(everything, axis=0))
    extent = np.where(extent > 0, extent, np.maximum(np.abs(corner), 1e-9))
    reference: FloatArray = corner - 0.1 * extent
    return reference


def _matrix(values: FloatArray) -> FloatArray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise InputError(f"utilities need the shape n x m with m of at least 1, but {matrix.shape} came")
    return matrix
