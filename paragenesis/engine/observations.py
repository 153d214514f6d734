"""What was tried, read from a user's table: outcomes of every objective, their noise and their level of fidelity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import BoolArray, FloatArray, IntArray
from paragenesis.engine.columns import numbers_of
from paragenesis.errors import InputError
from paragenesis.settings import shown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Observations:
    """What was tried.

    Attributes:
        X: Features, shape `k x d`.
        Y: Outcomes, shape `k x m`; NaN where missing.
        noise: Their standard deviations, shape `k x m`; a column of NaN where they are to be learnt.
        levels: 0 for the outcomes that are wanted, larger numbers for cheaper ones, shape `k`.
        note: What was left out.
    """

    X: FloatArray
    Y: FloatArray
    noise: FloatArray
    levels: IntArray
    note: str

    @classmethod
    def read(
        cls,
        table: pd.DataFrame | None,
        pool: pd.DataFrame,
        X: FloatArray,
        names: Sequence[str],
        noise: Mapping[str, float | str] | None,
        fidelity: str | None,
    ) -> Observations:
        """Those of a table whose features are finite.

        Args:
            table: The observations.
            pool: The candidates.
            X: The observations' features as numbers, shape `k x d`.
            names: The columns of the objectives.
            noise: See `decide`.
            fidelity: See `decide`.

        Raises:
            InputError: A column is missing or holds something else than it should.
        """
        Y, levels = _outcomes(table, names), _levels(table, pool, fidelity)
        infinite = int(np.isinf(Y).any(1).sum())
        Y = np.where(np.isfinite(Y), Y, np.nan)
        deviations = _noise(table, names, noise, np.isfinite(Y) & (levels == 0)[:, None])
        # how noisy cheaper levels are beyond what is said is learnt in any case
        unsaid = np.isnan(deviations) & (levels > 0)[:, None] & np.isfinite(deviations).any(0)
        deviations[unsaid] = 0.0
        usable = np.isfinite(X).all(1)
        lost = int((~usable).sum())
        notes = [f"{lost} observations with missing features are not used"] if lost else []
        notes += [f"{infinite} observations have an infinite outcome, which counts as missing"] if infinite else []
        return cls(X[usable], Y[usable], deviations[usable], levels[usable], "; ".join(notes))

    @property
    def at_target(self) -> Observations:
        """What was tried at the level that is wanted."""
        rows = self.levels == 0
        return Observations(self.X[rows], self.Y[rows], self.noise[rows], self.levels[rows], self.note)

    def silent(self, names: Sequence[str]) -> list[str]:
        """A sentence for each objective that teaches nothing."""
        different = [len(np.unique(column[np.isfinite(column)])) for column in self.Y.T]
        words = ("no outcome is known", "one outcome says nothing about where to look")
        return [f"'{name}': {words[k]}" for name, k in zip(names, different, strict=True) if k < 2 and len(self.Y)]


def _outcomes(observations: pd.DataFrame | None, names: Sequence[str]) -> FloatArray:
    """Outcomes of the observations, shape `k x m`; NaN where missing.

    Raises:
        InputError: There is no column for an objective, or it holds no numbers.
    """
    if observations is None or not len(observations):
        return np.zeros((0, len(names)))
    columns = []
    for name in names:
        if name not in observations.columns:
            raise InputError(
                f"the observations have no column '{name}' for an objective; they have "
                f"{', '.join(map(str, observations.columns))}"
            )
        values = numbers_of(observations[name])
        if values is None and observations[name].notna().any():
            raise InputError(f"the column '{name}' is an objective and must hold numbers; convert it")
        columns.append(np.full(len(observations), np.nan) if values is None else values)
    return np.stack(columns, axis=1)


def _noise(
    observations: pd.DataFrame | None,
    names: Sequence[str],
    noise: Mapping[str, float | str] | None,
    needed: BoolArray,
) -> FloatArray:
    """Standard deviations of the outcomes, shape `k x m`; a column of NaN for an objective that is not named.

    They may be missing where they are not `needed`, shape `k x m`.

    Raises:
        InputError: A name is no objective, a column is missing or holds no numbers, or a number cannot be one.
    """
    k = 0 if observations is None else len(observations)
    table = np.full((k, len(names)), np.nan)
    if noise is not None and not isinstance(noise, Mapping):
        raise InputError(f"noise is given by objective, such as {{'{names[0]}': 0.1}}, but {shown(noise)} was given")
    for name, given in (noise or {}).items():
        if name not in names:
            raise InputError(f"noise names '{name}', which is no objective; there are {', '.join(names)}")
        values: FloatArray | float | None = None
        if isinstance(given, Real):
            values = float(given)
        elif isinstance(given, str) and observations is not None and k and given in observations.columns:
            values = numbers_of(observations[given])
        if values is None:
            if isinstance(given, str) and not k:
                continue
            raise InputError(f"the noise of '{name}' is read from {shown(given)}, which is no column of numbers")
        j = names.index(name)
        table[:, j] = values
        if not (np.isfinite(table[:, j]) & (table[:, j] >= 0))[needed[:, j]].all():
            raise InputError(
                f"the noise of '{name}' is missing, infinite or negative for some observations; give its standard "
                "deviation for each"
            )
    return table


def _levels(observations: pd.DataFrame | None, pool: pd.DataFrame, column: str | None) -> IntArray:
    """The level of each observation, shape `k`.

    Raises:
        InputError: The column is missing, is a feature, or holds something else than whole numbers from 0 on.
    """
    k = 0 if observations is None else len(observations)
    if column is None or observations is None or not k:
        return np.zeros(k, dtype=np.int64)
    if column in pool.columns:
        raise InputError(f"'{column}' is the fidelity of observations and no feature; leave it out of the pool")
    if column not in observations.columns:
        raise InputError(
            f"the observations have no column '{column}' with their fidelity; add it, 0 for what is wanted"
        )
    values = observations[column]
    numbers = numbers_of(values)
    if numbers is None or not (np.isfinite(numbers) & (numbers >= 0) & (numbers == np.round(numbers))).all():
        raise InputError(f"the fidelity in '{column}' must be whole numbers: 0 for what is wanted, larger for cheaper")
    return numbers.astype(np.int64)
