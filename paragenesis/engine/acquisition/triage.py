"""Triage: which candidates are not worth a verification, each with its reason and numbers.

Every reason is a pure predicate on `Evidence`; `triage` asks them in turn and the first that holds is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.special import ndtr

from paragenesis.crystals import BoolArray, FloatArray
from paragenesis.engine.acquisition.pareto import pareto_front
from paragenesis.errors import InputError
from paragenesis.objectives.contract import member_estimate
from paragenesis.objectives.goals import Goal, Maximize, Minimize, Range, Target
from paragenesis.settings import Settings


class TriageSettings(Settings):
    """Limits in physical units; an objective that is not named in a table has no limit there.

    Attributes:
        max_std: Largest standard deviation by objective, in its unit.
        on_target: By objective: the largest (Minimize) or smallest (Maximize) value that is a hit, or the tolerance
            of a Target; a Range is its own.
        wide_std: By objective: standard deviation from which an interval is wide enough to mislead; half the width of
            the target by default.
        optimism: Standard deviations from the mean to the optimistic end of an interval.
        hope: The same for `hopeless`: with a candidate that falls short even there nothing is lost.
        min_hit_probability: Probability of a hit from which an optimistic candidate is believed.
        max_disagreement: Largest spread among members of the formation energy, their median offsets removed, eV/atom.
        offset_from: Candidates from which the members' median offsets are known well enough to be removed.
        max_force: Largest residual force of any member on an atom, eV/A.
        min_hull_distance: Ensemble hull distance below which a crystal is extrapolation, not discovery, eV/atom; unless
            every member says so and one like it is verified.
        familiar: Distance from the nearest verified crystal up to which that is like it, in units of the pool's root
            mean square distance of descriptors. Of MP-20 crystals and what one element of them exchanged for its
            neighbour in the group makes of them, a quarter are closer than 0.19.
    """

    max_std: dict[str, float] = Field(default={"energy_above_hull": 0.2, "formation_energy": 0.2})
    on_target: dict[str, float] = Field(default={"energy_above_hull": 0.1})
    wide_std: dict[str, float] = Field(default={"energy_above_hull": 0.1})
    optimism: float = Field(default=1.645, gt=0.0)
    hope: float = Field(default=3.0, gt=0.0)
    min_hit_probability: float = Field(default=0.35, ge=0.0, le=1.0)
    max_disagreement: float = Field(default=0.15, gt=0.0)
    offset_from: int = Field(default=8, ge=2)
    max_force: float = Field(default=1.0, gt=0.0)
    min_hull_distance: float = -0.1
    familiar: float = Field(default=0.2, ge=0.0)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of N candidates.

    Attributes:
        names: Names of the m objectives.
        goals: Their goals.
        mean: Expected values in the objectives' own units, shape `N x m`.
        std: Their standard deviations, shape `N x m`.
        formation_energies: Of each member, eV/atom, shape `members x N`; None if there are no potentials.
        hull_distances: Of each member, eV/atom, shape `members x N`, or None.
        max_forces: Residual force of each member, eV/A, shape `members x N`, or None.
        observed: Utilities of what was verified, shape `k x m`, or None.
        distances: From the nearest verified crystal, see `TriageSettings.familiar`, shape `N`; None if unknown.
        hits: Where a batch is chosen for its probable hits, what makes one: which objective, and where it must lie;
            None where crystals must improve on what is verified.
        calibrated: Whether the standard deviations were held against verified values; else nothing is hopeless.
    """

    names: Sequence[str]
    goals: Sequence[Goal]
    mean: FloatArray
    std: FloatArray
    formation_energies: FloatArray | None = None
    hull_distances: FloatArray | None = None
    max_forces: FloatArray | None = None
    observed: FloatArray | None = None
    distances: FloatArray | None = None
    hits: Sequence[tuple[int, Range]] | None = None
    calibrated: bool = True

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        n, m = len(self.mean), len(self.names)
        if self.mean.shape != (n, m) or self.std.shape != (n, m) or len(self.goals) != m:
            raise InputError(
                f"triage of {m} objectives needs as many goals and mean and std of shape N x {m}, but "
                f"{len(self.goals)} goals, {self.mean.shape} and {self.std.shape} came"
            )
        for name in ("formation_energies", "hull_distances", "max_forces"):
            table = getattr(self, name)
            if table is not None and (table.ndim != 2 or table.shape[1] != n):
                raise InputError(f"{name} need the shape members x {n}, but {table.shape} came")
        if self.distances is not None and self.distances.shape != (n,):
            raise InputError(f"distances need the shape {n}, but {self.distances.shape} came")
        if self.observed is not None and self.observed.shape != (len(self.observed), m):
            raise InputError(f"observed utilities need the shape k x {m}, but {self.observed.shape} came")


