"""`check_objective`: what is wrong with an objective, told to its author."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from paragenesis.crystals import Crystals, Relaxed
from paragenesis.errors import ParagenesisError
from paragenesis.objectives.builtin import NAME_PATTERN
from paragenesis.objectives.contract import Estimate, Need, Objective
from paragenesis.objectives.goals import Goal
from paragenesis.objectives.sample import sample_relaxed
from paragenesis.settings import one_line, shown

_PARTS = ("name", "unit", "goal", "needs", "estimate")
_TOLERANCE = 1e-9  # batches of other sizes may differ in the last digits


def check_objective(objective: Objective, relaxed: Relaxed | None = None) -> list[str]:
    """What is wrong with an objective, a sentence a fault; an empty list means that a campaign may use it.

    Checked are name, unit, goal and needs; that `estimate` raises nothing, answers with finite numbers of the right
    shape, says the same when asked again, whatever other crystals are in the batch and in whatever order, and leaves
    its input alone; and that the objective can be sent to another process.

    NaN has two meanings that are no faults: a std where at most one member of the ensemble answered, and a mean
    where none did.

    Args:
        objective: The objective.
        relaxed: Crystals to try it on; made-up ones by default.
    """
    problems = list(_declaration_faults(objective))
    if problems:
        return problems
    sample = sample_relaxed() if relaxed is None else relaxed
    given = deepcopy(sample if "strain" in objective.needs else without_strains(sample))
    before = _copy(given)
    estimate, fault = _ask(objective, given)
    if estimate is None:
        return [fault + _needs_hint(objective, sample)]
    problems += _value_faults(estimate, given)
    if not problems:
        problems += _repetition_faults(objective, given, estimate)
    problems += _mutation_faults(before, given)
    problems += _pickle_faults(objective, given, estimate)
    return [problem + _needs_hint(objective, sample) if "NaN" in problem else problem for problem in problems]


def without_strains(relaxed: Relaxed) -> Relaxed:
    """The same crystals without an equation of state, as an objective without the need "strain" gets them."""
    empty = np.zeros((*relaxed.energies.shape, 0))
    return replace(relaxed, strains=np.zeros(0), strain_energies=empty)


def _declaration_faults(objective: Objective) -> Iterator[str]:
    """Faults of name, unit, goal and needs."""
    try:
        missing = [part for part in _PARTS if not hasattr(objective, part)]
    except Exception as error:  # noqa: BLE001  whatever a user's object raises is the finding
        yield f"a {type(objective).__name__} is no objective: it raised {_said(error)}"
        return
    if missing:
        yield f"a {type(objective).__name__} is no objective: it lacks {', '.join(missing)}"
        return
    if not isinstance(objective.name, str) or not re.match(NAME_PATTERN, objective.name):
        yield f"the name {shown(objective.name)} is no name: begin with a letter, go on with letters, digits and '_'"
    if not isinstance(objective.unit, str) or not objective.unit.strip():
        yield f'the unit is missing ({shown(objective.unit)}): give the values\' unit, "1" if they have none'
    if not isinstance(objective.goal, Goal) or type(objective.goal) is Goal:
        yield f"the goal is {shown(objective.goal)}: give Maximize(), Minimize(), Target(...) or Range(...)"
    known = get_args(Need)
    if not isinstance(objective.needs, (set, frozenset)) or not objective.needs <= set(known):
        yield f"needs is {shown(objective.needs)}: give a frozenset with any of {', '.join(map(repr, known))}"


def _ask(objective: Objective, relaxed: Relaxed) -> tuple[Estimate | None, str]:
    """The objective's estimate, or what it did instead of giving one."""
    try:
        estimate = objective.estimate(relaxed)
    except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001  whatever a user's code raises is the finding
        if isinstance(error, ParagenesisError):
            return None, f"estimate failed: {error}"
        return None, f"estimate raised {_said(error)}{_line_of(error)}"
    if not isinstance(estimate, Estimate):
        return None, f"estimate returned a {type(estimate).__name__}: return Estimate(mean, std)"
    return estimate, ""


def _said(error: BaseException) -> str:
    """An exception's type and words."""
    return one_line(f"{type(error).__name__}: {error}")


