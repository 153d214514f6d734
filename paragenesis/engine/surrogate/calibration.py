"""Calibration: what crystals that were left out say of the intervals of one objective.

Two things are taken from their errors. The **scale** stretches or narrows every standard deviation until the interval
of the nominal level is conformal; expectations and choices are made with normal distributions of these deviations. The
**half-widths** recalibrate the whole distribution: they are those of conformal intervals at many levels, whatever its
shape. Errors of heavy tails need a scale that makes the normal distribution too wide in its middle; its half-widths are
right everywhere (evidence: `benchmarks/README.md`, "Calibration").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from paragenesis.crystals import FloatArray
from paragenesis.engine.metrics import CURVE_LEVELS

_SCALE_BOUNDS = (0.25, 10.0)  # a handful of residuals may not shrink or stretch the intervals beyond this
NORMAL = tuple(norm.ppf(0.5 + 0.5 * np.array(CURVE_LEVELS)).tolist())


@dataclass(frozen=True)
class Calibration:
    """By how much the intervals of one objective were stretched, and on what evidence.

    Attributes:
        scale: The factor on every standard deviation.
        n: Verified crystals behind it.
        coverage: Share of them that lay inside their uncalibrated interval when left out; NaN without any.
        level: The nominal coverage.
        sentence: The same in words.
        half_widths: Half the width of the central interval of each of `CURVE_LEVELS`, in calibrated standard
            deviations; a normal distribution's where crystals are too few, or the oracle's own noise is known and
            hides what is the surrogate's.
    """

    scale: float
    n: int
    coverage: float
    level: float
    sentence: str
    half_widths: tuple[float, ...] = NORMAL

    @classmethod
    def none(cls, level: float, why: str) -> Calibration:
        """Intervals as they come, because nothing was left out."""
        return cls(1.0, 0, np.nan, level, why)


def calibrate(
    error: FloatArray, std: FloatArray, own_noise: FloatArray, level: float, least: int, way: str
) -> Calibration:
    """Conformal factors from crystals that were left out (Barber et al., Ann. Stat. 49, 486 (2021)).

    Intervals are about the truth: where the oracle's own noise is known, the scale s is such that the nominal share of
    its answers lies within the standard deviation `sqrt((s std)^2 + noise^2)`.

    Args:
        error: Of the left-out predictions, shape `n`; n is at least 1.
        std: With which standard deviations they were made, shape `n`.
        own_noise: The standard deviations of the oracle's answers, shape `n`; all 0 where they are not known.
        level: Nominal coverage.
        least: How many crystals it takes to narrow an interval.
        way: How they were left out.
    """
    n, rank = len(error), int(np.ceil((len(error) + 1) * level))
    size, smallest = np.abs(error) / norm.ppf(0.5 + 0.5 * level), _SCALE_BOUNDS[0]
    if own_noise.any():  # the oracle missed by that much by itself; a narrower scale hides behind it
        size, smallest = np.sqrt(np.maximum(size**2 - own_noise**2, 0.0)), 1.0
    std = np.maximum(std, 1e-300)
    scores = np.sort(size / std)
    coverage = float((scores <= 1.0).mean())
    if n < least or rank > n:
        scale = float(np.clip(scores[-1], 1.0, _SCALE_BOUNDS[1]))
        words = f"{n} verified are too few to promise {level:.0%}: stretched to the largest error, x{scale:.2f}"
        return Calibration(scale, n, coverage, level, words)
    scale = float(np.clip(scores[rank - 1], smallest, _SCALE_BOUNDS[1]))
    words = f"x{scale:.2f} from {n} {way} residuals ({coverage:.0%} inside {level:.0%} before)"
    if own_noise.any() or not scores[-1] > 0:
        return Calibration(scale, n, coverage, level, words)
    return Calibration(scale, n, coverage, level, words, _half_widths(np.sort(np.abs(error) / std), scale))


def _half_widths(errors: FloatArray, scale: float) -> tuple[float, ...]:
    """Those of conformal intervals, from sorted errors in uncalibrated standard deviations, shape `n`."""
    ranks = np.ceil((len(errors) + 1) * np.array(CURVE_LEVELS)).astype(np.int64)
    widths = errors[np.minimum(ranks, len(errors)) - 1] / scale
    last = int((ranks <= len(errors)).sum()) - 1  # beyond it the errors say nothing: the normal distribution's tail
    widths[last:] = widths[last] * np.array(NORMAL[last:]) / NORMAL[last]
    return tuple(widths.tolist())
