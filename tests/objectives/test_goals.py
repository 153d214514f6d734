"""Goals: utilities are maximised, and their moments are those of a normal distribution."""

from __future__ import annotations

import numpy as np
import pytest

from paragenesis.errors import InputError
from paragenesis.objectives import Goal, Maximize, Minimize, Range, Target, parse_goal


def test_every_goal_gives_its_best_values_the_largest_utility() -> None:
    values = np.array([-3.0, 0.5, 1.0, 4.0])
    assert Maximize().utility(values).argmax() == 3
    assert Minimize().utility(values).argmax() == 0
    assert Target(value=0.7).utility(values).argmax() == 1
    np.testing.assert_allclose(Range(low=0.0, high=2.0).utility(values), [-3.0, 0.0, 0.0, -2.0])


GOALS = [Maximize(), Minimize(), Target(value=0.3), Range(low=-0.5, high=1.0), Range(low=0.5), Range(high=0.2)]


@pytest.mark.parametrize("goal", GOALS)
def test_the_best_utility_is_that_of_the_best_value_between(goal: Goal) -> None:
    ends = np.sort(np.random.default_rng(0).normal(size=(200, 2)), axis=1)
    between = ends[:, :1] + np.linspace(0, 1, 2001) * (ends[:, 1:] - ends[:, :1])
    best = goal.best_utility(ends[:, 0], ends[:, 1])
    np.testing.assert_allclose(best, goal.utility(between).max(1), atol=2e-3)
    assert (best >= goal.utility(between).max(1) - 1e-12).all()


@pytest.mark.parametrize("goal", GOALS)
def test_the_utility_moves_along_its_slope(goal: Goal) -> None:
    values = np.random.default_rng(0).normal(size=500)
    change = (goal.utility(values + 1e-6) - goal.utility(values - 1e-6)) / 2e-6
    np.testing.assert_allclose(change[change != 0], goal.slope(values)[change != 0], atol=1e-3)
    assert (np.abs(goal.slope(values)) == 1).all()


@pytest.mark.parametrize("goal", [goal for goal in GOALS if isinstance(goal, Range)])
def test_the_probability_of_a_range_agrees_with_monte_carlo(goal: Range) -> None:
    mean, std = np.array([-4.0, 0.0, 0.3, 0.5, 5.0]), np.array([0.1, 2.0, 0.5, 0.0, 3.0])
    draws = mean + std * np.random.default_rng(0).standard_normal((100_000, 1))
    np.testing.assert_allclose(goal.probability(mean, std), (goal.utility(draws) == 0).mean(0), atol=0.01)


@pytest.mark.parametrize("goal", GOALS)
def test_utility_moments_agree_with_monte_carlo(goal: Goal) -> None:
    mean = np.array([-4.0, -1.0, 0.0, 0.3, 1.0, 5.0])
    std = np.array([0.1, 1.0, 2.0, 0.5, 0.0, 3.0])
    draws = np.random.default_rng(0).standard_normal((400_000, 1))
    utilities = goal.utility(mean + std * draws)
    first, second = goal.utility_moments(mean, std)
    # the quadrature places a kink to about 1.5 % of std; the draws themselves scatter by 0.2 %
    assert (np.abs(first - utilities.mean(0)) <= 0.02 * std + 1e-9).all()
    assert (np.abs(second - utilities.std(0)) <= 0.02 * std + 1e-9).all()


def test_a_goal_is_read_from_a_campaigns_entry() -> None:
    assert parse_goal("minimize") == Minimize()
    assert parse_goal({"kind": "range", "low": 1, "high": 2}) == Range(low=1.0, high=2.0)
    assert parse_goal(Target(value=1.0)) == Target(value=1.0)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("minimise", "kinds maximize, minimize, target, range"),
        ({"low": 1.0, "high": 2.0}, "kind"),
        ({"kind": "range", "low": 2.0, "high": 1.0}, "low must be below high"),
        ({"kind": "range"}, "low, high or both"),
        ({"kind": "target"}, "'value' is missing"),
        ({"kind": "target", "valu": 1.0, "value": 1.0}, "did you mean 'value'"),
        (3, "a goal is written"),
    ],
)
def test_an_unusable_goal_says_what_is_wrong(entry: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_goal(entry, "objective 'density': goal")
