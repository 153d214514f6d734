"""The potential oracle: relaxes on, judges at its own level, records refusals and what it cannot relax."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paragenesis.crystals import Crystals
from paragenesis.engine.hull import Hull
from paragenesis.engine.level import Level
from paragenesis.engine.oracles import check_oracle, estimated_costs
from paragenesis.engine.oracles.potential import PotentialOracle, PotentialOracleSettings
from paragenesis.engine.potentials.contract import Potential
from paragenesis.engine.references import ElementReferences
from paragenesis.errors import InputError
from paragenesis.objectives import BulkModulus, sample_relaxed
from paragenesis.testing import lennard_jones_potential

REFERENCES = ElementReferences({"Na": -1.0, "Cl": -1.0, "Mg": -1.2}, np.nan, np.nan, 0, "made up")
HULL = Hull("made-up", "lennard-jones", ["NaCl"], [-1.0])
SETTINGS = PotentialOracleSettings(fmax=0.02, max_steps=300)


@pytest.fixture(scope="module")
def potential() -> Potential:
    return lennard_jones_potential()


@pytest.fixture(scope="module")
def crystals() -> Crystals:
    return sample_relaxed(("Na", "Cl")).crystals[:3]


def oracle(potential: Potential, settings: PotentialOracleSettings = SETTINGS) -> PotentialOracle:
    return PotentialOracle(settings, hull=HULL, needs=frozenset({"strain"}), potential=potential, references=REFERENCES)


def test_it_relaxes_and_judges_at_its_own_level(potential: Potential, crystals: Crystals) -> None:
    verified = oracle(potential).verify(crystals)
    assert verified.errors == {}
    assert verified.crystals.ids == crystals.ids
    assert verified.relaxed is not None
    assert verified.relaxed.members == ("lennard-jones",)
    assert (verified.relaxed.max_forces < SETTINGS.fmax).all()
    assert (np.abs(verified.crystals.volumes / crystals.volumes - 1.0) > 1e-3).any()
    assert (verified.cost_seconds > 0.0).all()
    formation = verified.relaxed.energies[0] + 1.0
    np.testing.assert_allclose(verified.relaxed.hull_distances[0], formation + 1.0)  # the hull at NaCl stands at -1
    assert (BulkModulus().estimate(verified.relaxed).mean > 0.0).all()


def test_it_passes_the_check(potential: Potential, crystals: Crystals) -> None:
    assert check_oracle(oracle(potential), crystals) == []


def test_large_crystals_and_many_steps_cost_more(potential: Potential, crystals: Crystals) -> None:
    quick = estimated_costs(oracle(potential, PotentialOracleSettings(max_steps=5)), crystals)
    assert np.allclose(quick / quick[0], crystals.n_atoms / crystals.n_atoms[0])
    assert (estimated_costs(oracle(potential), crystals) > quick).all()


def test_what_the_potential_refuses_is_an_error_of_that_crystal_alone(potential: Potential, crystals: Crystals) -> None:
    broken = replace(crystals, lattices=crystals.lattices.copy())
    broken.lattices[1] = np.nan
    verified = oracle(potential).verify(broken)
    assert list(verified.errors) == [1]
    alone = oracle(potential).verify(crystals[[0, 2]])
    assert verified.relaxed is not None
    assert alone.relaxed is not None
    np.testing.assert_allclose(verified.relaxed.energies[:, [0, 2]], alone.relaxed.energies, rtol=1e-6)
    assert verified.crystals.ids == crystals.ids
    assert verified.ok.tolist() == [True, False, True]


def test_all_refused_is_an_answer_too(potential: Potential, crystals: Crystals) -> None:
    broken = replace(crystals, lattices=np.full_like(crystals.lattices, np.nan))
    verified = oracle(potential).verify(broken)
    assert sorted(verified.errors) == [0, 1, 2]
    assert not verified.ok.any()


def test_what_does_not_relax_is_an_error_that_says_so(potential: Potential, crystals: Crystals) -> None:
    verified = oracle(potential, PotentialOracleSettings(fmax=1e-4, max_steps=2)).verify(crystals)
    assert sorted(verified.errors) == [0, 1, 2]
    assert "not relaxed after 2 steps" in verified.errors[0]
    assert "raise max_steps" in verified.errors[0]


def test_the_level_changes_with_whatever_changes_a_number(potential: Potential) -> None:
    first = oracle(potential).level
    assert first == oracle(potential).level
    assert first.references == REFERENCES.key
    finer = oracle(potential, PotentialOracleSettings(fmax=0.01, max_steps=300)).level
    others = replace(REFERENCES, values={"Na": -1.1, "Cl": -1.0})
    shifted = PotentialOracle(SETTINGS, hull=HULL, potential=potential, references=others).level
    assert len({level.key for level in (first, finer, shifted)}) == 3
    assert isinstance(first, Level)


def test_an_unknown_potential_is_named() -> None:
    with pytest.raises(InputError, match="chgnet-r2skan"):
        PotentialOracle(PotentialOracleSettings(potential="chgnet-r2skan"), hull=HULL)


def test_reference_data_lie_beside_the_campaign(potential: Potential, tmp_path: Path) -> None:
    settings = PotentialOracleSettings(reference_data="absent.csv")
    with pytest.raises(InputError, match=str(tmp_path / "absent.csv")):
        PotentialOracle(settings, hull=HULL, directory=tmp_path, potential=potential)
