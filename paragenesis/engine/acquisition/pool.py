"""The pool that a batch is chosen from: checked, finite, and in an order of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from paragenesis.crystals import BoolArray, FloatArray, IntArray

Correlation = Callable[[IntArray], FloatArray]

_SAME = 1e-9  # candidates closer than this, in units of the root mean square distance, are identical
_SLACK = 1e-9  # share of the budget that the rounding of a sum may exceed it by


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What a strategy chooses from: N candidates, all finite.

    Attributes:
        features: Standardised descriptors in units of the root mean square distance, shape `N x d`.
        given: The same of what is already verified or pending, shape `g x d`.
        mean: Expected utilities, shape `N x m`.
        std: Their standard deviations, shape `N x m`.
        observed: Utilities of verified crystals, shape `k x m`, all finite.
        believed: The same and the expected utilities of what is pending, shape `(k + p) x m`.
        reference_point: Shape `m`.
        feasible: Probability that the outcome constraints hold, shape `N`.
        cost: What a verification takes, shape `N`, positive.
        hit_probability: Probability of being a hit, shape `N`; None if unknown.
        waiting: How many are pending, p.
        ceiling: What no utility can exceed, shape `m`, infinite where there is no limit; None if there is none at all.
        correlation: See `select_batch`; of rows of this pool, and of what is pending as rows N to N + p - 1.
    """

    features: FloatArray
    given: FloatArray
    mean: FloatArray
    std: FloatArray
    observed: FloatArray
    believed: FloatArray
    reference_point: FloatArray
    feasible: FloatArray
    cost: FloatArray
    hit_probability: FloatArray | None = None
    waiting: int = 0
    ceiling: FloatArray | None = None
    correlation: Correlation | None = None

    def __len__(self) -> int:
        """How many candidates there are."""
        return len(self.mean)

    @cached_property
    def spread(self) -> FloatArray:
        """The standard deviation of each mean utility over the pool, 1 where it does not vary, shape `m`."""
        spread = self.mean.std(0)
        # a constant column may keep a spurious spread of rounding errors
        return np.where(spread > 1e-12 * np.abs(self.mean).max(0), spread, 1.0)

    @cached_property
    def appeal(self) -> FloatArray:
        """The sum of the mean utilities in units of their spread; orders candidates that score the same, shape `N`."""
        return self.appeal_of(self.mean)

    def appeal_of(self, utilities: FloatArray) -> FloatArray:
        """The appeal of other utilities of the candidates, shape `N x m` to `N`."""
        appeal: FloatArray = ((utilities - self.mean.mean(0)) / self.spread).sum(1)
        return appeal

    @cached_property
    def uncertainty(self) -> FloatArray:
        """Mean over objectives of the standard deviation in units of the spread, shape `N`."""
        uncertainty: FloatArray = (self.std / self.spread).mean(1)
        return uncertainty

    @cached_property
    def worth(self) -> FloatArray:
        """What a score is multiplied by for ranking: feasibility per cost, the cheapest costing 1; shape `N`."""
        # in units of the cheapest, equal costs divide by exactly 1 and change nothing
        worth: FloatArray = self.feasible / (self.cost / self.cost.min())
        return worth

    @cached_property
    def group(self) -> IntArray:
        """A number for each candidate, the same for identical ones, shape `N`."""
        return identical_rows(self.features)

    def usable(self, picked: IntArray, budget: float | None) -> BoolArray:
        """Which candidates may be picked next, shape `N`.

        Those that the rest of the budget pays for: of these feasible before infeasible ones, and within each of the
        two candidates unlike every pick before copies of a pick.
        """
        left = np.inf if budget is None else budget * (1.0 + _SLACK) - float(self.cost[picked].sum())
        usable = self.cost <= left
        usable[picked] = False
        if usable.any():
            taken = np.zeros(int(self.group.max()) + 1, dtype=bool)
            taken[self.group[picked]] = True
            rank = 2 * (self.feasible <= 0) + taken[self.group]
            usable &= rank == rank[usable].min()
        return usable


def identical_rows(features: FloatArray) -> IntArray:
    """A number for each row, the same for rows that differ by less than rounding does, shape `N`."""
    key = features @ np.random.default_rng(0).normal(size=features.shape[1])
    order = np.argsort(key, kind="stable")
    near = np.zeros(len(order) + 1, dtype=bool)
    near[1:-1] = np.diff(key[order]) <= _SAME
    # rows of one key are few, unless they are identical: only these are compared number by number
    doubtful = order[near[1:] | near[:-1]]
    group = np.arange(len(features), dtype=np.int64)
    if doubtful.size:
        _, number = np.unique(np.round(features[doubtful] / _SAME), axis=0, return_inverse=True)
        _, first = np.unique(number.reshape(-1), return_index=True)
        group[doubtful] = doubtful[first][number.reshape(-1)]
    return group