def _line_of(error: BaseException) -> str:
    """Where an exception was raised, the innermost line outside installed packages."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _value_faults(estimate: Estimate, relaxed: Relaxed) -> Iterator[str]:
    """Faults of shape and of values that are no numbers."""
    if estimate.mean.shape != (len(relaxed),):
        yield f"estimate gave values of shape {estimate.mean.shape} for {len(relaxed)} crystals: give one a crystal"
        return
    answers = np.isfinite(relaxed.energies).sum(0)
    std_wanted = np.isfinite(estimate.mean) & (answers > 1)
    faults: list[tuple[Any, str]] = [
        (np.isinf(estimate.mean), "the mean is infinite"),
        (np.isnan(estimate.mean) & (answers > 0), "the mean is NaN (which makes it a failed candidate)"),
        (np.isinf(estimate.std), "the std is infinite"),
        (np.isnan(estimate.std) & std_wanted, "the std is NaN (allowed only where at most one member answered)"),
        (estimate.std < 0, "the std is negative"),
    ]
    for wrong, words in faults:
        if wrong.any():
            which = ", ".join(relaxed.crystals.formulas[i] for i in np.flatnonzero(wrong)[:3])
            yield f"{words} for {int(wrong.sum())} of {len(relaxed)} crystals ({which})"


def _repetition_faults(objective: Objective, relaxed: Relaxed, first: Estimate) -> Iterator[str]:
    """Faults that show only when the objective is asked again: chance, and dependence on the rest of the batch."""
    again, fault = _ask(objective, relaxed)
    if again is None:
        yield f"a second call on the same crystals failed: {fault}"
        return
    if not _agree(first, again, tolerance=0.0):
        yield "two calls on the same crystals gave different values: use no random numbers, keep no state"
        return
    n = len(relaxed)
    views: list[tuple[str, Any]] = [("in reverse order", np.arange(n)[::-1])]
    views += [("one by one", np.array([i])) for i in range(min(n, 8))]
    for words, index in views:
        part, fault = _ask(objective, relaxed[index])
        if part is None:
            yield f"asked {words}, {fault}"
            return
        if not _agree(Estimate(first.mean[index], first.std[index]), part):
            yield f"asked {words}, the crystals get other values: a value may depend on its own crystal only"
            return


def _mutation_faults(before: dict[str, Any], relaxed: Relaxed) -> Iterator[str]:
    """Arrays of the input that an objective changed."""
    after = _copy(relaxed)
    changed = [name for name in before if not np.array_equal(before[name], after[name], equal_nan=True)]
    if changed:
        yield f"estimate changed its input ({', '.join(changed)}): work on a copy"


def _pickle_faults(objective: Objective, relaxed: Relaxed, first: Estimate) -> Iterator[str]:
    """Whether the objective survives the way to another process."""
    import cloudpickle

    try:
        copy = cloudpickle.loads(cloudpickle.dumps(objective))
    except Exception as error:  # noqa: BLE001  whatever a user's object raises is the finding
        yield f"the objective cannot be pickled ({_said(error)}): keep no open files, locks or models"
        return
    answer, fault = _ask(copy, relaxed)
    if answer is None:
        yield f"after pickling, {fault}"


def _needs_hint(objective: Objective, sample: Relaxed) -> str:
    """The cure for an objective that reads the equation of state without asking for one."""
    if "strain" in objective.needs or len(sample.strains) == 0:
        return ""
    estimate, _ = _ask(objective, deepcopy(sample))
    if estimate is None or any(_value_faults(estimate, sample)):
        return ""
    return '; with an equation of state it works: declare needs={"strain"}'


def _agree(one: Estimate, other: Estimate, tolerance: float = _TOLERANCE) -> bool:
    """Whether two estimates say the same."""
    pairs = ((one.mean, other.mean), (one.std, other.std))
    return all(a.shape == b.shape and np.allclose(a, b, tolerance, tolerance, equal_nan=True) for a, b in pairs)


def _copy(relaxed: Relaxed) -> dict[str, Any]:
    """Copies of all arrays, by name."""
    arrays: dict[str, Any] = {}
    for owner in (relaxed, relaxed.crystals):
        for field in fields(owner):
            value = getattr(owner, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"crystals.{field.name}" if isinstance(owner, Crystals) else field.name] = value.copy()
    return arrays
