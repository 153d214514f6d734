"""Substitution obeys every part of a condition, is determined by its seed, and says when nothing is possible."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_numbers
from pymatgen.core import Lattice, Structure

from paragenesis.crystals import Crystals
from paragenesis.engine.generators import (
    Condition,
    SeedStructure,
    Substitution,
    SubstitutionSettings,
    check_generator,
)
from paragenesis.engine.generators.ions import ion_table
from paragenesis.engine.generators.patterns import patterns_of
from paragenesis.engine.generators.volume import predict_volumes
from paragenesis.errors import InputError

TERNARY = Condition(chemical_system="Ca-Ti-O")
PEROVSKITE = SeedStructure(
    numbers=(20, 22, 8, 8, 8),
    frac=((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0)),
    lattice=((3.9, 0.0, 0.0), (0.0, 3.9, 0.0), (0.0, 0.0, 3.9)),
    fixed=(2, 3, 4),
)


@pytest.fixture(scope="module")
def generator() -> Substitution:
    return Substitution()


@pytest.mark.parametrize(
    "condition",
    [
        Condition(),
        TERNARY,
        Condition(allowed_elements=("Li", "Na", "Mn", "Fe", "O", "F", "P"), required_elements=("Li", "O")),
        Condition(required_elements=("U",), min_atoms=6, max_atoms=9),
        Condition(composition="MgAl2O4", max_atoms=28),
        Condition(composition="Ca2Ti2O6"),
        Condition(chemical_system="Mg-O", space_group=225),
        Condition(allowed_elements=("Sr", "Ba", "Ti", "Zr", "O", "S"), space_group=221),
        Condition(prototype="spinel", required_elements=("O",)),
        Condition(chemical_system="K-Mg-F", prototype="perovskite"),
        Condition(chemical_system="Si"),
        Condition(chemical_system="Li-Fe-P-O", min_atoms=7, max_atoms=16),
        Condition(charge_neutral=True),
        Condition(charge_neutral=True, chemical_system="Cu-Fe-S"),
        Condition(seed_structure=PEROVSKITE, guidance=1.0),
        Condition(seed_structure=PEROVSKITE, charge_neutral=True, space_group=221, required_elements=("Ba",)),
    ],
    ids=str,
)
def test_every_part_of_a_condition_holds(generator: Substitution, condition: Condition) -> None:
    assert check_generator(generator, condition, n=12) == []


def test_a_prototype_is_named_in_the_origin_and_stays_whole(generator: Substitution) -> None:
    crystals = generator.generate(30, Condition(prototype="spinel"), 0)
    assert len(crystals) == 30
    assert all("(Spinel, MgAl2O4)" in origin and "orbit" not in origin for origin in crystals.origins)
    assert {tuple(sorted(Counter(c.numbers.tolist()).values())) for c in crystals} == {(2, 4, 8)}


def test_the_seed_and_nothing_else_decides(generator: Substitution) -> None:
    for condition in (TERNARY, Condition()):
        first = generator.generate(40, condition, 5)
        assert first == Substitution().generate(40, condition, 5)  # whatever was asked of an instance before
        assert first == pickle.loads(pickle.dumps(generator)).generate(40, condition, 5)
        other = generator.generate(40, condition, 6)
        assert set(first.origins) != set(other.origins)
        assert generator.generate(10, condition, 5) == first[:10]


def test_crystals_of_one_call_are_distinct(generator: Substitution) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    crystals = generator.generate(10**6, Condition(chemical_system="Na-Cl", max_atoms=4), 0)
    assert len(set(crystals.origins)) == len(crystals) > 80
    rocksalt = [i for i, origin in enumerate(crystals.origins) if "AB_cF8_225_a_b " in origin]
    assert len(rocksalt) == 1  # exchanging the two elements gives the same crystal
    cubic = [c for c, o in zip(crystals.to_structures(), crystals.origins, strict=True) if "AB3_cP4_221" in o]
    assert len(cubic) == 2  # here it does not: Na3Cl and NaCl3
    assert not StructureMatcher().fit(*cubic)


@pytest.mark.parametrize("system", ["Ca-Ti-O", "Mg-Al-O", "Li-Mn-O", "Mg-Si-O"])
def test_a_ternary_system_has_several_hundred_candidates(generator: Substitution, system: str) -> None:
    condition = Condition(chemical_system=system)
    assert len(generator.generate(700, condition, 0)) == 700
    assert (generator.space(condition).distinct or 0) > 1500


def neutral_share(settings: SubstitutionSettings) -> float:
    """How many of 200 crystals Li1+ Mn1+ to Mn7+ O2- can make neutral."""
    crystals = Substitution(settings).generate(200, Condition(chemical_system="Li-Mn-O"), 0)
    counts = [Counter(c.numbers.tolist()) for c in crystals]
    return float(np.mean([1 <= (2 * c[8] - c[3]) / c[25] <= 7 for c in counts]))


def test_neutral_decorations_come_first_or_alone() -> None:
    assert neutral_share(SubstitutionSettings()) > 0.8
    assert neutral_share(SubstitutionSettings(charged_weight=1.0)) < 0.7
    assert neutral_share(SubstitutionSettings(charged_weight=0.0)) == 1.0


def test_likely_ions_are_preferred_and_temperature_flattens() -> None:
    """Oxygen sits on the perovskite's oxygen site far more often than on its cation sites."""
    counts = []
    for temperature in (1.0, 50.0):
        generator = Substitution(SubstitutionSettings(temperature=temperature, charged_weight=1.0, partial_share=0.0))
        drawn = [generator.generate(1, Condition(chemical_system="Sr-Zr-O", prototype="E2_1"), s) for s in range(60)]
        counts.append(sum(c.formulas[0] == "SrZrO3" for c in drawn))
    assert counts[0] > 55
    assert counts[1] < 50


