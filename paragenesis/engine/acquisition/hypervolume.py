"""Hypervolume improvement of every candidate of a pool, one by one: expected, from posterior moments, or of a draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import ndtr

from paragenesis.crystals import BoolArray, FloatArray, IntArray
from paragenesis.engine.acquisition.pareto import pareto_front
from paragenesis.errors import InputError

MOST_OBJECTIVES = 4  # beyond, the number of boxes explodes; `scalarise` takes over
_NUMBERS_PER_CHUNK = 4_000_000  # bounds the working memory: about 32 MB an array
_BOUNDING_POINTS = 32  # of the front, for the quick upper bound of an improvement


@dataclass(frozen=True)
class Boxes:
    """The space that a front does not dominate, split into boxes, in units of `scale` from the reference point.

    Attributes:
        reference_point: Shape `m`.
        scale: Sizes of the utilities, shape `m`, positive.
        front: The points that cut the boxes out, shape `f x m`.
        low: Lower corners of the boxes, shape `boxes x m`.
        high: Upper corners, some of them infinite, shape `boxes x m`.
    """

    reference_point: FloatArray
    scale: FloatArray
    front: FloatArray
    low: FloatArray
    high: FloatArray

    def beyond(self, utilities: FloatArray) -> Boxes:
        """What is left when one more point, shape `m`, is on the front."""
        point = (utilities - self.reference_point) / self.scale
        if not (self.low < point).all(1).any():
            return self  # it dominates nothing that is left
        low, high = _without(self.low, self.high, point)
        return replace(self, front=np.vstack([self.front, point]), low=low, high=high)

    def expected_gain(self, mean: FloatArray, std: FloatArray) -> FloatArray:
        """Expected hypervolume improvement (EHVI) of each candidate by itself.

        For independent normal utilities the expected gain in a box is a product of one-dimensional integrals in closed
        form (Yang et al., J. Glob. Optim. 75, 3 (2019)). Each integral is taken once per front coordinate, not per box,
        which is what makes 1e5 candidates a matter of seconds.

        Args:
            mean: Expected utilities, shape `N x m`.
            std: Their standard deviations, shape `N x m`; zero is allowed.

        Returns:
            Scores of shape `N` in the product of the utilities' units, never negative; NaN where an input is NaN.
        """
        scores = np.empty(len(mean))
        step = max(1, _NUMBERS_PER_CHUNK // max(len(self.low), 1))
        for start in range(0, len(mean), step):
            rows = slice(start, start + step)
            centre = (mean[rows] - self.reference_point) / self.scale
            scores[rows] = _gain(centre, std[rows] / self.scale, self._edges)
        return scores * float(np.prod(self.scale))

    @cached_property
    def _edges(self) -> list[_Edges]:
        """The edges in use along each objective: boxes share them, so that each is integrated once."""
        edges = []
        for low, high in zip(self.low.T, self.high.T, strict=True):
            values, index = np.unique(np.concatenate([low, high]), return_inverse=True)
            edges.append(_Edges(values, *np.split(index.reshape(-1), 2)))
        return edges

    def gain_bound(self, utilities: FloatArray) -> FloatArray:
        """An upper bound of the hypervolume improvement of certain utilities, shape `N x m` to `N`.

        The volume between a point and the reference point, less the most of it that one point of the front covers.
        """
        corner = np.maximum((utilities - self.reference_point) / self.scale, 0.0)
        volume = corner.prod(1)
        covered = np.zeros(len(corner))
        which = np.unique(np.linspace(0, len(self.front) - 1, _BOUNDING_POINTS).astype(np.int64))
        for point in self.front[which] if len(self.front) else self.front:
            np.maximum(covered, np.minimum(corner, point).prod(1), out=covered)
        # both volumes are rounded: a bound must not fall below the truth for that
        bound: FloatArray = (volume - covered + 1e-9 * volume) * float(np.prod(self.scale))
        return bound


@dataclass(frozen=True)
class _Edges:
    """Along one objective: the edges of all boxes, ascending, and which of them are each box's lower and upper one."""

    values: FloatArray
    low: IntArray
    high: IntArray


