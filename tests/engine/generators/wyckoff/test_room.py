"""Room: what a space group can still take is found exactly, and growing within it never fails."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols

from paragenesis.crystals import IntArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.neutrality import is_neutral
from paragenesis.engine.generators.wyckoff.neutral_room import room_for
from paragenesis.engine.generators.wyckoff.room import ELEMENTS, END, Room, fits, possible_groups, sites_left
from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites
from paragenesis.errors import InputError

COMMON = ("H", "Li", "O", "F", "Na", "Mg", "Al", "Si", "S", "Cl", "K", "Ca", "Ti", "Mn", "Fe", "Cu", "Sr", "La")


def reachable(group: int, elements: int, most: int) -> set[tuple[int, ...]]:
    """Every number of atoms of each element that some choice of orbits gives, by trying all."""
    found = {(0,) * elements}
    for site in wyckoff_sites(group):
        for _ in range(most if site.free else 1):
            more = {
                tuple(n + site.in_primitive * (i == e) for i, n in enumerate(have))
                for have in found
                for e in range(elements)
            }
            found |= {have for have in more if sum(have) <= most}
    return found


@pytest.mark.parametrize("group", [1, 2, 12, 62, 139, 166, 194, 205, 216, 221, 225, 227, 230])
def test_what_fits_is_what_trying_everything_finds(group: int) -> None:
    expected = reachable(group, 2, 8)
    for amounts in product(range(9), repeat=2):
        if sum(amounts) <= 8:
            assert fits(group, amounts) == (amounts in expected), amounts


def test_the_groups_of_a_perovskite_cell() -> None:
    groups = possible_groups({"Ca": 1, "Ti": 1, "O": 3}, max_atoms=5)
    assert {221, 99, 123, 160, 38, 1} <= set(groups)
    assert not {225, 227, 62, 230} & set(groups)  # no site for a single atom, or not for two of them and three more


def test_the_sites_of_a_group_that_are_left() -> None:
    assert sites_left(221) == (((1, 2), (3, 2)), (6, 8, 12, 24, 48))
    assert sites_left(221, 2) == (((3, 2),), (6, 8, 12, 24, 48))


def grow(room: Room, allowed: tuple[int, ...], seed: int, crystals: int = 96) -> tuple[IntArray, int]:
    """Atoms of each atomic number of crystals grown at random within a room; how many ran into a dead end."""
    rng = np.random.default_rng(seed)
    group = rng.choice(np.flatnonzero(room.groups()) + 1, crystals)
    lowest = np.zeros(crystals, dtype=np.int64)
    counts = np.zeros((crystals, ELEMENTS), dtype=np.int64)
    done, dead = [], 0
    growing = list(range(crystals))
    while growing:
        sites = room.sites(group[growing], lowest[growing], counts[growing])
        chosen = {i: int(rng.choice(np.flatnonzero(row))) for i, row in zip(growing, sites, strict=True) if row.any()}
        dead += len(growing) - len(chosen)
        done += [i for i, site in chosen.items() if site == END]
        growing = [i for i, site in chosen.items() if site != END]
        if not growing:
            break
        taken = np.array([chosen[i] for i in growing])
        elements = room.elements(group[growing], taken, counts[growing])
        for i, row in zip(list(growing), elements, strict=True):
            possible = [z for z in allowed if row[z]]
            if not possible:
                dead += 1
                growing.remove(i)
                continue
            site = wyckoff_sites(int(group[i]))[chosen[i]]
            counts[i, int(rng.choice(possible))] += site.in_primitive
            lowest[i] = chosen[i] if site.free else chosen[i] + 1
    return counts[done], dead


def numbers(*symbols: str) -> tuple[int, ...]:
    return tuple(atomic_numbers[s] for s in symbols)


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        (Condition(), COMMON),
        (Condition(min_atoms=6, max_atoms=9), COMMON),
        (Condition(required_elements=("Ti", "O", "Sr"), max_atoms=12), COMMON),
        (Condition(chemical_system="Li-Fe-O"), ("Li", "Fe", "O")),
        (Condition(composition="CaTiO3", max_atoms=10), ("Ca", "Ti", "O")),
        (Condition(composition="Na", min_atoms=3), ("Na",)),
        (Condition(chemical_system="Li-P-S", charge_neutral=True), ("Li", "P", "S")),
        (Condition(composition="Fe3O4", charge_neutral=True), ("Fe", "O")),
    ],
    ids=str,
)
def test_whatever_grows_within_obeys(condition: Condition, allowed: tuple[str, ...]) -> None:
    room = Room.of(condition)
    counts, dead = grow(room, numbers(*allowed), 0)
    assert dead == 0
    assert len(counts) == 96
    for row in counts:
        atoms = {chemical_symbols[z]: int(row[z]) for z in np.flatnonzero(row)}
        assert condition.min_atoms <= sum(atoms.values()) <= condition.max_atoms
        assert set(atoms) >= set(condition.required_elements)
        assert condition.exact_elements in (None, tuple(sorted(atoms)))
        if condition.composition:
            unit = condition.formula_unit
            assert len({atoms[symbol] / unit[symbol] for symbol in unit}) == 1
        assert not condition.charge_neutral or is_neutral(atoms)


@pytest.mark.parametrize(
    ("condition", "share_of_dead_ends"),
    [
        (Condition(charge_neutral=True), 0.02),
        (Condition(charge_neutral=True, min_atoms=8, max_atoms=12), 0.05),
        (Condition(charge_neutral=True, required_elements=("O",)), 0.4),
    ],
    ids=str,
)
def test_what_grows_among_many_elements_is_neutral(condition: Condition, share_of_dead_ends: float) -> None:
    allowed = np.zeros(ELEMENTS, dtype=np.bool_)
    allowed[list(numbers(*COMMON))] = True
    room = room_for(condition, allowed)
    counts, dead = grow(room, numbers(*COMMON), 1)
    assert dead <= share_of_dead_ends * 96
    for row in counts:
        atoms = {chemical_symbols[z]: int(row[z]) for z in np.flatnonzero(row)}
        assert is_neutral(atoms)
        assert condition.min_atoms <= sum(atoms.values()) <= condition.max_atoms
        assert set(atoms) >= set(condition.required_elements)
    assert len({tuple(row) for row in counts}) > 20


def test_without_charges_the_room_is_the_plain_one() -> None:
    everything = np.ones(ELEMENTS, dtype=np.bool_)
    assert room_for(Condition(composition="MgO"), everything) is Room.of(Condition(composition="MgO"))
    assert room_for(Condition(chemical_system="Li-O", charge_neutral=True), everything).settles_charges
    assert not Room.of(Condition(charge_neutral=True)).settles_charges


def test_nothing_to_aim_at_is_refused() -> None:
    with pytest.raises(InputError, match="no composition of 3 to 5 atoms"):
        Room(3, 5, targets=[])