def test_partial_substitution_moves_one_orbit_only() -> None:
    """Against the template's own grouping of sites, exactly one orbit has left its group, and as a whole."""
    generator = Substitution(SubstitutionSettings(partial_share=1.0))
    templates = {t.name: t for t in generator.library.templates}
    crystals = generator.generate(150, TERNARY, 1)
    assert len(crystals) == 150
    for crystal in crystals:
        name = crystal.origins[0].removeprefix("substitution in ").split(" ")[0]
        template, numbers = templates[name], crystal.numbers
        orbit = int(crystal.origins[0].split("orbit ")[1].split(" ")[0])
        moved = template.orbits == orbit
        assert len(set(numbers[moved])) == 1
        old = template.numbers[moved][0]
        rest = {int(z): set(numbers[(template.numbers == z) & ~moved].tolist()) for z in set(template.numbers)}
        assert all(len(elements) == 1 for elements in rest.values())
        assert set(numbers[moved].tolist()) != rest[int(old)]


def test_full_substitution_keeps_the_grouping() -> None:
    generator = Substitution(SubstitutionSettings(partial_share=0.0))
    crystals = generator.generate(100, TERNARY, 1)
    assert not any("orbit" in origin for origin in crystals.origins)


def test_share_of_partial_substitution(generator: Substitution) -> None:
    for share in (0.1, 0.9):
        generator = Substitution(SubstitutionSettings(partial_share=share))
        drawn = [generator.generate(1, TERNARY, seed).origins[0] for seed in range(100)]
        assert abs(np.mean(["orbit" in origin for origin in drawn]) - share) < 0.15


def test_volumes_are_predicted_not_copied(generator: Substitution) -> None:
    crystals = generator.generate(50, Condition(), 0)
    np.testing.assert_allclose(crystals.volumes, predict_volumes(crystals))


def test_rattling_moves_atoms_a_little(generator: Substitution) -> None:
    condition = Condition(prototype="perovskite", chemical_system="Ca-Ti-O", max_atoms=5)
    (still,) = generator.generate(1, condition, 0).to_structures()
    (moved,) = Substitution(SubstitutionSettings(rattle=0.03)).generate(1, condition, 0).to_structures()
    shifts = [a.distance(b) for a, b in zip(still, moved, strict=True)]
    assert 0.005 < np.mean(shifts) < 0.15
    assert still.lattice == moved.lattice


def test_pure_elements_and_rare_elements_only_when_asked_for(generator: Substitution) -> None:
    free = generator.generate(300, Condition(), 2)
    assert all(len(set(c.numbers.tolist())) > 1 for c in free)
    forbidden = {atomic_numbers[e] for e in ("He", "Ne", "Ar", "Kr", "Xe", "Tc", "Pm", "Po", "Ac", "U", "Pu")}
    assert not forbidden & set(free.numbers.tolist())
    asked = generator.generate(20, Condition(allowed_elements=("U", "O")), 2)
    assert all(set(c.numbers.tolist()) == {92, 8} for c in asked)
    assert len(set(generator.generate(5, Condition(chemical_system="Xe"), 0).origins)) == 5


def test_more_than_exist_gives_all_that_exist(generator: Substitution) -> None:
    condition = Condition(prototype="E2_1", chemical_system="K-Mg-F")
    crystals = generator.generate(100, condition, 0)
    assert len(crystals) == 6  # three elements on three sites that no symmetry exchanges
    assert len(generator.generate(0, condition, 0)) == 0


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Condition(chemical_system="Li-Na-K-Mg-Ca-Sr-Ba-O", max_atoms=12), "can hold 8 elements"),
        (Condition(composition="CaTiO3", max_atoms=5, space_group=160), "has space group 160"),
        (Condition(composition="Ca17O3"), "can hold the composition Ca17O3"),
        (Condition(prototype="peroskite"), "did you mean"),
        (Condition(prototype="spinel", max_atoms=10), "has 1 to 10 atoms"),
        (Condition(min_atoms=1000, max_atoms=2000), "widen min_atoms and max_atoms"),
    ],
)
def test_zero_candidates_say_why(generator: Substitution, condition: Condition, words: str) -> None:
    with pytest.raises(InputError, match=words):
        generator.generate(4, condition, 0)


