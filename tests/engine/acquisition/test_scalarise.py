"""Scalarised improvements."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from paragenesis.engine.acquisition.scalarise import (
    RHO,
    Scale,
    front_scale,
    normal_draws,
    scalarised,
    scalarised_improvement,
    weightings,
)


def test_a_single_objective_is_expected_improvement() -> None:
    mean, std = np.linspace(-0.5, 2.0, 9)[:, None], np.full((9, 1), 0.7)
    scale = Scale(np.array([0.0]), np.array([2.0]))
    score, nearest = scalarised_improvement(mean, std, np.array([[1.0], [0.3]]), scale, np.ones((1, 1)))
    z = (mean - 1.0)[:, 0] / 0.7
    exact = 0.7 * (z * norm.cdf(z) + norm.pdf(z))
    assert score == pytest.approx((1 + RHO) * exact / 2.0, rel=0.05, abs=2e-3)
    assert (nearest > score).all()


@pytest.mark.parametrize("m", [2, 5])
def test_scores_agree_with_monte_carlo(m: int) -> None:
    rng = np.random.default_rng(m)
    mean, std, known = rng.normal(size=(6, m)), rng.uniform(0.2, 1.0, (6, m)), rng.normal(size=(4, m))
    scale, weights = Scale(np.full(m, -2.0), known.max(0)), weightings(m)
    score, _ = scalarised_improvement(mean, std, known, scale, weights)
    draws = rng.normal(size=(4000, m))
    for i in range(6):
        gains = np.zeros(4000)
        for weight in weights:
            best = max(scalarised(scale.normalised(known), weight).max(), 0.0)
            gains += np.maximum(scalarised(scale.normalised(mean[i] + std[i] * draws), weight) - best, 0) / len(weights)
        assert score[i] == pytest.approx(gains.mean(), rel=0.12, abs=6 * gains.std() / np.sqrt(4000))


def test_certain_utilities_need_no_draws() -> None:
    mean, scale = np.array([[0.5, 1.5], [0.2, 0.2]]), Scale(np.zeros(2), np.ones(2))
    weights, none = np.array([[0.25, 0.75]]), np.zeros((0, 2))
    certain = scalarised_improvement(mean, None, none, scale, weights)
    # weighted 0.125 and 1.125; nothing is known but the reference point, which is worth 0
    assert certain[0][0] == pytest.approx(0.125 + RHO * 1.25)
    zero = scalarised_improvement(mean, np.zeros((2, 2)), none, scale, weights)
    assert zero[0].tolist() == certain[0].tolist()


def test_the_better_of_two_without_hope_comes_nearer() -> None:
    mean, std = np.array([[0.1, 0.1], [0.3, 0.3]]), np.full((2, 2), 1e-3)
    scale, known = Scale(np.zeros(2), np.ones(2)), np.ones((1, 2))
    score, nearest = scalarised_improvement(mean, std, known, scale, weightings(2))
    assert score.tolist() == [0.0, 0.0]
    assert nearest[0] < nearest[1] < 0


def test_draws_are_normal_and_weights_on_the_simplex() -> None:
    draws = normal_draws(6)
    assert draws.mean(0) == pytest.approx(np.zeros(6), abs=1e-12)
    assert draws.std(0) == pytest.approx(np.ones(6), abs=0.03)
    assert np.abs(np.corrcoef(draws.T) - np.eye(6)).max() < 0.2
    weights = weightings(6)
    assert weights.sum(1) == pytest.approx(np.ones(len(weights)))
    assert (weights > 0).all()
    assert weights.mean(0) == pytest.approx(np.full(6, 1 / 6), abs=0.03)


def test_the_scale_is_the_front_above_the_reference_point() -> None:
    point, mean = np.array([0.0, 0.0]), np.array([[2.0, -5.0], [1.0, -5.0]])
    assert front_scale(np.array([[3.0, 1.0], [1.0, 4.0]]), point, mean).high.tolist() == [3.0, 4.0]
    assert front_scale(np.array([[-1.0, 1.0]]), point, mean).high.tolist() == [2.0, 1.0]
    assert (front_scale(np.zeros((0, 2)), point, mean).high > point).all()
