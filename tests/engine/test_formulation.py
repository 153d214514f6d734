"""Goals as axes and as constraints."""

from __future__ import annotations

import numpy as np
import pytest

from paragenesis import Maximize, Minimize, Range, Target
from paragenesis.engine.formulation import Formulation, wants_hits
from paragenesis.errors import InputError

GOALS = (Minimize(), Range(low=1.0, high=2.0), Target(value=3.0), Range(high=6.0))
VALUES = np.array([[0.1, 1.5, 3.0, 5.0], [0.2, 2.5, 3.5, 5.0], [0.3, 1.5, 4.0, np.nan]])


def test_ranges_are_constraints_beside_other_goals() -> None:
    found = Formulation.of(GOALS, "ehvi_dpp")
    assert found.axes == [GOALS[0], GOALS[2]]
    mean, std = found.moments(VALUES[:2], np.zeros((2, 4)))
    np.testing.assert_allclose(mean, [[-0.1, 0.0], [-0.2, -0.5]])
    np.testing.assert_allclose(std, 0.0)
    np.testing.assert_allclose(found.probability(VALUES[:2], np.full((2, 4), 1e-9)), [1.0, 0.0])


def test_what_breaks_a_constraint_dominates_nothing() -> None:
    observed = Formulation.of(GOALS, "ehvi_dpp").observed(VALUES)
    assert np.isfinite(observed).all(1).tolist() == [True, False, True]  # an unknown outcome breaks nothing


def test_ranges_alone_are_axes_or_hits() -> None:
    ranges = [GOALS[1], GOALS[3]]
    assert wants_hits(None, ranges)
    assert not wants_hits("ehvi_dpp", ranges)
    assert not wants_hits(None, GOALS)
    assert wants_hits("hits", GOALS)
    assert Formulation.of(ranges, None) == Formulation.of(ranges, "hits")
    assert Formulation.of(ranges, "ehvi").along == (0, 1)
    assert Formulation.of(ranges, "ehvi").within == ()
    assert Formulation.of(ranges, "hits").within == ((0, ranges[0]), (1, ranges[1]))


def test_hit_rules_say_what_a_hit_is() -> None:
    stable = (0, Range(high=0.1))
    assert Formulation.of(GOALS, "hits", [stable]).within == (stable,)
    assert Formulation.of(GOALS, "ehvi", [stable]).within == Formulation.of(GOALS, "ehvi").within
    with pytest.raises(InputError, match="must know what a hit is"):
        Formulation.of([Maximize()], "hits")


def test_utilities_go_together_as_their_outcomes_do_or_against() -> None:
    rng = np.random.default_rng(0)
    problem = Formulation.of((Minimize(), Range(low=1.0, high=2.0), Target(value=3.0)), "ehvi_dpp")
    mean = np.array([[0.0, 1.5, 1.0], [0.0, 1.5, 5.0]])  # of the target one is below, one above
    outcomes = np.array([[[1.0, 0.8], [0.8, 1.0]]] * 3)
    found = problem.correlation(mean, outcomes)
    assert found.shape == (2, 2, 2)
    for axis, j in enumerate(problem.along):
        draws = mean[:, j] + 0.1 * rng.multivariate_normal(np.zeros(2), outcomes[j], size=20_000)
        assert found[axis] == pytest.approx(np.corrcoef(problem.goals[j].utility(draws).T), abs=0.02)