def test_nothing_neutral_says_so() -> None:
    strict = Substitution(SubstitutionSettings(charged_weight=0.0))
    with pytest.raises(InputError, match="charge-neutral"):
        strict.generate(4, Condition(composition="NaCl3"), 0)


def test_charged_decorations_are_left_out_where_neutrality_is_demanded(generator: Substitution) -> None:
    system = {"chemical_system": "Cu-Fe-S", "max_atoms": 10}
    free, neutral = (
        generator.space(Condition(**system, charge_neutral=demanded)).distinct for demanded in (False, True)
    )
    assert neutral is not None
    assert free is not None
    assert 0 < neutral < free
    alloys = generator.generate(200, Condition(chemical_system="Cu-Zn"), 0)
    with pytest.raises(InputError, match="charge"):
        Condition.parse({"chemical_system": "Cu-Zn", "charge_neutral": True})
    assert len(alloys) > 10


def test_a_seed_structure_takes_the_place_of_the_prototypes(generator: Substitution) -> None:
    condition = Condition(seed_structure=PEROVSKITE, allowed_elements=("Ba", "Sr", "Ti", "Zr", "O"))
    crystals = generator.generate(100, condition, 0)
    assert len(crystals) == 20  # two of five elements on two sites that no symmetry exchanges
    assert set(condition.violations(crystals)) == {""}
    assert all(origin.startswith("substitution in the seed structure (CaTiO3): ") for origin in crystals.origins)
    alone = Condition(seed_structure=PEROVSKITE.model_copy(update={"fixed": (0, 1, 2, 3, 4)}))
    assert generator.generate(5, alone, 0).formulas == ("CaTiO3",)


def test_an_orbit_of_the_seed_may_take_the_element_of_fixed_sites() -> None:
    """In a doubled cell with one free metal site, that takes what else is allowed, fixed elements included."""
    doubled = SeedStructure(
        numbers=(38, 38, 22, 22, 8, 8, 8, 8, 8, 8),
        frac=tuple(
            (x, y, (z + k) / 2)
            for x, y, z in ((0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))
            for k in (0, 1)
        ),
        lattice=((3.9, 0.0, 0.0), (0.0, 3.9, 0.0), (0.0, 0.0, 7.8)),
        fixed=(0, 1, 2, 4, 5, 6, 7, 8, 9),
    )
    condition = Condition(seed_structure=doubled, allowed_elements=("Sr", "Ti", "O"))
    crystals = Substitution().generate(100, condition, 0)
    assert set(condition.violations(crystals)) == {""}
    assert sorted(crystals.formulas) == ["Sr2TiO7", "Sr3TiO6", "SrTiO3"]


def test_rattling_away_from_the_seed_structure_says_so() -> None:
    shaken = Substitution(SubstitutionSettings(rattle=0.5))
    with pytest.raises(InputError, match="strays from the seed structure; lower rattle"):
        shaken.generate(2, Condition(seed_structure=PEROVSKITE, allowed_elements=("Ba", "Ti", "O")), 0)


def test_own_structures_as_templates(tmp_path: Path) -> None:
    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    )
    perovskite.to(tmp_path / "mine.cif")
    generator = Substitution(SubstitutionSettings(templates=("mine.cif",)), tmp_path)
    crystals = generator.generate(50, Condition(allowed_elements=("Ba", "Zr", "O"), prototype="mine"), 0)
    assert len(crystals) == 6
    assert all(origin.startswith("substitution in mine (SrTiO3)") for origin in crystals.origins)


def test_oxidation_states_are_guessed_from_the_statistics(generator: Substitution) -> None:
    table = ion_table()
    charges = {}
    for name in ("E2_1", "spinel", "B1", "fluorite", "L1_2"):
        full = next(patterns_of(generator.library.named(name)[0], table))
        charges[name] = {z: None if ion is None else int(table.charges[ion]) for _, z, ion in full.swaps}
    assert charges == {
        "E2_1": {8: -2, 20: 2, 22: 4},
        "spinel": {8: -2, 12: 2, 13: 3},
        "B1": {11: 1, 17: -1},
        "fluorite": {9: -1, 20: 2},
        "L1_2": {29: None, 79: None},
    }


def test_a_moved_orbit_never_leaves_a_smaller_cell(generator: Substitution) -> None:
    from moyopy import Cell, MoyoDataset

    crystals: Crystals = generator.generate(300, Condition(chemical_system="Cu-Au"), 0)
    for c in crystals:
        cell = Cell(c.lattices[0].tolist(), c.frac.tolist(), c.numbers.tolist())
        assert len(MoyoDataset(cell, symprec=0.01).prim_std_cell.numbers) == len(c.numbers)
