"""What an objective is: a name, a unit, a goal, and an estimate for every relaxed crystal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from paragenesis.crystals import FloatArray, Relaxed
from paragenesis.errors import InputError
from paragenesis.objectives.goals import Goal

Need = Literal["strain"]  # what a Relaxed must carry beyond its tables: "strain" is an equation of state


@dataclass(frozen=True)
class Estimate:
    """What an objective says of n crystals.

    Attributes:
        mean: Expected values in the objective's unit, shape `n`.
        std: Their standard deviations, same unit, shape `n`; zero where the value is certain.
    """

    mean: FloatArray
    std: FloatArray

    def __post_init__(self) -> None:
        """Bring both to float arrays of one shape."""
        mean = np.asarray(self.mean, dtype=np.float64)
        std = np.asarray(self.std, dtype=np.float64)
        if mean.ndim != 1 or mean.shape != std.shape:
            raise InputError(f"an estimate needs mean and std of shape n, but got {mean.shape} and {std.shape}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)


@runtime_checkable
class Objective(Protocol):
    """What is wanted of a crystal. Any object with these four attributes and one method will do."""

    @property
    def name(self) -> str:
        """A short name, unique in a campaign: letters, digits, '_'."""
        ...

    @property
    def unit(self) -> str:
        """The unit of the values, "1" if they have none."""
        ...

    @property
    def goal(self) -> Goal:
        """Which values are wanted."""
        ...

    @property
    def needs(self) -> frozenset[Need]:
        """What `Relaxed` must carry for this objective beyond its tables."""
        ...

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """Mean and standard deviation for every crystal."""
        ...


ObjectiveFunction = Callable[[Relaxed], "Estimate | FloatArray | tuple[FloatArray, FloatArray]"]


@dataclass(frozen=True)
class FunctionObjective:
    """An objective made from a function; see `objective`."""

    name: str
    unit: str
    goal: Goal
    function: ObjectiveFunction
    needs: frozenset[Need] = frozenset()

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """The function's answer; a bare array counts as certain (std zero)."""
        answer = self.function(relaxed)
        if isinstance(answer, Estimate):
            return answer
        if isinstance(answer, tuple):
            return Estimate(*answer)
        mean = np.asarray(answer, dtype=np.float64)
        return Estimate(mean, np.zeros_like(mean))

    def __call__(self, relaxed: Relaxed) -> Estimate:
        """The decorated function still works as one."""
        return self.estimate(relaxed)


def objective(
    *, goal: Goal, unit: str, name: str = "", needs: frozenset[Need] | set[Need] = frozenset()
) -> Callable[[ObjectiveFunction], FunctionObjective]:
    """Turn a function of `Relaxed` into an objective.

    The function returns an array of shape `n` (certain values), a pair (mean, std), or an `Estimate`.

    Args:
        goal: Which values are wanted.
        unit: The unit of the values, "1" if they have none.
        name: The objective's name; the function's own by default.
        needs: What `Relaxed` must carry; {"strain"} asks for an equation of state.
    """
    if not unit:
        raise InputError('an objective needs a unit; give unit="1" if its values have none')

    def wrap(function: ObjectiveFunction) -> FunctionObjective:
        return FunctionObjective(name or function.__name__, unit, goal, function, frozenset(needs))

    return wrap


def member_estimate(table: FloatArray) -> Estimate:
    """Mean and spread over the members that answered, from a table of shape `m x n`.

    A single answer has no spread to show; its std is NaN, which the surrogate replaces by what verification taught.
    """
    answered = np.isfinite(table)
    count = answered.sum(0)
    filled = np.where(answered, table, 0.0)
    mean = np.where(count > 0, filled.sum(0) / np.maximum(count, 1), np.nan)
    square = np.where(answered, (table - mean) ** 2, 0.0).sum(0)
    std = np.where(count > 1, np.sqrt(square / np.maximum(count - 1, 1)), np.nan)
    return Estimate(mean, std)
