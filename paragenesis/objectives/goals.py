"""Goals: which values of an objective are wanted.

Sign convention, stated once for the whole engine: every goal turns values into a **utility that is maximised**.
Everything downstream (hypervolume, Pareto front, selection) sees utilities only.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from paragenesis.crystals import FloatArray
from paragenesis.settings import Settings

# Gauss-Hermite nodes for E[u(y)], y normal: 32 nodes place the kinks of Target and Range to about 1 % of sigma.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


class Goal(Settings):
    """What is wanted of an objective's values."""

    def utility(self, values: FloatArray) -> FloatArray:
        """The utility of exact values, same shape, larger is better."""
        raise NotImplementedError

    def utility_moments(self, mean: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the utility of normally distributed values, same shapes as given."""
        values = mean[..., None] + std[..., None] * _NODES
        utilities = self.utility(values)
        first = (utilities * _WEIGHTS).sum(-1)
        second = ((utilities - first[..., None]) ** 2 * _WEIGHTS).sum(-1)
        return first, np.sqrt(second)


class Maximize(Goal):
    """More is better."""

    kind: Literal["maximize"] = "maximize"

    def utility(self, values: FloatArray) -> FloatArray:
        """The value itself."""
        return values


class Minimize(Goal):
    """Less is better."""

    kind: Literal["minimize"] = "minimize"

    def utility(self, values: FloatArray) -> FloatArray:
        """The negated value."""
        return -values


class Target(Goal):
    """As close to a value as possible."""

    kind: Literal["target"] = "target"
    value: float

    def utility(self, values: FloatArray) -> FloatArray:
        """Minus the distance to the target."""
        return -np.abs(values - self.value)


class Range(Goal):
    """Inside an interval; all values inside are equally good."""

    kind: Literal["range"] = "range"
    low: float = Field(description="lower end, in the objective's unit")
    high: float = Field(description="upper end, in the objective's unit")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, but {self.low} and {self.high} were given")
        return self

    def utility(self, values: FloatArray) -> FloatArray:
        """Minus the distance to the interval, 0 inside it."""
        return -np.maximum(np.maximum(self.low - values, values - self.high), 0.0)
