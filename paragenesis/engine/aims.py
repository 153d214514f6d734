"""What the chunks of a round aim at: just beyond the Pareto front of the rounds before.

A crystal on the front is the best known compromise of its kind, and any crystal with a little more utility in every
objective would push the front outwards. So each chunk takes one crystal of the front as its anchor and asks its
generator for property values that are better than the anchor's by `step` of the front's extent in that objective.
Anchors are taken farthest first, so few chunks already aim at the ends and the middle of the front, many at all of it.

In words of utility (see `paragenesis.objectives.goals`) the aim is one and the same for every goal, the values with at
least the utility u + step * spread; in words of the property it is

    Maximize   at least v + step * spread
    Minimize   at most v - step * spread
    Target     nearer to the target than v, at best the target itself
    Range      inside the range; while v is outside, at least nearer to it

An aim is soft, as all property targets are: it moves what a generator makes, and the crystals are judged by the
objectives alone. It reaches only generators that honour `properties`; the others get the plain condition. A chunk of
which no crystal comes under its aim is made without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from paragenesis.crystals import FloatArray
from paragenesis.engine.generators.condition import PropertyRange
from paragenesis.errors import InputError
from paragenesis.objectives.goals import Goal, Maximize, Minimize, Range, Target
from paragenesis.settings import Settings

# The property that learned generators call by another name than the objective, or by the same.
PROPERTIES: Mapping[str, str] = {
    "energy_above_hull": "energy_above_hull",
    "formation_energy": "formation_energy_per_atom",
    "band_gap": "band_gap",
}
_LEAST = {"energy_above_hull": 0.0, "band_gap": 0.0}  # no crystal of the training data lies below


class AimSettings(Settings):
    """How the rounds follow the Pareto front.

    Attributes:
        follow: "front": from the second round on, chunks of generators that honour `properties` aim just beyond the
            front; "none": every round has the condition of the campaign and nothing else.
        step: How far beyond, as a fraction of the front's extent in each objective.
        properties: The generators' property by objective, where the names differ.
    """

    follow: Literal["front", "none"] = "front"
    step: float = Field(default=0.1, ge=0)
    properties: dict[str, str] = {}

    def property_of(self, objective: str) -> str | None:
        """The property that an objective means to a generator; None where nothing is known of one."""
        return self.properties.get(objective, PROPERTIES.get(objective))


@dataclass(frozen=True)
class Front:
    """The Pareto front of m objectives.

    Attributes:
        points: Utilities of the k crystals on it, shape `k x m`.
        spread: Its extent in each objective, or the pool's where it has none, shape `m`.
    """

    points: FloatArray
    spread: FloatArray

    def anchors(self) -> list[int]:
        """All points in an order that covers the front early: the best sum first, then always the farthest from all."""
        if not len(self.points):
            return []
        scaled = self.points / np.where(self.spread > 0, self.spread, 1.0)
        order = [int(np.argmax(scaled.sum(1)))]
        nearest = np.linalg.norm(scaled - scaled[order[0]], axis=1)
        while len(order) < len(scaled):
            nearest[order] = -1.0
            order.append(int(np.argmax(nearest)))
            nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
        return order


def aim(
    front: Front, anchor: int, goals: Sequence[Goal], properties: Mapping[int, str], step: float
) -> tuple[PropertyRange, ...]:
    """What to ask for, to come out beyond one point of the front.

    Args:
        front: The front.
        anchor: The point.
        goals: Goals of the m objectives.
        properties: The generator's name of some of the objectives, by their index.
        step: How far beyond, as a fraction of the front's extent.
    """
    ranges = []
    for index, name in sorted(properties.items(), key=lambda pair: pair[1]):
        wanted = float(front.points[anchor, index] + step * front.spread[index])
        least = _LEAST.get(name, -np.inf)
        low, high = (None if end is None else float(f"{max(end, least):.6g}") for end in at_least(goals[index], wanted))
        ranges.append(PropertyRange(property=name, low=low, high=high))
    return tuple(ranges)


def at_least(goal: Goal, utility: float) -> tuple[float | None, float | None]:
    """The interval of values that have at least a utility; None for an end that is open.

    Where no value has as much, as with a target that was met, it is the interval of the best values.

    Raises:
        InputError: The goal is none of the four.
    """
    match goal:
        case Maximize():
            return utility, None
        case Minimize():
            return None, -utility
        case Target(value=value):
            distance = max(-utility, 0.0)
            return value - distance, value + distance
        case Range(low=low, high=high):
            distance = max(-utility, 0.0)
            return None if low is None else low - distance, None if high is None else high + distance
    raise InputError(f"rounds cannot follow the goal '{type(goal).__name__}'; set aims.follow = \"none\"")