@dataclass(frozen=True)
class Triaged:
    """A candidate that is left out, and why."""

    index: int
    reason: str
    detail: str


Predicate = Callable[[Evidence, TriageSettings], "tuple[BoolArray, Callable[[int], str]]"]


def triage(evidence: Evidence, settings: TriageSettings | None = None) -> list[Triaged]:
    """The candidates that are not worth a verification, in their order, each with the first reason that holds."""
    limits = settings or TriageSettings()
    found: dict[int, Triaged] = {}
    for reason, predicate in REASONS.items():
        holds, detail = predicate(evidence, limits)
        for index in np.flatnonzero(holds).tolist():
            found.setdefault(index, Triaged(index, reason, detail(index)))
    return [found[index] for index in sorted(found)]


def implausible(evidence: Evidence, limits: TriageSettings) -> tuple[BoolArray, Callable[[int], str]]:
    """The ensemble puts it far below the hull: potentials flatter what they have not seen.

    It is believed where nothing says so: no member puts it higher, and the oracle knows one like it.
    """
    if evidence.hull_distances is None:
        return _nobody(evidence)
    mean, limit = member_estimate(evidence.hull_distances).mean, limits.min_hull_distance
    highest = np.where(np.isnan(evidence.hull_distances), -np.inf, evidence.hull_distances).max(0)
    far = np.full(len(mean), np.inf) if evidence.distances is None else evidence.distances
    doubted = (highest >= limit) | (far > limits.familiar)

    def detail(i: int) -> str:
        if highest[i] >= limit:
            why = f"a member puts it at {highest[i]:.3f}"
        elif np.isinf(far[i]):
            why = "nothing like it is verified"
        else:
            why = f"the nearest verified crystal is {far[i]:.2f} away (> {limits.familiar:g})"
        beyond = f"hull distance {mean[i]:.3f} eV/atom is below {limit:g}"
        return f"{beyond} and {why}: extrapolation is likelier than discovery"

    return np.asarray((mean < limit) & doubted), detail


def disagreement(evidence: Evidence, limits: TriageSettings) -> tuple[BoolArray, Callable[[int], str]]:
    """The members' consensus failed: formation energies differ, or one sees forces where another relaxed them away."""
    n = len(evidence.mean)
    spread = np.zeros(n)
    if evidence.formation_energies is not None:
        spread = member_spread(evidence.formation_energies, limits.offset_from)
    force = np.zeros(n)
    if evidence.max_forces is not None:
        force = np.where(np.isnan(evidence.max_forces), 0.0, evidence.max_forces).max(0, initial=0.0)

    def detail(i: int) -> str:
        if spread[i] > limits.max_disagreement:
            return (
                f"formation energies of the members spread over {spread[i]:.3f} eV/atom (> {limits.max_disagreement:g})"
            )
        return f"a member sees a residual force of {force[i]:.2f} eV/A (> {limits.max_force:g})"

    return np.asarray((spread > limits.max_disagreement) | (force > limits.max_force)), detail


def too_uncertain(evidence: Evidence, limits: TriageSettings) -> tuple[BoolArray, Callable[[int], str]]:
    """A standard deviation is beyond what its objective allows."""
    limit = np.array([limits.max_std.get(name, np.inf) for name in evidence.names])
    beyond = evidence.std > limit

    def detail(i: int) -> str:
        j = int(np.argmax(beyond[i]))
        return f"{evidence.names[j]} has a standard deviation of {evidence.std[i, j]:.3g} (> {limit[j]:g})"

    return np.asarray(beyond.any(1)), detail


def false_confidence(evidence: Evidence, limits: TriageSettings) -> tuple[BoolArray, Callable[[int], str]]:
    """On target only at the optimistic end of a wide interval: the mean is not, and a hit is improbable."""
    low, high, wide = _targets(evidence, limits)
    mean, std = evidence.mean, evidence.std
    reach = limits.optimism * std
    off = (mean < low) | (mean > high)
    touches = (mean - reach <= high) & (mean + reach >= low)
    sigma = np.where(std > 0, std, 1e-300)
    hit = ndtr((high - mean) / sigma) - ndtr((low - mean) / sigma)
    false = off & touches & (std >= wide) & (hit < limits.min_hit_probability)

    def detail(i: int) -> str:
        j = int(np.argmax(false[i]))
        return (
            f"{evidence.names[j]} {mean[i, j]:.3g} +- {std[i, j]:.2g} meets {_interval(low[j], high[j])} only at its "
            f"optimistic end (probability {hit[i, j]:.2f})"
        )

    return np.asarray(false.any(1)), detail


