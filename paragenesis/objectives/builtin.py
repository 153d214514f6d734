"""The built-in objectives that read straight from `Relaxed`, and what all built-in objectives share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from paragenesis.crystals import Crystals, FloatArray, Relaxed
from paragenesis.objectives.contract import Estimate, Need, member_estimate
from paragenesis.objectives.goals import AnyGoal, Maximize, Minimize
from paragenesis.settings import Settings

NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_]*$"  # an objective's name is also a column's and a plot's


class BuiltIn(Settings):
    """What built-in objectives share: a name and a goal that a campaign may override, and building from options."""

    unit: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()

    name: str = Field(pattern=NAME_PATTERN, description="unique in a campaign")
    goal: AnyGoal = Field(description="which values are wanted")

    @classmethod
    def from_options(cls, options: Mapping[str, Any], directory: Path) -> Self:
        """The objective from a campaign's options; `directory` is where relative paths in them begin."""
        return cls.parse(options, f"objective '{cls.model_fields['name'].default}'")

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """Mean and standard deviation for every crystal."""
        raise NotImplementedError


class EnergyAboveHull(BuiltIn):
    """Energy above the convex hull, eV/atom: the ensemble's mean and spread."""

    unit: ClassVar[str] = "eV/atom"
    name: str = Field(default="energy_above_hull", pattern=NAME_PATTERN)
    goal: AnyGoal = Minimize()

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """Over the members that answered; NaN where none did or the reference lacks an element."""
        return member_estimate(relaxed.hull_distances)


class FormationEnergy(BuiltIn):
    """Formation energy from the elements, eV/atom: the ensemble's mean and spread."""

    unit: ClassVar[str] = "eV/atom"
    name: str = Field(default="formation_energy", pattern=NAME_PATTERN)
    goal: AnyGoal = Minimize()

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """Over the members that answered; NaN where none did or no reference is known for an element."""
        return member_estimate(relaxed.formation_energies)


class Density(BuiltIn):
    """Mass density, g/cm^3, at the relaxed geometry; there is one geometry, so no spread."""

    unit: ClassVar[str] = "g/cm3"
    name: str = Field(default="density", pattern=NAME_PATTERN)
    goal: AnyGoal = Minimize()

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """From the masses and the volume alone."""
        return certain(relaxed.crystals.densities)


class MagneticMomentDensity(BuiltIn):
    """Sum of the absolute atomic moments per volume, mu_B/A^3, over the members that predict moments (CHGNet).

    Absolute moments say nothing of their order: this is the magnetisation a ferromagnetic order would have.
    """

    unit: ClassVar[str] = "mu_B/A^3"
    name: str = Field(default="magnetic_moment_density", pattern=NAME_PATTERN)
    goal: AnyGoal = Maximize()

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """Over the members that predict moments; NaN if none does."""
        return member_estimate(relaxed.magnetic_moments / relaxed.crystals.volumes)


def certain(values: FloatArray) -> Estimate:
    """An estimate without uncertainty."""
    return Estimate(values, np.zeros_like(values))


def mass_weighted(crystals: Crystals, per_element: FloatArray) -> FloatArray:
    """Average of an element's property over mass fractions, shape `n`.

    Args:
        crystals: The n crystals.
        per_element: The property by atomic number, shape `Z_max + 1`; NaN where unknown.

    Returns:
        The averages; NaN for a crystal with an element whose value is unknown.
    """
    from ase.data import atomic_masses

    masses = np.asarray(atomic_masses, dtype=np.float64)[crystals.numbers]
    n = len(crystals)
    weighted = np.bincount(crystals.batch, weights=masses * per_element[crystals.numbers], minlength=n)
    average: FloatArray = weighted / np.bincount(crystals.batch, weights=masses, minlength=n)
    return average
