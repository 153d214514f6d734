"""Hypervolume improvement of every candidate of a pool, one by one: expected, from posterior moments, or of a draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from paragenesis.crystals import BoolArray, FloatArray, IntArray
from paragenesis.engine.acquisition.pareto import pareto_front
from paragenesis.errors import InputError

MOST_OBJECTIVES = 4  # beyond, the number of boxes explodes; `scalarise` takes over
_NUMBERS_PER_CHUNK = 4_000_000  # bounds the working memory: about 32 MB an array
_BOUNDING_POINTS = 32  # of the front, for the quick upper bound of an improvement


def hypervolume_scores(
    mean: FloatArray, std: FloatArray, observed: FloatArray, reference_point: FloatArray
) -> FloatArray:
    """Expected hypervolume improvement (EHVI) of each candidate by itself.

    The space that the observed front does not dominate is split into boxes; for independent normal utilities the
    expected gain in a box is a product of one-dimensional integrals in closed form (Yang et al., J. Glob. Optim.
    75, 3 (2019)). Each integral is taken once per front coordinate, not per box, which is what makes 1e5 candidates
    a matter of seconds.

    Args:
        mean: Expected utilities, shape `N x m`.
        std: Their standard deviations, shape `N x m`; zero is allowed.
        observed: Utilities of the crystals already verified, shape `k x m`; `k` may be 0; rows with NaN are left out.
        reference_point: Shape `m`; only what is above it everywhere counts.

    Returns:
        Scores of shape `N` in the product of the utilities' units, never negative; NaN where an input is NaN.

    Raises:
        InputError: Shapes disagree, a standard deviation is negative, or there are more than four objectives.
    """
    mean, std, observed, reference = _checked(mean, std, observed, reference_point)
    # Unit-free numbers: the decomposition's tolerances must not depend on the units in use.
    boxes = decompose(observed, reference, _spread(np.vstack([mean, observed]) - reference))
    return boxes.expected_gain(mean, std)


@dataclass(frozen=True)
class Boxes:
    """The space that a front does not dominate, split into boxes.

    Attributes:
        reference_point: Shape `m`.
        scale: Units in which the edges are measured from the reference point, shape `m`.
        front: Points of the front in these units, shape `f x m`.
        edges: For each objective the edges in use, ascending, the last one infinite.
        low: Which edge is the lower one of each box, shape `boxes x m`.
        high: Which is the upper one, shape `boxes x m`.
    """

    reference_point: FloatArray
    scale: FloatArray
    front: FloatArray
    edges: list[FloatArray]
    low: IntArray
    high: IntArray

    def expected_gain(self, mean: FloatArray, std: FloatArray) -> FloatArray:
        """Expected hypervolume improvement of independent normal utilities, shape `N x m` each, to shape `N`."""
        scores = np.empty(len(mean))
        step = max(1, _NUMBERS_PER_CHUNK // max(self.low.shape[0], 1))
        for start in range(0, len(mean), step):
            rows = slice(start, start + step)
            centre = (mean[rows] - self.reference_point) / self.scale
            scores[rows] = _gain(centre, std[rows] / self.scale, self.edges, self.low, self.high)
        return scores * float(np.prod(self.scale))

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


def decompose(observed: FloatArray, reference_point: FloatArray, scale: FloatArray) -> Boxes:
    """The boxes beside the front of what was observed.

    Args:
        observed: Utilities without NaN, shape `k x m`; `k` may be 0.
        reference_point: Shape `m`.
        scale: Sizes of the utilities, shape `m`, positive.

    Raises:
        InputError: There are more than four objectives.
    """
    if len(reference_point) > MOST_OBJECTIVES:
        raise InputError(
            f"hypervolume improvements are computed for up to {MOST_OBJECTIVES} objectives, but {len(reference_point)} "
            "were given; use `scalarise.scalarised_improvement`"
        )
    front = (observed - reference_point) / scale
    front = front[(front > 0).all(1)]
    front = np.unique(front[pareto_front(front)], axis=0)
    return Boxes(reference_point, scale, front, *_boxes(front))


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


def _checked(
    mean: FloatArray, std: FloatArray, observed: FloatArray, reference_point: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    mean, std = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    reference = np.asarray(reference_point, dtype=np.float64)
    if mean.ndim != 2 or mean.shape != std.shape or reference.shape != mean.shape[1:]:
        raise InputError(
            f"scores need mean and std of shape N x m and a reference point of shape m, but {mean.shape}, {std.shape} "
            f"and {reference.shape} came"
        )
    if (std < 0).any():
        raise InputError("a standard deviation is negative; give non-negative ones")
    known = np.asarray(observed, dtype=np.float64).reshape(-1, mean.shape[1])
    return mean, std, known[~np.isnan(known).any(1)], reference


def _spread(offsets: FloatArray) -> FloatArray:
    """A positive size for each column."""
    finite = offsets[np.isfinite(offsets).all(1)]
    size = np.sqrt((finite**2).mean(0)) if len(finite) else np.ones(offsets.shape[1])
    return np.where(size > 0, size, 1.0)


def _boxes(front: FloatArray) -> tuple[list[FloatArray], IntArray, IntArray]:
    """The space above 0 that the front does not dominate, as boxes.

    Returns:
        The edges in use per objective, ascending, the last one infinite; and for each box the index of its lower and
        upper edge, shape `boxes x m` each.
    """
    m = front.shape[1]
    bounds = np.array([[[front.max(initial=0.0)]], [[np.inf]]]) if m == 1 else _partition(front)
    edges, low, high = [], [], []
    for objective in range(m):
        values, index = np.unique(bounds[:, :, objective], return_inverse=True)
        index = index.reshape(bounds.shape[:2])
        edges.append(values)
        low.append(index[0])
        high.append(index[1])
    return edges, np.stack(low, 1), np.stack(high, 1)


def _partition(front: FloatArray) -> FloatArray:
    """Lower and upper corners of BoTorch's box decomposition, shape `2 x boxes x m`."""
    import torch
    from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning

    points = torch.as_tensor(front, dtype=torch.float64)
    origin = torch.zeros(front.shape[1], dtype=torch.float64)
    cells = FastNondominatedPartitioning(origin, points).get_hypercell_bounds()
    return np.asarray(cells.numpy(), dtype=np.float64)


def _gain(mean: FloatArray, std: FloatArray, edges: list[FloatArray], low: IntArray, high: IntArray) -> FloatArray:
    """Expected gain of each row, summed over the boxes."""
    product: FloatArray | None = None
    for objective, values in enumerate(edges):
        above = _expected_excess(mean[:, objective], std[:, objective], values)
        # rows of `above` are edges, so that picking the edge of each box copies contiguous memory
        length = above[low[:, objective]]
        length -= above[high[:, objective]]
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
