"""Expected hypervolume improvement of every candidate of a pool, one by one, from posterior means and deviations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from paragenesis.crystals import FloatArray, IntArray
from paragenesis.engine.acquisition.pareto import pareto_front
from paragenesis.errors import InputError

if TYPE_CHECKING:
    import torch

_EXACT_UP_TO = 4  # objectives; beyond, the number of boxes explodes and the smallest are left out
_SKIPPED_SHARE = {5: 1e-3}  # share of the volume below which a box is left out; BoTorch's defaults, 1e-2 from 6 on
_NUMBERS_PER_CHUNK = 4_000_000  # bounds the working memory: about 32 MB an array


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
        Scores of shape `N` in the product of the utilities' units, never negative; NaN where an input is NaN. Exact
        for up to four objectives, a lower bound beyond.

    Raises:
        InputError: Shapes disagree, or a standard deviation is negative.
    """
    mean, std, observed, reference = _checked(mean, std, observed, reference_point)
    # Unit-free numbers: the decomposition's tolerances must not depend on the units in use.
    scale = _spread(np.vstack([mean, observed]) - reference)
    front = (observed - reference) / scale
    front = front[(front > 0).all(1)]
    edges, low, high = _boxes(front[pareto_front(front)])
    scores = np.empty(len(mean))
    step = max(1, _NUMBERS_PER_CHUNK // max(low.shape[0], 1))
    for start in range(0, len(mean), step):
        rows = slice(start, start + step)
        scores[rows] = _gain((mean[rows] - reference) / scale, std[rows] / scale, edges, low, high)
    return scores * float(np.prod(scale))


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
    from botorch.utils.multi_objective.box_decompositions.non_dominated import (
        FastNondominatedPartitioning,
        NondominatedPartitioning,
    )

    points = torch.as_tensor(front, dtype=torch.float64)
    origin = torch.zeros(front.shape[1], dtype=torch.float64)
    if front.shape[1] <= _EXACT_UP_TO or len(front) == 0:
        cells: torch.Tensor = FastNondominatedPartitioning(origin, points).get_hypercell_bounds()
    else:
        skipped = _SKIPPED_SHARE.get(front.shape[1], 1e-2)
        cells = NondominatedPartitioning(origin, points, alpha=skipped).get_hypercell_bounds()
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