def decompose(
    observed: FloatArray, reference_point: FloatArray, scale: FloatArray, ceiling: FloatArray | None = None
) -> Boxes:
    """The boxes beside the front of what was observed.

    Each point of the front cuts what it dominates out of the boxes so far, those of the largest volume first. For three
    and four objectives the decomposition of Lacour et al. (Comput. Oper. Res. 79, 347 (2017)), which BoTorch has, comes
    to 0.5 to 0.9 times as many boxes, and took 17 to 67 times longer (fronts of 15 to 120 points).

    Args:
        observed: Utilities without NaN, shape `k x m`; `k` may be 0.
        reference_point: Shape `m`.
        scale: Sizes of the utilities, shape `m`, positive.
        ceiling: What no utility can exceed, shape `m`: nothing is gained beyond. No limits if not given.

    Raises:
        InputError: There are more than four objectives.
    """
    m = len(reference_point)
    if m > MOST_OBJECTIVES:
        raise InputError(
            f"hypervolume improvements are computed for up to {MOST_OBJECTIVES} objectives, but {m} "
            "were given; use `scalarise.Scalarisations`"
        )
    front = (observed - reference_point) / scale
    front = front[(front > 0).all(1)]
    front = np.unique(front[pareto_front(front)], axis=0)
    low, high = np.zeros((1, m)), np.full((1, m), np.inf)
    if ceiling is not None:
        high[0] = np.maximum((ceiling - reference_point) / scale, 0.0)
    for point in front[np.argsort(-front.prod(1), kind="stable")]:
        low, high = _without(low, high, point)
    return Boxes(reference_point, scale, front, low, high)


def largest_gains(boxes: Boxes, draw: FloatArray, worth: FloatArray, usable: BoolArray, first: int = 512) -> FloatArray:
    """Hypervolume improvement of drawn utilities, exact where it matters for the choice of the best.

    Candidates are looked at in the order of an upper bound, until no other can be worth more than the best usable one.

    Args:
        boxes: What is not dominated yet.
        draw: Utilities, shape `N x m`.
        worth: What the improvement is multiplied by for ranking, shape `N`.
        usable: Which candidates may win, shape `N`.
        first: How many are looked at before it is asked whether that was enough; twice as many each time after.

    Returns:
        Shape `N`; 0 for those that were not looked at.
    """
    bound = boxes.gain_bound(draw) * worth
    order = np.argsort(-bound, kind="stable")
    gain = np.zeros(len(draw))
    start, step, best = 0, first, 0.0
    while start < len(order) and bound[order[start]] > 0 and bound[order[start]] >= best:
        rows = order[start : start + step]
        gain[rows] = boxes.expected_gain(draw[rows], np.zeros_like(draw[rows]))
        best = max(best, float((gain[rows] * worth[rows])[usable[rows]].max(initial=0.0)))
        start, step = start + step, 2 * step
    return gain


def _without(low: FloatArray, high: FloatArray, point: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The boxes, shape `boxes x m` each, less what a point dominates.

    What is left of a box above the point along the first objective is a box; so is, of the rest, what is left above it
    along the second one; and so on.
    """
    cut = (low < point).all(1)
    lower, upper = [low[~cut]], [high[~cut]]
    low, high = low[cut], high[cut]
    corner = np.minimum(high, point)
    for objective in range(len(point)):
        left = corner[:, objective] < high[:, objective]
        start, end = low[left].copy(), high[left].copy()
        end[:, :objective] = corner[left, :objective]
        start[:, objective] = corner[left, objective]
        lower.append(start)
        upper.append(end)
    return np.concatenate(lower), np.concatenate(upper)


def _gain(mean: FloatArray, std: FloatArray, edges: Sequence[_Edges]) -> FloatArray:
    """Expected gain of each row, summed over the boxes."""
    product: FloatArray | None = None
    for objective, along in enumerate(edges):
        above = _expected_excess(mean[:, objective], std[:, objective], along.values)
        # rows of `above` are edges, so that picking the edge of each box copies contiguous memory
        length = above[along.low]
        length -= above[along.high]
        product = length if product is None else np.multiply(product, length, out=product)
    assert product is not None
    # differences of nearly equal integrals may round to a hair below zero
    total: FloatArray = np.maximum(product.sum(0), 0.0)
    return total


def _expected_excess(mean: FloatArray, std: FloatArray, edges: FloatArray) -> FloatArray:
    """E[max(Y - edge, 0)] of normal Y for every edge, shape `edges x n`; zero for an infinite edge."""
    out = np.zeros((len(edges), len(mean)))
    finite = np.isfinite(edges)
    shift = mean - edges[finite, None]
    certain = std == 0
    z = shift / np.where(certain, 1.0, std)
    density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    out[finite] = np.where(certain, np.maximum(shift, 0.0), shift * ndtr(z) + std * density)
    out[:, np.isnan(mean) | np.isnan(std)] = np.nan
    return out
