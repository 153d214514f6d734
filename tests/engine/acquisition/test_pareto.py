"""Pareto fronts, hypervolumes and reference points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paragenesis.engine.acquisition.pareto import hypervolume, infer_reference_point, pareto_front
from paragenesis.errors import InputError

# few distinct values, so that ties and duplicates are common
points = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-3, 6).map(float))
)


@settings(max_examples=100, deadline=None)
@given(points)
def test_front_is_what_nobody_dominates(utilities: np.ndarray) -> None:
    dominated = [any((other >= point).all() and (other > point).any() for other in utilities) for point in utilities]
    assert (pareto_front(utilities) == ~np.array(dominated)).all()


def test_front_leaves_out_unknown_values() -> None:
    assert pareto_front(np.array([[np.nan, 9.0], [1.0, 1.0], [0.0, 2.0]])).tolist() == [False, True, True]
    assert pareto_front(np.zeros((0, 3))).shape == (0,)


@settings(max_examples=100, deadline=None)
@given(points)
def test_hypervolume_agrees_with_botorch(utilities: np.ndarray) -> None:
    import torch
    from botorch.utils.multi_objective.hypervolume import Hypervolume

    front = utilities[pareto_front(utilities)]
    reference = np.full(utilities.shape[1], -0.5)
    expected = Hypervolume(torch.as_tensor(reference)).compute(torch.as_tensor(front))
    assert hypervolume(utilities, reference) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_hypervolume_of_a_large_random_front_agrees_with_botorch() -> None:
    import torch
    from botorch.utils.multi_objective.hypervolume import Hypervolume

    utilities = np.abs(np.random.default_rng(0).normal(size=(60, 4)))
    utilities /= np.linalg.norm(utilities, axis=1, keepdims=True)
    expected = Hypervolume(torch.zeros(4, dtype=torch.float64)).compute(torch.as_tensor(utilities))
    assert hypervolume(utilities, np.zeros(4)) == pytest.approx(expected, rel=1e-9)


def test_reference_point_is_a_tenth_of_the_range_below_the_front() -> None:
    observed = np.array([[0.0, 10.0], [0.5, 5.0], [1.0, 0.0], [-9.0, -9.0]])
    assert infer_reference_point(observed) == pytest.approx([-0.1, -1.0])


@settings(max_examples=50, deadline=None)
@given(points, st.lists(st.sampled_from([0.01, 1.0, 250.0]), min_size=4, max_size=4))
def test_reference_point_follows_the_units(utilities: np.ndarray, units: list[float]) -> None:
    unit = np.array(units[: utilities.shape[1]])
    pool = utilities[::-1] - 1.5
    plain, scaled = infer_reference_point(utilities, pool), infer_reference_point(utilities * unit, pool * unit)
    assert scaled == pytest.approx(plain * unit, abs=1e-8)
    assert (plain < utilities[pareto_front(utilities)]).all()


def test_a_single_verified_crystal_does_not_close_the_space_beside_it() -> None:
    pool = np.array([[0.0, 0.0], [2.0, 2.0], [1.0, 1.0]])
    assert infer_reference_point(np.array([[5.0, 5.0]]), pool) == pytest.approx([0.5, 0.5])
    assert infer_reference_point(np.zeros((0, 2)), pool) == pytest.approx([0.8, 0.8])


def test_nothing_known_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one"):
        infer_reference_point(np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="needs 2 values"):
        hypervolume(np.ones((3, 2)), np.zeros(3))
