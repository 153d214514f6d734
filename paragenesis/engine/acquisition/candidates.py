"""What a choice is made from, as it comes in: checked, in an order of its own, made into a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paragenesis.crystals import BoolArray, FloatArray, IntArray
from paragenesis.engine.acquisition.features import FeatureSpace, feature_matrix
from paragenesis.engine.acquisition.pareto import infer_reference_point
from paragenesis.engine.acquisition.pool import Correlation, Pool
from paragenesis.errors import InputError


@dataclass(frozen=True)
class Candidates:
    """The tables of N candidates as they came, and which of them can be considered.

    Attributes:
        descriptors: Shape `N x d`.
        mean: Expected utilities, shape `N x m`.
        std: Their standard deviations, shape `N x m`.
        rows: Those that are finite everywhere, in the order of `content_order`.
        excluded: The others, with the reason.
    """

    descriptors: FloatArray
    mean: FloatArray
    std: FloatArray
    rows: IntArray
    excluded: dict[int, str]


@dataclass(frozen=True)
class Known:
    """What is verified, and what is about to be.

    Attributes:
        observed: Utilities of verified crystals, shape `k x m`, all finite.
        believed: The same and the expected utilities of pending ones, shape `(k + p) x m`.
        given: Descriptors of verified and then of pending ones, shape `g x d`.
        waiting: How many are pending, p.
    """

    observed: FloatArray
    believed: FloatArray
    given: FloatArray
    waiting: int = 0


def check_candidates(descriptors: FloatArray, mean: FloatArray, std: FloatArray) -> Candidates:
    """The candidates of a choice.

    Raises:
        InputError: Shapes disagree, or a standard deviation is negative.
    """
    descriptors, mean, std = (
        feature_matrix(*pair) for pair in (("descriptors", descriptors), ("mean", mean), ("std", std))
    )
    if not len(descriptors) == len(mean) or mean.shape != std.shape:
        raise InputError(
            f"a choice needs descriptors N x d and mean and std N x m, but {descriptors.shape}, {mean.shape} and "
            f"{std.shape} came"
        )
    excluded = _excluded(descriptors, mean, std)
    kept = np.setdiff1d(np.arange(len(mean)), list(excluded)).astype(np.int64)
    negative = kept[(std[kept] < 0).any(1)]
    if negative.size:
        row = negative[0]
        raise InputError(f"a standard deviation of candidate {row} is {std[row].min():g}; give non-negative ones")
    rows = kept[content_order(mean[kept], std[kept], descriptors[kept])]
    return Candidates(descriptors, mean, std, rows, excluded)


def check_known(
    candidates: Candidates,
    observed: FloatArray,
    given: FloatArray | None,
    pending: tuple[FloatArray, FloatArray] | None,
) -> Known:
    """What is known beside the candidates; outcomes with a NaN are left out.

    Raises:
        InputError: Shapes disagree, or a feature is not finite.
    """
    d, m = candidates.descriptors.shape[1], candidates.mean.shape[1]
    known = _utilities("observed", observed, m)
    fixed = _features("given", given, d)
    if pending is None:
        return Known(known, known, fixed)
    features, expected = _features("pending features", pending[0], d), np.asarray(pending[1], dtype=np.float64)
    if expected.shape != (len(features), m):
        raise InputError(
            f"pending has features of shape {features.shape} and utilities of shape {expected.shape}; "
            f"give a row of {m} expected utilities for each row of features"
        )
    believed = np.concatenate([known, _utilities("pending", expected, m)])
    return Known(known, believed, np.concatenate([fixed, features]), len(features))


def build_pool(
    candidates: Candidates,
    known: Known,
    columns: Mapping[str, FloatArray | None],
    reference_point: FloatArray | None,
    space: FeatureSpace | None,
    correlation: Correlation | None = None,
    ceiling: FloatArray | None = None,
) -> Pool:
    """The pool of the candidates that can be considered, at least one.

    Args:
        candidates: What came.
        known: What is verified or pending.
        columns: `hit_probability`, `feasible` and `cost` of `candidates.rows`.
        reference_point: In utilities, shape `m`; inferred if not given.
        space: How descriptors are scaled; by pool and given if not given.
        correlation: Of the candidates as they came, with what is pending after them.
        ceiling: What no utility can exceed, shape `m`.

    Raises:
        InputError: The reference point has another shape, or is not finite; so the ceiling, which may be infinite.
    """
    rows, feasible, cost = candidates.rows, columns["feasible"], columns["cost"]
    mean, descriptors = candidates.mean[rows], candidates.descriptors[rows]
    m = mean.shape[1]
    places = np.concatenate([rows, len(candidates.mean) + np.arange(known.waiting)])
    if reference_point is None:
        reference = infer_reference_point(known.observed, mean)
    else:
        reference = np.asarray(reference_point, dtype=np.float64)
    if reference.shape != mean.shape[1:] or not np.isfinite(reference).all():
        raise InputError(f"the reference point is {reference.tolist()}; give {m} finite utilities")
    if ceiling is not None and (ceiling.shape != (m,) or np.isnan(ceiling).any()):
        raise InputError(f"the ceiling is {ceiling.tolist()}; give {m} utilities, infinite where there is no limit")
    space = space or FeatureSpace(np.concatenate([descriptors, known.given]))
    return Pool(
        features=space(descriptors),
        given=space(known.given),
        mean=mean,
        std=candidates.std[rows],
        observed=known.observed,
        believed=known.believed,
        reference_point=reference,
        feasible=np.ones(len(rows)) if feasible is None else feasible,
        cost=np.ones(len(rows)) if cost is None else cost,
        hit_probability=columns["hit_probability"],
        waiting=known.waiting,
        ceiling=ceiling,
        correlation=None if correlation is None else lambda at: check_correlation(correlation(places[at]), len(at), m),
    )


def content_order(mean: FloatArray, std: FloatArray, descriptors: FloatArray) -> IntArray:
    """An order of candidates that depends on what they are, not on where they stand, shape `N`.

    By mean, then std, then descriptors: only identical candidates keep the order they came in. It makes sums, draws
    and ties the same for every order of the pool; and a change of units keeps it.
    """
    columns = np.concatenate([mean, std], axis=1)
    order = np.lexsort(columns.T[::-1]).astype(np.int64)
    same = np.zeros(len(order) + 1, dtype=bool)
    same[1:-1] = (columns[order[1:]] == columns[order[:-1]]).all(1)
    # descriptors are many: only rows that tie in all else are sorted by them
    tied = np.flatnonzero(same[1:] | same[:-1])
    if tied.size:
        rows = order[tied]
        keys = np.concatenate([columns[rows], descriptors[rows]], axis=1)
        order[tied] = rows[np.lexsort(keys.T[::-1])]
    return order


def check_probabilities(name: str, values: FloatArray | None, n: int, rows: IntArray) -> FloatArray | None:
    """The probabilities of some rows, shape `len(rows)`; None if none are given.

    Raises:
        InputError: There are not n, or one of the rows has a number outside 0 to 1.
    """
    if values is None:
        return None
    column = _column(name, values, n)[rows]
    _refuse(name, column, rows, ~((column >= 0) & (column <= 1)), "a probability from 0 to 1")
    return column


def check_costs(values: FloatArray | None, n: int, rows: IntArray) -> FloatArray | None:
    """The costs of some rows, shape `len(rows)`; None if none are given.

    Raises:
        InputError: There are not n, or one of the rows has a cost that is not positive and finite.
    """
    if values is None:
        return None
    column = _column("cost", values, n)[rows]
    _refuse("cost", column, rows, ~((column > 0) & np.isfinite(column)), "a positive, finite cost")
    return column


def check_correlation(values: FloatArray, k: int, m: int) -> FloatArray:
    """Correlations of k candidates, shape `m x k x k`.

    Raises:
        InputError: They have another shape, or one lies outside -1 to 1.
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.shape != (m, k, k) or not (np.abs(matrix) <= 1.0 + 1e-9).all():
        raise InputError(
            f"correlation of {k} candidates must give numbers from -1 to 1 of the shape {m} x {k} x {k}, but the shape "
            f"{matrix.shape} came, or a number beyond these"
        )
    return matrix


