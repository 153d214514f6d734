"""Built-in objectives: their numbers, names, units and goals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paragenesis.errors import InputError
from paragenesis.objectives import (
    BUILT_IN,
    Density,
    EnergyAboveHull,
    FormationEnergy,
    MagneticMomentDensity,
    Maximize,
    Objective,
    Range,
    RawMaterialCost,
    build_objective,
    check_objective,
    sample_relaxed,
)

PRICES = {"Na": 3.0, "Cl": 0.15, "Mg": 2.3, "O": 0.1, "Fe": 0.4, "Si": 1.7}


@pytest.mark.parametrize("use", BUILT_IN)
def test_every_built_in_objective_passes_the_check(use: str) -> None:
    built = build_objective(use, {"prices": PRICES} if use == "raw_material_cost" else {}, Path())
    assert isinstance(built, Objective)
    assert built.name == use
    assert check_objective(built) == []


def test_energies_are_the_ensembles_mean_and_spread() -> None:
    relaxed = sample_relaxed()
    table = relaxed.hull_distances.copy()
    table[:, 0] = [0.01, 0.03]
    table[:, 1] = np.nan
    estimate = EnergyAboveHull().estimate(replace(relaxed, hull_distances=table))
    assert estimate.mean[0] == pytest.approx(0.02)
    assert estimate.std[0] == pytest.approx(0.02 / np.sqrt(2.0))
    assert np.isnan(estimate.mean[1])
    np.testing.assert_allclose(FormationEnergy().estimate(relaxed).mean[:5], relaxed.formation_energies[:, :5].mean(0))


def test_density_of_rock_salt() -> None:
    relaxed = sample_relaxed(("Na", "Cl"))[:1]
    lattice = relaxed.crystals.lattices * (44.84 / relaxed.crystals.volumes) ** (1 / 3)  # a = 5.64 A
    crystals = replace(relaxed.crystals, lattices=lattice)
    assert Density().estimate(replace(relaxed, crystals=crystals)).mean[0] == pytest.approx(2.164, abs=0.002)


def test_magnetic_moments_count_only_members_that_predict_them() -> None:
    relaxed = sample_relaxed()
    moments = np.full_like(relaxed.magnetic_moments, np.nan)
    moments[0] = 5.0
    estimate = MagneticMomentDensity().estimate(replace(relaxed, magnetic_moments=moments))
    np.testing.assert_allclose(estimate.mean, 5.0 / relaxed.crystals.volumes)
    assert np.isnan(estimate.std).all()


def test_goal_and_name_can_be_overridden() -> None:
    options = {"goal": {"kind": "range", "low": 2.0, "high": 4.0}, "name": "ship_density"}
    built = build_objective("density", options, Path())
    assert built.goal == Range(low=2.0, high=4.0)
    assert built.name == "ship_density"
    assert EnergyAboveHull(goal=Maximize()).goal == Maximize()


@pytest.mark.parametrize(
    ("use", "options", "words"),
    [
        ("density", {"gaol": "minimize"}, "objective 'density': unknown key 'gaol'; did you mean 'goal'"),
        ("density", {"goal": "least"}, "kinds maximize"),
        ("density", {"name": "mass density"}, "'name'"),
        ("bulk_modulus", {"max_residual": 0.0}, "max_residual"),
        ("supply_risk", {"of": "stock"}, "'of'"),
        ("supply_risk", {"values": {"Xx": 1.0}}, "'Xx' is no chemical element"),
        ("raw_material_cost", {}, "'prices' is missing"),
        ("raw_material_cost", {"prices": {"Fe": -1.0}}, "prices.Fe"),
        ("raw_material_cost", {"prices": {"Fee": 1.0}}, "'Fee' is no chemical element"),
        ("densty", {}, "did you mean 'density'"),
        ("whatever", {}, "built in are bulk_modulus, density, energy_above_hull"),
    ],
)
def test_wrong_options_name_the_field(use: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_objective(use, options, Path())


def test_settings_survive_as_plain_values() -> None:
    cost = RawMaterialCost(prices=PRICES, goal=Range(low=1.0, high=2.0))
    assert RawMaterialCost.parse(cost.model_dump()) == cost
