"""Many objectives as one: augmented Chebyshev scalarisations and what a candidate is expected to improve on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from paragenesis.crystals import FloatArray

RHO = 0.05  # weight of the sum beside the maximum, as in Knowles (2006)
DRAWS = 64  # of each candidate's utilities; a power of two, for Sobol's sake
WEIGHTINGS = 32  # over which the score is averaged where there are too many objectives for a hypervolume
_NUMBERS_PER_CHUNK = 250_000  # of one array: small enough for the cache


@dataclass(frozen=True)
class Scale:
    """What counts as nothing and as everything in each objective: 0 and 1 of normalised utilities.

    Attributes:
        low: The reference point, shape `m`.
        high: The best of the observed front, shape `m`; above `low` everywhere.
        ceiling: What no utility can exceed, shape `m`, infinite where there is no limit; None if there is none at all.
    """

    low: FloatArray
    high: FloatArray
    ceiling: FloatArray | None = None

    def normalised(self, utilities: FloatArray) -> FloatArray:
        """Utilities of which the reference point is 0 and the best of the front 1, shape `n x m`."""
        normalised: FloatArray = (utilities - self.low) / (self.high - self.low)
        return normalised


def front_scale(
    observed: FloatArray, reference_point: FloatArray, mean: FloatArray, ceiling: FloatArray | None = None
) -> Scale:
    """The scale of the observed front, from the reference point to the best value in each objective.

    Where nothing observed is above the reference point, the best expected utility of the pool is taken, and where
    not even that is, the spread of the pool.

    Args:
        observed: Utilities of verified crystals, shape `k x m`; `k` may be 0.
        reference_point: Shape `m`.
        mean: Expected utilities of the pool, shape `N x m`, at least one row.
        ceiling: See `Scale`.
    """
    high = observed.max(0, initial=-np.inf)
    high = np.where(high > reference_point, high, mean.max(0))
    extent = np.where(np.ptp(mean, axis=0) > 0, np.ptp(mean, axis=0), np.maximum(np.abs(reference_point), 1e-9))
    return Scale(reference_point, np.where(high > reference_point, high, reference_point + extent), ceiling)


def normal_draws(m: int) -> FloatArray:
    """The fixed standard normal draws, shape `DRAWS x m`: Sobol points in the middle of their strata."""
    draws: FloatArray = ndtri(_sobol(m, DRAWS))
    return draws


def weightings(m: int) -> FloatArray:
    """The fixed weight vectors, shape `WEIGHTINGS x m`: uniform on the simplex, from Sobol points."""
    lengths = -np.log(_sobol(m, WEIGHTINGS))
    weights: FloatArray = lengths / lengths.sum(1, keepdims=True)
    return weights


def scalarised(normalised: FloatArray, weights: FloatArray) -> FloatArray:
    """The augmented Chebyshev utility, larger is better: `min_j w_j y_j + RHO sum_j w_j y_j`.

    J. Knowles, IEEE Trans. Evol. Comput. 10, 50 (2006), eq. 2, with the losses `-y`. They are measured from the
    reference point: seen from an ideal point, what goes beyond it would be pulled to the middle of the front.

    Args:
        normalised: See `Scale.normalised`, shape `n x m`.
        weights: Shape `m`.

    Returns:
        Shape `n`.
    """
    weighted = normalised * weights
    utility: FloatArray = weighted.min(1) + RHO * weighted.sum(1)
    return utility


@dataclass(frozen=True)
class Scalarisations:
    """The best that is known by several weightings: what stands for the front of more than a few objectives.

    Attributes:
        believed: Utilities of what is verified or taken as such, shape `k x m`.
        scale: What utilities are normalised by.
        weights: Shape `w x m`, each row from the simplex.
    """

    believed: FloatArray
    scale: Scale
    weights: FloatArray

    def beyond(self, utilities: FloatArray) -> Scalarisations:
        """The same with one more point, shape `m`."""
        return replace(self, believed=np.vstack([self.believed, utilities]))

    def expected_gain(self, mean: FloatArray, std: FloatArray) -> FloatArray:
        """Expected improvement of independent normal utilities, shape `N x m` each, to shape `N`."""
        return scalarised_improvement(mean, std, self.believed, self.scale, self.weights)[0]


def scalarised_improvement(
    mean: FloatArray, std: FloatArray | None, believed: FloatArray, scale: Scale, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Expected improvement of the scalarised utility over the best known, averaged over weight vectors.

    The scalarisation of normal utilities is not normal: the expectation is the mean over `DRAWS` fixed quasi-random
    draws, the same for every candidate. Where none of these improves the expectation is zero and says nothing more;
    there log expected improvement, as S. Ament et al. (NeurIPS 2023) smooth it, follows the draw that comes nearest to
    an improvement, which is therefore the second answer.

    Args:
        mean: Expected utilities, shape `n x m`.
        std: Their standard deviations, shape `n x m`; None if `mean` is certain.
        believed: Utilities of what is verified or taken as such, shape `k x m`; the reference point always counts.
        scale: What utilities are normalised by.
        weights: Shape `w x m`, each row from the simplex.

    Returns:
        The improvement, of the order of 1 and without a unit, and the best draw above the best known (negative where
        none improves), shape `n` each.
    """
    m = mean.shape[1]
    centre = scale.normalised(mean)
    width = None if std is None or not std.any() else std / (scale.high - scale.low)
    draws = np.zeros((1, m)) if width is None else normal_draws(m)
    known = np.concatenate([scale.normalised(believed), np.zeros((1, m))])
    most = None if scale.ceiling is None else scale.normalised(scale.ceiling)
    improvement, nearest = np.zeros(len(mean)), np.zeros(len(mean))
    step = max(1, _NUMBERS_PER_CHUNK // len(draws))
    for weight in weights:
        best = float(scalarised(known, weight).max())
        for start in range(0, len(mean), step):
            rows = slice(start, start + step)
            above = _draws_above(centre[rows], None if width is None else width[rows], draws, weight, best, most)
            nearest[rows] += above.max(0)
            improvement[rows] += np.maximum(above, 0.0, out=above).mean(0)
    return improvement / len(weights), nearest / len(weights)


def _draws_above(
    centre: FloatArray,
    width: FloatArray | None,
    draws: FloatArray,
    weight: FloatArray,
    best: float,
    most: FloatArray | None,
) -> FloatArray:
    """The scalarised utility of each draw, none above `most`, less the best known, shape `draws x n`."""
    least: FloatArray | None = None
    total = np.zeros((len(draws), len(centre)))
    for j, w in enumerate(weight):
        weighted = np.repeat(w * centre[None, :, j], len(draws), axis=0)
        if width is not None:
            weighted += draws[:, j, None] * (w * width[None, :, j])
        if most is not None:
            np.minimum(weighted, w * most[j] if w > 0 else 0.0, out=weighted)
        total += weighted
        least = weighted if least is None else np.minimum(least, weighted, out=least)
    assert least is not None
    total *= RHO
    total += least
    total -= best
    return total


def _sobol(m: int, n: int) -> FloatArray:
    """The first n Sobol points in m dimensions, n a power of two, in the middle of their strata, shape `n x m`."""
    from scipy.stats import qmc

    points: FloatArray = np.asarray(qmc.Sobol(m, scramble=False).random(n), dtype=np.float64) + 0.5 / n
    return points
