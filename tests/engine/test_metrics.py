"""S.U.N. counts, confidence intervals and calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from paragenesis.engine.metrics import (
    CURVE_LEVELS,
    calibration,
    count_sun,
    interval_coverage,
    miscalibration_area,
    wilson_interval,
)
from paragenesis.errors import InputError


def test_sun_needs_all_three_and_counts_failures_in_n() -> None:
    counts = count_sun(
        np.array([-0.01, 0.0, 0.05, 0.05, 0.3, np.nan]),
        np.array([True, False, True, True, True, True]),
        np.array([True, True, True, False, True, True]),
        scorer="chgnet-0.3.0",
        hull="embedded",
        reference="mp-20",
    )
    assert (counts.n, counts.stable, counts.metastable, counts.unique, counts.novel) == (6, 2, 4, 5, 5)
    assert (counts.sun, counts.msun) == (1, 2)
    text = str(counts)
    assert all(word in text for word in ("1/6", "2/6", "chgnet-0.3.0", "embedded", "mp-20"))


def test_sun_of_nothing_and_of_unequal_shapes() -> None:
    none = np.zeros(0, dtype=bool)
    assert "0/0" in str(count_sun(np.zeros(0), none, none, scorer="s", hull="h", reference="r"))
    with pytest.raises(InputError, match="shape N"):
        count_sun(np.zeros(2), none, none, scorer="s", hull="h", reference="r")


def test_wilson_agrees_with_a_published_value() -> None:
    # Newcombe, Stat. Med. 17, 857 (1998), table I: 81/263, 15/148, 0/20, 1/29
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, n), expected in published.items():
        assert wilson_interval(successes, n) == pytest.approx(expected, abs=6e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(InputError, match="5 of 3"):
        wilson_interval(5, 3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(pair: tuple[int, int]) -> None:
    low, high = wilson_interval(*pair)
    assert 0.0 <= low <= pair[0] / pair[1] <= high <= 1.0


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_calibration_agrees_with_uncertainty_toolbox(factor: float) -> None:
    import uncertainty_toolbox as toolbox

    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=400), rng.uniform(0.5, 2.0, 400)
    values = mean + std * rng.normal(size=400)
    report = calibration(values, mean, factor * std)
    area = toolbox.metrics_calibration.miscalibration_area(mean, factor * std, values)
    assert report.miscalibration_area == pytest.approx(area, abs=2e-3)
    assert report.sharpness == pytest.approx(toolbox.metrics_calibration.sharpness(factor * std))
    assert report.rmse == pytest.approx(np.sqrt(((values - mean) ** 2).mean()))
    share = toolbox.metrics_calibration.get_proportion_in_interval
    assert report.coverage == share(mean, factor * std, values, quantile=0.9)
    assert report.curve == tuple(share(mean, factor * std, values, quantile=level) for level in CURVE_LEVELS)


def test_recalibrated_intervals_are_held_against_values_as_normal_ones_are() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=400), rng.uniform(0.5, 2.0, 400)
    values = mean + std * rng.normal(size=400)
    normal = ndtri(0.5 + 0.5 * np.array(CURVE_LEVELS))
    same = calibration(values, mean, std, half_widths=std[:, None] * normal)
    assert same.recalibrated_curve == same.curve
    assert same.recalibrated_area == same.miscalibration_area
    values[0] = np.nan
    wide = calibration(values, mean, std, half_widths=3 * std[:, None] * normal)
    assert wide.recalibrated_curve == calibration(values, mean, 3 * std).curve
    assert wide.recalibrated_area == pytest.approx(miscalibration_area(values[1:], mean[1:], 3 * std[1:]), abs=0.03)
    unknown = calibration(values, mean, std, half_widths=np.full((400, 9), np.nan))
    assert unknown.recalibrated_curve == ()
    assert np.isnan(unknown.recalibrated_area)


def test_unknown_values_are_left_out_and_nothing_is_nan() -> None:
    some = calibration(np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, np.nan]), np.ones(3))
    assert some.n == 1
    assert np.isnan(calibration(np.zeros(0), np.zeros(0), np.zeros(0)).coverage)


def test_certain_predictions_are_right_or_outside_every_interval() -> None:
    values, mean, std = np.array([1.0, 1.0]), np.array([1.0, 2.0]), np.zeros(2)
    assert interval_coverage(values, mean, std, np.array([0.1, 0.99])).tolist() == [0.5, 0.5]
    assert miscalibration_area(values, mean, std) == pytest.approx(0.25, abs=0.01)
