"""Greedy MAP of a determinantal point process."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paragenesis.engine.acquisition.dpp import NUGGET, greedy_map_dpp, log_determinant
from paragenesis.errors import InputError


def brute_force(X: np.ndarray, q: np.ndarray, k: int, fixed: np.ndarray, scale: float) -> tuple[list[int], list[float]]:
    """Greedy choice by the determinant of the whole kernel, and the gains."""
    items = np.vstack([fixed, X])
    square = ((items[:, None] - items[None]) ** 2).sum(-1)
    worth = np.concatenate([np.ones(len(fixed)), q])
    L = worth[:, None] * (np.exp(-0.5 * square / scale**2) + NUGGET * np.eye(len(items))) * worth[None]
    chosen, gains = list(range(len(fixed))), []

    def logdet(which: list[int]) -> float:
        return float(np.linalg.slogdet(L[np.ix_(which, which)])[1]) if which else 0.0

    for _ in range(k):
        rest = [i for i in range(len(fixed), len(items)) if i not in chosen]
        values = [logdet([*chosen, i]) - logdet(chosen) for i in rest]
        gains.append(max(values))
        chosen.append(rest[int(np.argmax(values))])
    return [i - len(fixed) for i in chosen[len(fixed) :]], gains


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(0, 4), st.integers(1, 4))
def test_picks_are_those_of_the_greedy_log_determinant(seed: int, n: int, g: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    X, fixed, q = rng.normal(size=(n, d)), rng.normal(size=(g, d)), rng.uniform(0.1, 3.0, n)
    k = min(n, 6)
    picked, gains = greedy_map_dpp(X, q, k, given=fixed, length_scale=0.7)
    expected, values = brute_force(X, q, k, fixed, 0.7)
    assert picked.tolist() == expected
    assert gains == pytest.approx(values, abs=1e-6)


def test_gains_add_up_to_the_log_determinant() -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    picked, gains = greedy_map_dpp(X, np.ones(40), 10)
    assert gains.sum() == pytest.approx(log_determinant(X[picked]), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_the_pool_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, q = rng.normal(size=(50, 3)), rng.uniform(0.1, 3.0, 50)
    order = rng.permutation(50)
    plain, _ = greedy_map_dpp(X, q, 8)
    shuffled, _ = greedy_map_dpp(X[order], q[order], 8)
    assert order[shuffled].tolist() == plain.tolist()


def test_the_weight_goes_from_best_quality_to_most_diverse() -> None:
    X, quality = np.random.default_rng(0).normal(size=(60, 2)), np.linspace(1.0, 2.0, 60)
    assert greedy_map_dpp(X, quality, 5, weight=0.0)[0].tolist() == [59, 58, 57, 56, 55]
    spreads = [log_determinant(X[greedy_map_dpp(X, quality, 5, weight=w)[0]]) for w in (0.0, 0.1, 10.0)]
    assert spreads[0] < spreads[1] < spreads[2]


def test_quality_may_depend_on_what_was_picked() -> None:
    X, quality = np.arange(4.0)[:, None] * 9, np.array([4.0, 3.0, 2.0, 1.0])
    picked, _ = greedy_map_dpp(X, lambda chosen: quality if len(chosen) == 0 else quality[::-1], 3)
    assert picked.tolist() == [0, 3, 2]
    assert greedy_map_dpp(X, lambda chosen: quality * (len(chosen) < 2), 3)[0].tolist() == [0, 1]


def test_what_is_given_is_avoided_and_pending_counts_as_labelled() -> None:
    X = np.array([[0.0], [0.1], [5.0], [9.0]])
    q = np.array([3.0, 2.9, 1.0, 0.9])
    assert greedy_map_dpp(X, q, 2)[0].tolist() == [0, 2]
    assert greedy_map_dpp(X, q, 2, given=np.array([[0.05]]))[0].tolist() == [2, 3]
    labelled_pending = greedy_map_dpp(X, q, 2, given=np.array([[0.05], [5.0]]))[0]
    pending_labelled = greedy_map_dpp(X, q, 2, given=np.array([[5.0], [0.05]]))[0]
    assert labelled_pending.tolist() == pending_labelled.tolist()


def test_duplicates_come_last_and_ties_go_to_the_first() -> None:
    X = np.array([[0.0], [0.0], [4.0], [4.0]])
    picked, gains = greedy_map_dpp(X, np.ones(4), 9)
    assert picked.tolist() == [0, 2, 1, 3]
    assert gains[2] < -10
    assert np.isfinite(gains).all()


def test_more_picks_than_features_and_quality_zero_are_no_obstacle() -> None:
    X = np.random.default_rng(0).normal(size=(30, 1))
    quality = np.ones(30)
    quality[5:] = 0.0
    assert sorted(greedy_map_dpp(X, quality, 20)[0].tolist()) == [0, 1, 2, 3, 4]
    assert len(greedy_map_dpp(X, np.ones(30), 20)[0]) == 20
    assert len(greedy_map_dpp(np.zeros((0, 2)), np.zeros(0), 3)[0]) == 0


def test_diverse_from_a_hundred_thousand_beats_the_best_scores() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 8)) * 3
    X = (centres[rng.integers(50, size=100_000)] + 0.3 * rng.normal(size=(100_000, 8))).astype(np.float32)
    quality = np.exp(0.3 * rng.normal(size=100_000))
    picked, _ = greedy_map_dpp(X, quality, 32, length_scale=2.0)
    best = np.argsort(-quality)[:32]
    assert log_determinant(X[picked], 2.0) > log_determinant(X[best], 2.0) + 10


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="finite"):
        greedy_map_dpp(np.array([[np.nan]]), np.ones(1), 1)
    with pytest.raises(InputError, match="2 finite, non-negative qualities"):
        greedy_map_dpp(np.ones((2, 1)), np.ones(3), 1)
    with pytest.raises(InputError, match="g x 2"):
        greedy_map_dpp(np.ones((2, 2)), np.ones(2), 1, given=np.ones((1, 3)))
