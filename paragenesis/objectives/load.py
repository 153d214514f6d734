"""Objectives from a campaign's entries: an alias from one table, `file.py:name`, or `package.module:name`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paragenesis.crystals import Relaxed
from paragenesis.errors import InputError, ParagenesisError
from paragenesis.naming import find_object
from paragenesis.objectives.builtin import (
    NAME_PATTERN,
    BuiltIn,
    Density,
    EnergyAboveHull,
    FormationEnergy,
    MagneticMomentDensity,
)
from paragenesis.objectives.contract import Estimate, Need, Objective
from paragenesis.objectives.goals import Goal, parse_goal
from paragenesis.objectives.mechanics import BulkModulus
from paragenesis.objectives.supply import RawMaterialCost, SupplyRisk
from paragenesis.settings import Settings

BUILT_IN: Mapping[str, type[BuiltIn]] = {
    "energy_above_hull": EnergyAboveHull,
    "formation_energy": FormationEnergy,
    "density": Density,
    "bulk_modulus": BulkModulus,
    "magnetic_moment_density": MagneticMomentDensity,
    "supply_risk": SupplyRisk,
    "raw_material_cost": RawMaterialCost,
}


@dataclass(frozen=True)
class Renamed:
    """An objective under another name or goal."""

    inner: Objective
    name: str
    goal: Goal

    @property
    def unit(self) -> str:
        """The inner objective's unit."""
        return self.inner.unit

    @property
    def needs(self) -> frozenset[Need]:
        """The inner objective's needs."""
        return self.inner.needs

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """The inner objective's estimate."""
        return self.inner.estimate(relaxed)


def build_objective(use: str, options: Mapping[str, Any], directory: Path) -> Objective:
    """The objective that a campaign's entry names.

    Args:
        use: A built-in objective's alias, "file.py:name" with the file relative to `directory`, or
            "package.module:name". What is named there is an objective, or a class that makes one from the options.
        options: The entry's other keys; `goal` and `name` override those of any objective.
        directory: The campaign's directory.

    Raises:
        InputError: Nothing of that name, the file cannot be loaded, or the options do not fit.
    """
    if use in BUILT_IN:
        return BUILT_IN[use].from_options(options, directory)
    return _from_user(find_object("objective", use, directory, BUILT_IN), use, options, directory)


def _from_user(found: Any, use: str, options: Mapping[str, Any], directory: Path) -> Objective:
    """An objective from what a user's module holds under the name."""
    rest = {key: value for key, value in options.items() if key not in ("goal", "name")}
    if inspect.isclass(found):
        made = _instantiate(found, use, rest, directory)
    elif rest:
        raise InputError(f"objective '{use}' takes no options beside goal and name, but got {', '.join(rest)}")
    else:
        made = found
    if not isinstance(made, Objective):
        raise InputError(_not_an_objective(made, use))
    if "goal" not in options and "name" not in options:
        return made
    goal = parse_goal(options["goal"], f"objective '{use}': goal") if "goal" in options else made.goal
    name = options.get("name", made.name)
    if not isinstance(name, str) or not re.match(NAME_PATTERN, name):
        raise InputError(
            f"objective '{use}': the name {name!r} must begin with a letter and go on with letters, digits, _"
        )
    return Renamed(made, name, goal)


def _instantiate(cls: type[Any], use: str, options: Mapping[str, Any], directory: Path) -> Any:
    """An instance of a user's class from options; settings are parsed, other classes get keywords."""
    try:
        if issubclass(cls, BuiltIn):
            return cls.from_options(options, directory)
        return cls.parse(options, f"objective '{use}'") if issubclass(cls, Settings) else cls(**options)
    except ParagenesisError:
        raise
    except Exception as error:
        raise InputError(f"objective '{use}' cannot be made from the options {dict(options)}: {error}") from error


def _not_an_objective(found: Any, use: str) -> str:
    """Why an object is no objective, and the cure."""
    if inspect.isfunction(found):
        return f"'{use}' is a plain function; decorate it with @objective(goal=..., unit=...)"
    missing = [part for part in ("name", "unit", "goal", "needs", "estimate") if not hasattr(found, part)]
    return f"'{use}' (of type {type(found).__name__}) is no objective: it lacks {', '.join(missing)}"
