"""Estimates: what the objectives say of crystals, whatever they raise or return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from paragenesis.crystals import IntArray, Relaxed
from paragenesis.engine.executor import describe, machine_failed
from paragenesis.objectives.contract import Estimate, Objective

T = TypeVar("T")


LARGEST = 1e100  # of larger values not even the square is a number


def estimate_all(objectives: Sequence[Objective], relaxed: Relaxed) -> tuple[dict[str, Estimate], dict[int, str]]:
    """Every objective's estimate, and for crystals that an objective cannot judge the reason by index.

    An objective that raises on a batch, or returns no estimate for it, is asked again on halves until the crystals it
    cannot bear stand alone. A mean must be finite and smaller than `LARGEST`; a std may be NaN, "unknown", but neither
    infinite nor negative.

    Raises:
        MemoryError: Or torch's own: there is not enough for one crystal alone, which is no fault of the crystal.
    """
    n = len(relaxed)
    estimates: dict[str, Estimate] = {}
    errors: dict[int, str] = {}
    for objective in objectives:
        mean, std = np.full(n, np.nan), np.full(n, np.nan)

        def ask(rows: IntArray, objective: Objective = objective) -> Estimate:
            return _checked(objective.estimate(relaxed[rows]), len(rows))

        answers, faults = isolate(ask, n, but=machine_failed)
        for rows, answer in answers:
            mean[rows], std[rows] = answer.mean, answer.std
        for i, fault in faults.items():
            errors.setdefault(i, f"objective '{objective.name}': {fault}")
        for i in np.flatnonzero(~(np.isfinite(mean) & (np.abs(mean) < LARGEST))).tolist():
            errors.setdefault(i, f"objective '{objective.name}' gave {mean[i]}")
        for i in np.flatnonzero(~(np.isnan(std) | (np.isfinite(std) & (std >= 0)))).tolist():
            errors.setdefault(i, f"objective '{objective.name}' gave a standard deviation of {std[i]}")
        estimates[objective.name] = Estimate(mean, std)
    return estimates, errors


def _checked(answer: object, n: int) -> Estimate:
    """An objective's answer.

    Raises:
        TypeError: It is no estimate.
        ValueError: It is one of another number of crystals.
    """
    if not isinstance(answer, Estimate):
        raise TypeError(f"returned a {type(answer).__name__}, not an Estimate")
    if len(answer.mean) != n:
        raise ValueError(f"returned {len(answer.mean)} values for {n} crystals")
    return answer


def isolate(
    work: Callable[[IntArray], T], n: int, but: Callable[[Exception], bool] = lambda _: False
) -> tuple[list[tuple[IntArray, T]], dict[int, str]]:
    """Do work on n rows together, halving what raises until each guilty row stands alone.

    Args:
        work: Takes row numbers, returns a result for them.
        n: How many rows there are.
        but: Which errors are raised and not recorded where a row is alone.

    Returns:
        The results with their rows, and the error of each row that failed by itself.
    """
    results: list[tuple[IntArray, T]] = []
    errors: dict[int, str] = {}
    open_rows = [np.arange(n)] if n else []
    while open_rows:
        rows = open_rows.pop(0)
        try:
            results.append((rows, work(rows)))
        except Exception as error:  # a plug-in may raise anything; each error is recorded
            if len(rows) == 1:
                if but(error):
                    raise
                errors[int(rows[0])] = describe(error)
            else:
                open_rows[:0] = np.array_split(rows, 2)
    return results, errors
