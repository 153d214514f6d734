"""What an oracle is: it verifies crystals at a named level of theory, with their cost and their failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from paragenesis.crystals import BoolArray, Crystals, FloatArray, Relaxed
from paragenesis.engine.level import Level
from paragenesis.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Verified:
    """What an oracle says of n crystals, in the order in which they were given.

    Attributes:
        crystals: The crystals at the oracle's geometry; a failed one as it was given.
        relaxed: The oracle's energies, forces, ... of the n crystals, itself the only member; the rows of those that
            failed do not count. None if it only looks values up.
        values: What the oracle says of objectives directly, by the objective's name, each of shape `n`; NaN where it
            says nothing. They go before what an objective would estimate from `relaxed`.
        noise: The oracle's own standard deviation of objectives, by the objective's name and in its unit, each of shape
            `n`: how far another verification of the same crystal might lie. Learnt for those it does not name.
        errors: Why a crystal could not be verified, by its index.
        cost_seconds: What each crystal's verification took, shape `n`.
    """

    crystals: Crystals
    relaxed: Relaxed | None = None
    values: Mapping[str, FloatArray] = field(default_factory=dict)
    noise: Mapping[str, FloatArray] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    cost_seconds: FloatArray

    def __post_init__(self) -> None:
        """Check that everything speaks of the same n crystals."""
        n = len(self.crystals)
        if self.relaxed is not None and self.relaxed.crystals.ids != self.crystals.ids:
            raise InputError("Verified.relaxed holds other crystals than those that were verified, or another order")
        named = [*self.values.items(), *((f"noise of {k}", v) for k, v in self.noise.items())]
        for name, values in [*named, ("cost_seconds", self.cost_seconds)]:
            if values.shape != (n,):
                raise InputError(f"Verified: '{name}' has shape {values.shape}, but {n} crystals were verified")
        outside = [i for i in self.errors if not 0 <= i < n]
        if outside:
            raise InputError(f"Verified.errors names crystal {outside[0]}, but only 0 to {n - 1} exist")

    @property
    def ok(self) -> BoolArray:
        """Which crystals have no error, shape `n`."""
        answer = np.ones(len(self.crystals), dtype=np.bool_)
        answer[list(self.errors)] = False
        return answer


@runtime_checkable
class Oracle(Protocol):
    """Verification at a level of theory. Crystals it cannot verify are errors in the answer, not exceptions."""

    @property
    def level(self) -> Level:
        """The level of theory that the results are keyed by."""
        ...

    def verify(self, crystals: Crystals) -> Verified:
        """What the oracle says of each crystal, in the given order."""
        ...


@runtime_checkable
class CostedOracle(Oracle, Protocol):
    """An oracle that estimates beforehand what a verification costs, so that the dear ones must be worth it."""

    def cost(self, crystals: Crystals) -> FloatArray:
        """What the verification of each crystal would cost, shape `n`, above 0; in CPU seconds where it can be said.

        The same crystals always cost the same: an estimate from a clock or from past answers would make a campaign's
        choices differ from run to run.
        """
        ...


def estimated_costs(oracle: Oracle, crystals: Crystals) -> FloatArray:
    """What the verification of each of n crystals is expected to cost, shape `n`; 1 each where the oracle cannot say.

    Raises:
        InputError: `oracle.cost` is no method, raised, or gave another shape or a number not above 0 or not finite.
    """
    estimate, n, who = getattr(oracle, "cost", None), len(crystals), f"{type(oracle).__name__}.cost"
    if estimate is None:
        return np.ones(n)
    if not callable(estimate):
        raise InputError(f"{who} is a {type(estimate).__name__}: make it a method that takes crystals, or leave it out")
    try:
        costs = np.array(estimate(crystals), dtype=np.float64)  # a copy: the oracle may keep its own
    except Exception as error:
        raise InputError(f"{who} raised {type(error).__name__}: {error}; give one number for each crystal") from error
    if costs.shape != (n,):
        raise InputError(f"{who} gave the shape {costs.shape} for {n} crystals: give one number for each, shape ({n},)")
    odd = np.flatnonzero(~(np.isfinite(costs) & (costs > 0)))
    if odd.size:
        raise InputError(
            f"{who} gave {costs[odd[0]]} for crystal '{crystals.ids[odd[0]]}': give a finite number above 0"
        )
    return costs


def unjudged(crystals: Crystals) -> Relaxed:
    """Crystals of which no potential has said anything: one member whose every answer is NaN."""
    n = len(crystals)
    nothing = np.full((1, n), np.nan)
    return Relaxed(
        crystals=crystals,
        members=("none",),
        energies=nothing,
        formation_energies=nothing,
        hull_distances=nothing,
        max_forces=nothing,
        pressures=nothing,
        magnetic_moments=nothing,
        strains=np.zeros(0),
        strain_energies=np.zeros((1, n, 0)),
        converged=np.zeros(n, dtype=np.bool_),
        steps=np.zeros(n, dtype=np.int64),
        initial_volumes=crystals.volumes,
    )


def check_oracle(oracle: Oracle, crystals: Crystals) -> list[str]:
    """What is wrong with an oracle, a sentence a fault; an empty list means that a campaign may use it.

    Verifies the crystals twice, so choose cheap ones.

    Args:
        oracle: The oracle.
        crystals: Crystals to try it on.
    """
    missing = [part for part in ("level", "verify") if not hasattr(oracle, part)]
    if missing:
        return [f"a {type(oracle).__name__} is no oracle: it lacks {', '.join(missing)}"]
    if not isinstance(oracle.level, Level):
        return [f"the level is a {type(oracle.level).__name__}: give a Level, the key of the results"]
    key, given = oracle.level.key, Crystals.concatenate([crystals])
    try:
        first, second = oracle.verify(crystals), oracle.verify(crystals)
    except Exception as error:  # noqa: BLE001  whatever a user's oracle raises is the finding
        return [f"verify raised {type(error).__name__}: {error}; put what goes wrong with a crystal into errors"]
    if not isinstance(first, Verified):
        return [f"verify returned a {type(first).__name__}: return Verified(...)"]
    costs = list(_cost_faults(oracle, crystals))  # first: what it does to the crystals is found below
    return (
        list(_answer_faults(first, given)) + list(_change_faults(oracle, key, given, crystals, first, second)) + costs
    )


def _answer_faults(verified: Verified, given: Crystals) -> Iterator[str]:
    """Faults within one answer."""
    if verified.crystals.ids != given.ids:
        yield "verify answered for other crystals than were given, or in another order: keep the ids as they are"
        return
    cost = verified.cost_seconds
    if not (np.isfinite(cost) & (cost >= 0)).all():
        yield "cost_seconds is negative or no number for some crystals: give seconds, 0 if it costs nothing"
    for name, noise in verified.noise.items():
        if not (np.isnan(noise) | (np.isfinite(noise) & (noise >= 0))).all():
            yield f"the noise of '{name}' is negative or infinite for some crystals: give standard deviations"
    silent = [i for i, message in verified.errors.items() if not message]
    if silent:
        yield f"the error of crystal {silent[0]} is empty: say why it could not be verified"
    tables = list(verified.values.values())
    if verified.relaxed is not None:
        tables.append(verified.relaxed.energies[0])
    said = np.any([np.isfinite(t) for t in tables], axis=0) if tables else np.zeros(len(given), dtype=np.bool_)
    mute = np.flatnonzero(verified.ok & ~said)
    if mute.size:
        yield f"crystal {mute[0]} has neither a finite value nor an error: a crystal that failed needs its error"
    if any(np.isinf(t).any() for t in tables):
        yield "some values are infinite: give NaN and an error"


def _cost_faults(oracle: Oracle, crystals: Crystals) -> Iterator[str]:
    """Faults of the estimated costs, where the oracle gives any."""
    try:
        first, second = estimated_costs(oracle, crystals), estimated_costs(oracle, crystals)
    except InputError as error:
        yield str(error)
        return
    if not np.array_equal(first, second):
        yield "two estimates of the same crystals' costs differ: use no clock and no past answers"


def _change_faults(
    oracle: Oracle, key: str, given: Crystals, crystals: Crystals, first: Verified, second: Verified
) -> Iterator[str]:
    """Faults that show between two answers."""
    if crystals != given:
        yield "verify or cost changed the crystals that it was given: work on a copy"
    if oracle.level.key != key:
        yield "the level changed during verification: results of one oracle have one level"
    if dict(first.errors) != dict(second.errors) or not _same_numbers(first, second):
        yield "two verifications of the same crystals differ: fix the seeds, or the ledger cannot be reproduced"


def _same_numbers(one: Verified, other: Verified) -> bool:
    """Whether two answers agree to 1e-6, relative or in their own units."""
    if one.values.keys() != other.values.keys() or one.noise.keys() != other.noise.keys():
        return False
    if (one.relaxed is None) != (other.relaxed is None):
        return False
    pairs = [(one.values[name], other.values[name]) for name in one.values]
    pairs += [(one.noise[name], other.noise[name]) for name in one.noise]
    if one.relaxed is not None and other.relaxed is not None:
        pairs.append((one.relaxed.energies, other.relaxed.energies))
    return all(np.allclose(a, b, rtol=1e-6, atol=1e-6, equal_nan=True) for a, b in pairs)