def hopeless(evidence: Evidence, limits: TriageSettings) -> tuple[BoolArray, Callable[[int], str]]:
    """Even its optimistic end misses a wanted range, or is no better in any objective than something verified.

    Of a hit it is only asked that it is one, not that it is better than another.
    """
    if not evidence.calibrated:
        return _nobody(evidence)
    low, high = evidence.mean - limits.hope * evidence.std, evidence.mean + limits.hope * evidence.std
    goals = evidence.goals
    wanted = evidence.hits
    if wanted is None:
        wanted = [(j, goal) for j, goal in enumerate(goals) if isinstance(goal, Range)]
    missed = np.zeros((len(low), len(wanted)), dtype=bool)
    for column, (j, interval) in enumerate(wanted):
        missed[:, column] = interval.best_utility(low[:, j], high[:, j]) < 0
    beaten = np.zeros(len(low), dtype=bool)
    if evidence.observed is not None and evidence.hits is None:
        best = np.stack([goal.best_utility(low[:, j], high[:, j]) for j, goal in enumerate(goals)], axis=1)
        front = evidence.observed[pareto_front(evidence.observed)]
        for point in front:  # a front has dozens of points, a pool 1e5 candidates
            beaten |= (best <= point).all(1) & (best < point).any(1)

    def detail(i: int) -> str:
        if missed[i].any():
            j, interval = wanted[int(np.argmax(missed[i]))]
            return (
                f"{evidence.names[j]} {evidence.mean[i, j]:.3g} +- {evidence.std[i, j]:.2g} does not meet "
                f"{_interval(*interval.ends)} within {limits.hope:g} standard deviations"
            )
        return f"even {limits.hope:g} standard deviations better than expected it would not beat a verified crystal"

    return np.asarray(missed.any(1) | beaten), detail


# In the order in which they are asked: what the potentials cannot be trusted on comes before what is merely unlikely.
REASONS: dict[str, Predicate] = {
    "implausible": implausible,
    "disagreement": disagreement,
    "too_uncertain": too_uncertain,
    "false_confidence": false_confidence,
    "hopeless": hopeless,
}


def member_spread(table: FloatArray, offset_from: int = 8) -> FloatArray:
    """Largest minus smallest value over the members that answered, each member's median offset removed.

    Independently trained potentials differ by an offset that says nothing about a candidate; it is the median of a
    member's deviations from the consensus, and left alone where fewer than `offset_from` candidates show it.

    Args:
        table: Shape `members x N`, NaN where a member refused.
        offset_from: Candidates from which an offset is removed.

    Returns:
        Shape `N`; zero where fewer than two members answered.
    """
    deviation = table - member_estimate(table).mean
    for row in deviation:
        # a candidate that no other member answered shows no offset
        known = np.isfinite(row) & (np.isfinite(table).sum(0) > 1)
        if known.sum() >= offset_from:
            row -= np.median(row[known])
    answered = np.isfinite(deviation)
    largest = np.where(answered, deviation, -np.inf).max(0, initial=-np.inf)
    smallest = np.where(answered, deviation, np.inf).min(0, initial=np.inf)
    return np.where(answered.sum(0) > 1, largest - smallest, 0.0)


def _targets(evidence: Evidence, limits: TriageSettings) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lower and upper end of each objective's hits, and the standard deviation that counts as wide, shape `m` each."""
    rows = []
    for name, goal in zip(evidence.names, evidence.goals, strict=True):
        bound = limits.on_target.get(name)
        low, high = -np.inf, np.inf
        if isinstance(goal, Range):
            low, high = goal.ends
        elif bound is not None and isinstance(goal, Minimize):
            high = bound
        elif bound is not None and isinstance(goal, Maximize):
            low = bound
        elif bound is not None and isinstance(goal, Target):
            low, high = goal.value - bound, goal.value + bound
        half = 0.5 * (high - low)
        rows.append((low, high, limits.wide_std.get(name, half if np.isfinite(half) else 0.0)))
    low_, high_, wide = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return low_, high_, wide


def _interval(low: float, high: float) -> str:
    if np.isinf(low):
        return f"<= {high:g}"
    return f">= {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"


def _nobody(evidence: Evidence) -> tuple[BoolArray, Callable[[int], str]]:
    return np.zeros(len(evidence.mean), dtype=bool), lambda _: ""
