"""Figures of merit: stable, unique and novel counts, and how honest intervals were."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from paragenesis.crystals import BoolArray, FloatArray
from paragenesis.errors import InputError

CURVE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STABLE, METASTABLE = 0.0, 0.1  # eV/atom above the hull: the two cut-offs in use in the field


@dataclass(frozen=True)
class SunCounts:
    """How many of N generated crystals are stable, unique and novel, with all that such a figure depends on.

    Attributes:
        n: Generated crystals, those that failed included.
        stable: At most 0 eV/atom above the hull.
        metastable: At most 0.1 eV/atom above the hull (the stable ones included).
        unique: One of each set of duplicates.
        novel: Not in the novelty reference.
        sun: Stable (0 eV/atom), unique and novel.
        msun: Metastable (0.1 eV/atom), unique and novel.
        scorer: What judged the energies.
        hull: The hull they were held against.
        reference: What novelty was judged against.
    """

    n: int
    stable: int
    metastable: int
    unique: int
    novel: int
    sun: int
    msun: int
    scorer: str
    hull: str
    reference: str

    def __str__(self) -> str:
        """The figures with their conditions, in one sentence."""
        return (
            f"S.U.N. {_share(self.sun, self.n)} at 0 eV/atom and {_share(self.msun, self.n)} at 0.1 eV/atom "
            f"(scorer {self.scorer}, hull {self.hull}, novelty against {self.reference})"
        )


def count_sun(
    hull_distances: FloatArray, unique: BoolArray, novel: BoolArray, *, scorer: str, hull: str, reference: str
) -> SunCounts:
    """Count stable, unique and novel crystals among all that were generated.

    Args:
        hull_distances: Energies above the hull, eV/atom, shape `N`; NaN (failed, not relaxed) counts as not stable.
        unique: True for one of each set of duplicates, shape `N`.
        novel: True for crystals that the reference does not hold, shape `N`.
        scorer: What judged the energies.
        hull: The hull they were held against.
        reference: What novelty was judged against.

    Raises:
        InputError: Shapes disagree.
    """
    distances = np.asarray(hull_distances, dtype=np.float64)
    unique, novel = np.asarray(unique, dtype=bool), np.asarray(novel, dtype=bool)
    if not distances.shape == unique.shape == novel.shape or distances.ndim != 1:
        raise InputError(
            f"S.U.N. needs three arrays of shape N, but {distances.shape}, {unique.shape}, {novel.shape} came"
        )
    stable, metastable = distances <= STABLE, distances <= METASTABLE
    return SunCounts(
        n=len(distances),
        stable=int(stable.sum()),
        metastable=int(metastable.sum()),
        unique=int(unique.sum()),
        novel=int(novel.sum()),
        sun=int((stable & unique & novel).sum()),
        msun=int((metastable & unique & novel).sum()),
        scorer=scorer,
        hull=hull,
        reference=reference,
    )


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a share (Wilson, J. Am. Stat. Assoc. 22, 209 (1927)); (0, 1) without trials.

    Raises:
        InputError: More successes than trials, or a negative number of them.
    """
    if not 0 <= successes <= n:
        raise InputError(f"successes must lie between 0 and n, but {successes} of {n} were given")
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + 0.5 * level))
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def product_interval(
    first: tuple[int, int], second: tuple[int, int], level: float = 0.95
) -> tuple[float, float, float]:
    """A product of two independently measured shares, and its confidence interval.

    The distances of each Wilson limit from its share are added in quadrature, weighted by the other share (the
    method of variance estimates recovery: Zou and Donner, Stat. Med. 27, 1693 (2008)). With the second share exact it
    is the first one's interval, scaled.

    Args:
        first: Successes and trials.
        second: Successes and trials of the other share.
        level: Nominal coverage.

    Returns:
        The product, and the lower and upper limit; (0, 0, 1) if either has no trials.

    Raises:
        InputError: More successes than trials, or a negative number of them.
    """
    (low_a, high_a), (low_b, high_b) = wilson_interval(*first, level), wilson_interval(*second, level)
    if not first[1] or not second[1]:
        return 0.0, 0.0, 1.0
    a, b = first[0] / first[1], second[0] / second[1]
    below, above = np.hypot(b * (a - low_a), a * (b - low_b)), np.hypot(b * (high_a - a), a * (high_b - b))
    return a * b, max(0.0, a * b - float(below)), min(1.0, a * b + float(above))


