"""Goals as axes of a hypervolume and as constraints: what a choice trades, and what it must have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paragenesis.crystals import FloatArray
from paragenesis.errors import InputError
from paragenesis.objectives.goals import Goal, Range


def wants_hits(strategy: str | None, goals: Sequence[Goal]) -> bool:
    """Whether a batch is chosen for its probable hits: on demand, and by default where all goals are ranges."""
    return strategy == "hits" if strategy is not None else all(isinstance(goal, Range) for goal in goals)


@dataclass(frozen=True)
class Formulation:
    """Goals as axes of a hypervolume and as constraints.

    Attributes:
        goals: All of them.
        along: Which of them are axes: all but ranges, or all where there are only ranges.
        within: Constraints: which outcome, and where it must lie.
        hits: Whether a batch is chosen for its probable hits, which are what holds the constraints.
    """

    goals: Sequence[Goal]
    along: tuple[int, ...]
    within: tuple[tuple[int, Range], ...]
    hits: bool = False

    @classmethod
    def of(cls, goals: Sequence[Goal], strategy: str | None, hits: Sequence[tuple[int, Range]] = ()) -> Formulation:
        """Ranges beside other goals are constraints; by themselves only where hits are asked for.

        Args:
            goals: Goals of the m objectives.
            strategy: How a batch is chosen, see `DecisionSettings`.
            hits: What makes a hit, by objective; where hits are asked for these are the constraints, if there are any.

        Raises:
            InputError: Hits are asked for, but nothing says what a hit is.
        """
        ranges = tuple((j, goal) for j, goal in enumerate(goals) if isinstance(goal, Range))
        axes = tuple(j for j, goal in enumerate(goals) if not isinstance(goal, Range))
        wanted = wants_hits(strategy, goals)
        within = tuple(hits) or ranges if wanted else ranges if axes else ()
        if wanted and not within:
            raise InputError(
                "the strategy 'hits' must know what a hit is; give a Range goal or, in a campaign, [[hits]]"
            )
        return cls(goals, axes or tuple(range(len(goals))), within, wanted)

    @property
    def axes(self) -> list[Goal]:
        """The goals that are axes."""
        return [self.goals[j] for j in self.along]

    @property
    def ceiling(self) -> FloatArray:
        """The utilities that nothing can exceed along the axes, shape `axes`; infinite where there is no limit."""
        return np.array([goal.ceiling for goal in self.axes])

    def moments(self, mean: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the utilities along the axes, shape `N x axes` each."""
        found = [self.goals[j].utility_moments(mean[:, j], std[:, j]) for j in self.along]
        return np.stack([first for first, _ in found], axis=1), np.stack([second for _, second in found], axis=1)

    def correlation(self, mean: FloatArray, outcomes: FloatArray) -> FloatArray:
        """How the errors of expected utilities go together, along the axes.

        A utility moves with its outcome or against it. That of a Target or Range turns where the outcome crosses its
        middle; here it is taken to stay on the side that is expected.

        Args:
            mean: Expected outcomes, shape `k x m`.
            outcomes: How their errors go together, shape `m x k x k`.

        Returns:
            Shape `axes x k x k`.
        """
        slopes = [self.goals[j].slope(mean[:, j]) for j in self.along]
        return np.stack([np.outer(s, s) * outcomes[j] for j, s in zip(self.along, slopes, strict=True)])

    def probability(self, mean: FloatArray, std: FloatArray) -> FloatArray:
        """The probability that all constraints hold, their outcomes independent, shape `N`."""
        likely = np.ones(len(mean))
        for j, interval in self.within:
            likely *= interval.probability(mean[:, j], std[:, j])
        return likely

    def observed(self, values: FloatArray) -> FloatArray:
        """Utilities of outcomes along the axes, shape `k x axes`; NaN where a constraint is known to be broken."""
        utilities = np.stack([self.goals[j].utility(values[:, j]) for j in self.along], axis=1)
        broken = np.zeros(len(values), dtype=np.bool_)
        for j, interval in self.within:
            broken |= interval.utility(values[:, j]) < 0
        return np.where(broken[:, None], np.nan, utilities)
