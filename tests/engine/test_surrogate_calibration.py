"""What left-out crystals say of intervals: at the nominal level, and at every other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paragenesis.engine.metrics import CURVE_LEVELS, recalibrated_coverage
from paragenesis.engine.surrogate import ResidualSurrogate
from paragenesis.engine.surrogate.calibration import NORMAL, Calibration, calibrate


def heavy(n: int, seed: int = 0) -> np.ndarray:
    """Errors that no normal distribution has: most are small, as those of band gaps where most crystals are metals."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < 0.6, 0.1, 1.0) * rng.normal(size=n)


def calibrated(error: np.ndarray, std: np.ndarray, noise: float = 0.0) -> Calibration:
    return calibrate(error, std, np.full(len(error), noise), 0.9, 5, "left-out")


def test_recalibrated_intervals_hold_what_they_should_at_every_level() -> None:
    std = np.random.default_rng(1).uniform(0.5, 2.0, 4400)
    error = std * heavy(4400)
    found = calibrated(error[:400], std[:400])
    scaled, rest = found.scale * std[400:], error[400:]
    curve, area = recalibrated_coverage(rest, np.zeros(4000), scaled[:, None] * np.array(found.half_widths))
    assert curve == pytest.approx(CURVE_LEVELS, abs=0.05)
    assert area < 0.03
    plain = recalibrated_coverage(rest, np.zeros(4000), scaled[:, None] * np.array(NORMAL))
    assert plain[0][-1] == curve[-1]  # the scale alone is right at the nominal level
    assert plain[1] > 0.08  # and too wide below it


def test_they_are_those_of_uncertainty_toolboxs_isotonic_recalibration() -> None:
    import uncertainty_toolbox as toolbox

    std, error = np.ones(2000), heavy(2000)
    found = calibrated(error, std)
    recalibrator = toolbox.recalibration.get_interval_recalibrator(np.zeros(2000), found.scale * std, error)
    theirs = [recalibrator(np.zeros(1), np.array([found.scale]), level).upper[0] for level in CURVE_LEVELS]
    assert found.scale * np.array(found.half_widths) == pytest.approx(np.array(theirs), rel=0.05)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.floats(0.0, 10.0), st.sampled_from([0.5, 0.8, 0.9]))
def test_half_widths_grow_with_the_level(errors: list[float], std: float, level: float) -> None:
    error = np.array(errors)
    found = calibrate(error, np.full(len(error), std), np.zeros(len(error)), level, 5, "left-out")
    widths = np.array(found.half_widths)
    assert len(widths) == len(CURVE_LEVELS)
    assert np.isfinite(found.scale * std * widths).all()
    assert (np.diff(widths) >= 0).all()


def test_too_few_crystals_and_known_noise_leave_the_normal_distribution() -> None:
    assert calibrated(heavy(8), np.ones(8)).half_widths == NORMAL
    assert calibrated(heavy(400), np.ones(400), noise=1.0).half_widths == NORMAL
    assert calibrated(np.zeros(40), np.zeros(40)).half_widths == NORMAL
    assert ResidualSurrogate().fit(np.zeros((0, 2)), np.zeros((0, 1))).calibration[0].half_widths == NORMAL
    assert calibrated(heavy(9), np.ones(9)).half_widths != NORMAL


def test_beyond_the_largest_error_the_tail_is_the_normal_distributions() -> None:
    found = calibrate(heavy(5), np.ones(5), np.zeros(5), 0.5, 5, "left-out")  # of five errors none is beyond 80 %
    eighty, ninety = found.half_widths[-2:]
    assert found.scale * eighty == pytest.approx(np.abs(heavy(5)).max())
    assert ninety / eighty == pytest.approx(NORMAL[-1] / NORMAL[-2])
