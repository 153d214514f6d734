"""Asking the oracle: the stage that verifies crystals, and its answer, whatever the oracle does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.attempts import Outcome
from paragenesis.engine.estimates import LARGEST, estimate_all
from paragenesis.engine.executor import describe, machine_failed
from paragenesis.engine.oracles.contract import Oracle, Verified, unjudged
from paragenesis.objectives.contract import Objective


@dataclass(frozen=True)
class Verification:
    """An oracle's answer with the objectives evaluated on it.

    Attributes:
        verified: The answer, for n crystals.
        values: The m objectives' values, shape `n x m`; NaN where there is none.
        noise: The oracle's own standard deviations of them, shape `n x m`; NaN where it does not say.
        errors: Why a crystal has no values, by index.
        lost: The call was: its worker died, hung or ran out of memory, which says nothing about the crystals.
        attempts: How often it was tried.
    """

    verified: Verified
    values: FloatArray
    noise: FloatArray
    errors: Mapping[int, str]
    lost: bool = False
    attempts: int = 1

    @classmethod
    def failed(cls, crystals: Crystals, objectives: int, reason: str, *, lost: bool = False) -> Self:
        """The answer that says of every crystal why there is none."""
        n = len(crystals)
        nothing = np.full((n, objectives), np.nan)
        verified = Verified(crystals=crystals, errors=dict.fromkeys(range(n), reason), cost_seconds=np.full(n, np.nan))
        return cls(verified, nothing, nothing, verified.errors, lost)

    @classmethod
    def of(cls, outcome: Outcome, crystals: Crystals, objectives: int) -> Self:
        """The answer that came of asking; where the stage raised or was lost, one that says so of every crystal."""
        answer: Self = outcome.value
        if not outcome.ok:
            reason = f"{outcome.stage}: {outcome.reason}"
            answer = cls.failed(crystals, objectives, reason, lost=bool(outcome.lost))
        return replace(answer, attempts=outcome.attempts)

    def words(self, objectives: Sequence[str]) -> str:
        """What was said of the first crystal."""
        values = (f"{name} {value:.4g}" for name, value in zip(objectives, self.values[0], strict=True))
        return f"{self.verified.crystals.formulas[0]}: {self.errors.get(0) or ', '.join(values)}"


class Verify:
    """Asks the oracle about selected crystals."""

    def __init__(self, build: Callable[[], Oracle], objectives: Sequence[Objective]) -> None:
        """Build the oracle and take the objectives."""
        self._oracle = build()
        self._objectives = tuple(objectives)

    def __call__(self, crystals: Crystals, context: Any) -> Verification:
        """Values of every objective at the oracle's level of theory; without all of them a crystal is not verified.

        Whatever the oracle raises or returns, there is an answer. Only where memory runs out or the accelerator fails
        is the error passed on: another attempt may have more luck.
        """
        try:
            return self._evaluated(_checked(self._oracle.verify(crystals), crystals))
        except Exception as error:
            if machine_failed(error):
                raise
            return Verification.failed(crystals, len(self._objectives), f"the oracle failed: {describe(error)}")

    def _evaluated(self, verified: Verified) -> Verification:
        """The oracle's answer with every objective evaluated on it."""
        errors = dict(verified.errors) | _shapeless(verified)
        good = np.array([i for i in range(len(verified.crystals)) if i not in errors], dtype=np.int64)
        values = np.full((len(verified.crystals), len(self._objectives)), np.nan)
        judged = (unjudged(verified.crystals) if verified.relaxed is None else verified.relaxed)[good]
        asked = [o for o in self._objectives if o.name not in verified.values]
        estimates, faults = estimate_all(asked, judged)
        for column, objective in enumerate(self._objectives):
            if objective.name in verified.values:
                values[good, column] = verified.values[objective.name][good]
            else:
                values[good, column] = estimates[objective.name].mean
        errors.update({int(good[i]): fault for i, fault in faults.items()})
        values[np.abs(values) >= LARGEST] = np.nan
        for i in np.flatnonzero(~np.isfinite(values).all(1)).tolist():
            errors.setdefault(i, "the oracle gave no finite value for every objective")
        return Verification(verified, values, self._noise(verified), errors)

    def _noise(self, verified: Verified) -> FloatArray:
        """The oracle's standard deviations of every objective, shape `n x m`; NaN for what cannot be one."""
        nothing = np.full(len(verified.crystals), np.nan)
        noise = np.stack([verified.noise.get(o.name, nothing) for o in self._objectives], axis=1)
        return np.where(np.isfinite(noise) & (noise >= 0), noise, np.nan)


def _checked(verified: object, crystals: Crystals) -> Verified:
    """An oracle's answer; a cost that is no number of seconds counts as unknown, an error without words as one.

    Raises:
        TypeError: It is no `Verified`.
        ValueError: It speaks of other crystals.
    """
    if not isinstance(verified, Verified):
        raise TypeError(f"verify returned a {type(verified).__name__}, not a Verified")
    if verified.crystals.ids != crystals.ids:
        raise ValueError("verify answered for other crystals than were given, or in another order")
    cost = np.asarray(verified.cost_seconds, dtype=np.float64)
    return replace(
        verified,
        cost_seconds=np.where(np.isfinite(cost) & (cost >= 0), cost, np.nan),
        errors={int(i): str(error) or "the oracle gave no reason" for i, error in verified.errors.items()},
    )


def _shapeless(verified: Verified) -> dict[int, str]:
    """Crystals whose geometry the oracle's relaxation left with a number that is not finite."""
    crystals = verified.crystals if verified.relaxed is None else verified.relaxed.crystals
    bad = set(np.flatnonzero(~np.isfinite(crystals.lattices).all((1, 2))).tolist())
    bad |= set(crystals.batch[~np.isfinite(crystals.frac).all(1)].tolist())
    return dict.fromkeys(sorted(bad - set(verified.errors)), "the oracle gave a geometry that is not finite")
