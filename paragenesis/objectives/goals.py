"""Goals: which values of an objective are wanted.

Sign convention, stated once for the whole engine: every goal turns values into a **utility that is maximised**.
Everything downstream (hypervolume, Pareto front, selection) sees utilities only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from scipy.special import ndtr

from paragenesis.crystals import FloatArray
from paragenesis.errors import InputError
from paragenesis.settings import Settings


class Goal(Settings):
    """What is wanted of an objective's values.

    Attributes:
        of: The column of a table that the goal is for (`decide`); an objective of a campaign has its own name.
        ceiling: The utility that nothing can exceed. That of a Range is 0, too, but a choice that knew it would value
            nothing any more once one crystal is inside.
    """

    ceiling: ClassVar[float] = np.inf
    of: str = Field(default="", exclude=True)

    def __init__(self, of: str = "", **settings: Any) -> None:
        """Take the column, if any, and the goal's own settings: `Maximize("y0")`, `Target("gap", value=1.4)`."""
        super().__init__(**{"of": of, **settings})

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # see `Settings`

    def utility(self, values: FloatArray) -> FloatArray:
        """The utility of exact values, same shape, larger is better."""
        raise NotImplementedError

    def utility_moments(self, mean: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Exact mean and standard deviation of the utility of normally distributed values, same shapes as given."""
        return self.utility(mean), std

    def slope(self, values: FloatArray) -> FloatArray:
        """Whether the utility grows (1) or falls (-1) with the value there, same shape as given."""
        raise NotImplementedError

    def best_utility(self, low: FloatArray, high: FloatArray) -> FloatArray:
        """The largest utility of a value between `low` and `high`, same shapes as given."""
        return np.maximum(self.utility(low), self.utility(high))


class Maximize(Goal):
    """More is better."""

    kind: Literal["maximize"] = "maximize"

    def utility(self, values: FloatArray) -> FloatArray:
        """The value itself."""
        return values

    def slope(self, values: FloatArray) -> FloatArray:
        """More is better everywhere."""
        return np.ones_like(values)


class Minimize(Goal):
    """Less is better."""

    kind: Literal["minimize"] = "minimize"

    def utility(self, values: FloatArray) -> FloatArray:
        """The negated value."""
        return -values

    def slope(self, values: FloatArray) -> FloatArray:
        """Less is better everywhere."""
        return -np.ones_like(values)


class Target(Goal):
    """As close to a value as possible."""

    ceiling: ClassVar[float] = 0.0
    kind: Literal["target"] = "target"
    value: float

    def utility(self, values: FloatArray) -> FloatArray:
        """Minus the distance to the target."""
        return -np.abs(values - self.value)

    def slope(self, values: FloatArray) -> FloatArray:
        """Towards the target."""
        return np.where(values < self.value, 1.0, -1.0)

    def utility_moments(self, mean: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Those of a folded normal distribution."""
        return _distance_moments(mean, std, self.value, self.value)

    def best_utility(self, low: FloatArray, high: FloatArray) -> FloatArray:
        """Zero where the target lies between, else that of the nearer end."""
        return -_distance(low, high, self.value, self.value)


class Range(Goal):
    """Inside an interval; all values inside are equally good. One end may be left open: `Range(high=6.0)`."""

    kind: Literal["range"] = "range"
    low: float | None = Field(default=None, description="lower end, in the objective's unit; open if not given")
    high: float | None = Field(default=None, description="upper end, in the objective's unit; open if not given")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low is None and self.high is None:
            raise ValueError("a range needs low, high or both")
        if not self.ends[0] < self.ends[1]:
            raise ValueError(f"low must be below high, but {self.low} and {self.high} were given")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends; infinite where open."""
        return -np.inf if self.low is None else self.low, np.inf if self.high is None else self.high

    def utility(self, values: FloatArray) -> FloatArray:
        """Minus the distance to the interval, 0 inside it."""
        return -_distance(values, values, *self.ends)

    def slope(self, values: FloatArray) -> FloatArray:
        """Towards the middle, or away from the only end."""
        low, high = self.ends
        return np.where(values - low < high - values, 1.0, -1.0)

    def utility_moments(self, mean: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Those of two rectified normal distributions, of which at most one is above zero at a time."""
        return _distance_moments(mean, std, *self.ends)

    def best_utility(self, low: FloatArray, high: FloatArray) -> FloatArray:
        """Zero where the intervals meet, else minus the gap between them."""
        return -_distance(low, high, *self.ends)

    def probability(self, mean: FloatArray, std: FloatArray) -> FloatArray:
        """The probability that a normally distributed value lies inside, same shape as given."""
        low, high = self.ends
        certain = std <= 0
        sigma = np.where(certain, 1.0, std)
        inside: FloatArray = ndtr((high - mean) / sigma) - ndtr((low - mean) / sigma)
        return np.where(certain, (mean >= low) & (mean <= high), inside)


_GOALS: Mapping[str, type[Goal]] = {"maximize": Maximize, "minimize": Minimize, "target": Target, "range": Range}


def parse_goal(goal: object, where: str = "goal") -> Goal:
    """A goal from a campaign's entry: `{kind = "range", low = 1, high = 2}`, or its kind alone, or a `Goal`.

    Raises:
        InputError: The entry names no known kind, or its values do not fit the kind.
    """
    if isinstance(goal, Goal):
        return goal
    entry = {"kind": goal} if isinstance(goal, str) else goal
    if not isinstance(entry, Mapping) or entry.get("kind") not in _GOALS:
        kinds = ", ".join(_GOALS)
        raise InputError(f'{where} is {goal!r}, but a goal is written {{kind = "..."}} with one of the kinds {kinds}')
    return _GOALS[entry["kind"]].parse(entry, where)


AnyGoal = Annotated[SerializeAsAny[Goal], BeforeValidator(parse_goal)]


def _distance(low: FloatArray, high: FloatArray, first: float, last: float) -> FloatArray:
    """The gap between the intervals [low, high] and [first, last], 0 where they meet."""
    return np.maximum(np.maximum(first - high, low - last), 0.0)


def _distance_moments(mean: FloatArray, std: FloatArray, low: float, high: float) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of minus the distance of a normal variable to an interval."""
    below, below_square = _rectified_moments(low - mean, std)
    above, above_square = _rectified_moments(mean - high, std)
    first = below + above
    return -first, np.sqrt(np.maximum(below_square + above_square - first**2, 0.0))


def _rectified_moments(mean: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray]:
    """First and second moment of max(X, 0), X normal (Socci et al., NeurIPS 1998, section 3)."""
    never = mean == -np.inf  # beyond an open end
    mean = np.where(never, 0.0, mean)
    certain = std <= 0
    z = mean / np.where(certain, 1.0, std)
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    first = mean * ndtr(z) + std * density
    second = (mean**2 + std**2) * ndtr(z) + mean * std * density
    exact = np.maximum(mean, 0.0)
    moments = np.where(certain, exact, first), np.where(certain, exact**2, second)
    return np.where(never, 0.0, moments[0]), np.where(never, 0.0, moments[1])