@dataclass(frozen=True)
class CalibrationReport:
    """How honest the intervals of one objective were.

    Attributes:
        n: Verified values behind it.
        level: Nominal coverage of the intervals.
        coverage: Share of values inside them; NaN without any.
        miscalibration_area: Mean distance of observed from nominal coverage over all levels, 0 to 0.5.
        sharpness: Root mean square standard deviation, in the objective's unit.
        rmse: Root mean square error of the means, same unit.
        curve: The reliability curve: share of values inside the intervals of each of `CURVE_LEVELS`; empty without any.
        recalibrated_curve: The same of the recalibrated intervals; empty where none were told.
        recalibrated_area: Their miscalibration area; NaN where none were told.
    """

    n: int
    level: float
    coverage: float
    miscalibration_area: float
    sharpness: float
    rmse: float
    curve: tuple[float, ...] = ()
    recalibrated_curve: tuple[float, ...] = ()
    recalibrated_area: float = np.nan


def calibration(
    values: FloatArray, mean: FloatArray, std: FloatArray, level: float = 0.9, half_widths: FloatArray | None = None
) -> CalibrationReport:
    """Hold verified values against the predictions made before; entries with a NaN are left out.

    Args:
        values: What verification found, shape `n`.
        mean: What was predicted, shape `n`.
        std: With which standard deviation, shape `n`.
        level: Nominal coverage of the intervals.
        half_widths: Half the widths of the recalibrated intervals of `CURVE_LEVELS`, shape `n x 9`; rows with NaN are
            not counted.
    """
    values, mean, std = (np.asarray(array, dtype=np.float64) for array in (values, mean, std))
    known = np.isfinite(values) & np.isfinite(mean) & np.isfinite(std)
    recalibrated = ((), np.nan) if half_widths is None else recalibrated_coverage(values, mean, half_widths)
    values, mean, std = values[known], mean[known], std[known]
    if len(values) == 0:
        return CalibrationReport(0, level, np.nan, np.nan, np.nan, np.nan)
    curve = tuple(interval_coverage(values, mean, std, np.array(CURVE_LEVELS)).tolist())
    area = miscalibration_area(values, mean, std)
    return CalibrationReport(
        n=len(values),
        level=level,
        coverage=float(interval_coverage(values, mean, std, np.array([level]))[0]),
        miscalibration_area=area,
        sharpness=float(np.sqrt((std**2).mean())),
        rmse=float(np.sqrt(((values - mean) ** 2).mean())),
        curve=curve,
        recalibrated_curve=recalibrated[0],
        # the same intervals have the same area, however many levels it is taken from
        recalibrated_area=area if recalibrated[0] == curve else recalibrated[1],
    )


def interval_coverage(values: FloatArray, mean: FloatArray, std: FloatArray, levels: FloatArray) -> FloatArray:
    """Share of values inside the central normal interval of each level, shape of `levels`; the reliability curve."""
    inside = _central(values, mean, std)[:, None] <= np.asarray(levels)[None, :]
    return np.asarray(inside.mean(0), dtype=np.float64)


def recalibrated_coverage(
    values: FloatArray, mean: FloatArray, half_widths: FloatArray
) -> tuple[tuple[float, ...], float]:
    """The reliability curve of intervals of any shape, and the area between it and the diagonal.

    Args:
        values: What verification found, shape `n`.
        mean: The middle of each interval, shape `n`.
        half_widths: Half their widths at `CURVE_LEVELS`, shape `n x 9`; rows with NaN are left out.

    Returns:
        Share of values inside the intervals of each level, and the area; an empty curve and NaN without any.
    """
    known = np.isfinite(values) & np.isfinite(mean) & np.isfinite(half_widths).all(1)
    if not known.any():
        return (), np.nan
    inside = np.abs(values - mean)[known, None] <= half_widths[known]
    curve = tuple(inside.mean(0).tolist())
    levels = np.array([0.0, *CURVE_LEVELS, 1.0])
    return curve, float(np.trapezoid(np.abs(np.array([0.0, *curve, 1.0]) - levels), levels))


def miscalibration_area(values: FloatArray, mean: FloatArray, std: FloatArray, n_levels: int = 100) -> float:
    """Area between the reliability curve and the diagonal (Tran et al., Mach. Learn.: Sci. Technol. 1, 025006)."""
    levels = np.linspace(0.0, 1.0, n_levels)
    gap = np.abs(interval_coverage(values, mean, std, levels) - levels)
    return float(np.trapezoid(gap, levels))


def _central(values: FloatArray, mean: FloatArray, std: FloatArray) -> FloatArray:
    """The level of the central interval that just holds each value: 0 at the mean, towards 1 far from it."""
    error = np.abs(values - mean)
    # a certain prediction is right (level 0) or outside every interval
    z = np.where(std > 0, error / np.where(std > 0, std, 1.0), np.where(error > 0, np.inf, 0.0))
    level: FloatArray = 2.0 * ndtr(z) - 1.0
    return level


def _share(count: int, n: int) -> str:
    low, high = wilson_interval(count, n)
    share = f"{count / n:.1%}" if n else "-"
    return f"{count}/{n} = {share} ({low:.1%} to {high:.1%})"