def _column(name: str, values: FloatArray, n: int) -> FloatArray:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (n,):
        raise InputError(f"{name} has the shape {column.shape}, but {n} candidates need ({n},); give one number each")
    return column


def _refuse(name: str, column: FloatArray, rows: IntArray, bad: BoolArray, expected: str) -> None:
    if bad.any():
        # the first in the caller's order
        at = np.flatnonzero(bad)[np.argmin(rows[bad])]
        raise InputError(f"{name} of candidate {rows[at]} is {column[at]:g}; give {expected}, or leave it out")


def _excluded(descriptors: FloatArray, mean: FloatArray, std: FloatArray) -> dict[int, str]:
    """Rows with numbers that are not finite, and which numbers those are."""
    reasons: dict[int, str] = {}
    for name, table in (("descriptor", descriptors), ("expected utility", mean), ("standard deviation", std)):
        bad = ~np.isfinite(table)
        for row in np.flatnonzero(bad.any(1)).tolist():
            reasons.setdefault(row, f"{name} {int(np.argmax(bad[row]))} is {table[row, int(np.argmax(bad[row]))]}")
    return dict(sorted(reasons.items()))


def _features(name: str, values: FloatArray | None, d: int) -> FloatArray:
    """Finite features of shape `n x d`; none if none are given."""
    if values is None:
        return np.zeros((0, d))
    matrix = feature_matrix(name, values, finite=True)
    if matrix.shape[1] != d:
        raise InputError(f"{name} have {matrix.shape[1]} columns, but the descriptors of the candidates have {d}")
    return matrix


def _utilities(name: str, values: FloatArray, m: int) -> FloatArray:
    """Rows of m utilities without the incomplete ones."""
    matrix = np.asarray(values, dtype=np.float64)
    matrix = matrix.reshape(0, m) if matrix.size == 0 else matrix
    if matrix.ndim != 2 or matrix.shape[1] != m:
        raise InputError(f"{name} utilities have the shape {matrix.shape}; give a row of {m} for each crystal")
    return matrix[np.isfinite(matrix).all(1)]
