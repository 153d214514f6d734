"""A growing crystal may take exactly what leaves a way to charge neutrality, and never runs into a dead end."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from paragenesis.crystals import IntArray
from paragenesis.engine.generators.neutral_steps import ELEMENTS, NeutralityTable, compositions
from paragenesis.engine.generators.neutrality import is_neutral

POOL = tuple(
    atomic_numbers[s]
    for s in ("H", "Li", "O", "F", "Na", "Mg", "Al", "S", "Cl", "K", "Ca", "Ti", "Fe", "Cu", "Sb", "La", "Au", "He")
)
TABLE = NeutralityTable(POOL)


def counts_of(**atoms: int) -> IntArray:
    """One row of atoms of each atomic number."""
    row = np.zeros((1, ELEMENTS), dtype=np.int64)
    for symbol, count in atoms.items():
        row[0, atomic_numbers[symbol]] = count
    return row


def bits(*totals: int) -> int:
    return sum(1 << total for total in totals)


def neutral(atoms: dict[int, int]) -> bool:
    return is_neutral({chemical_symbols[z]: n for z, n in atoms.items()})


def has_way_out(atoms: dict[int, int], totals: list[int]) -> bool:
    """Whether nothing, or some number of atoms of one element, makes a composition neutral, by trying all."""
    if 0 in totals and neutral(atoms):
        return True
    return any(neutral({**atoms, z: atoms.get(z, 0) + t}) for z in POOL for t in totals if t)


def allowed(atoms: dict[int, int], added: int, totals: list[int]) -> set[int]:
    counts = np.zeros((1, ELEMENTS), dtype=np.int64)
    counts[0, list(atoms)] = list(atoms.values())
    return set(np.flatnonzero(TABLE.elements(counts, np.array([added]), [bits(*totals)])[0]).tolist())


def test_what_is_allowed_is_what_trying_everything_finds() -> None:
    rng = np.random.default_rng(0)
    right = wrong = 0
    for _ in range(150):
        elements = rng.choice(POOL, size=rng.integers(0, 4), replace=False).tolist()
        atoms = {z: int(rng.integers(1, 7)) for z in elements}
        added, totals = int(rng.integers(1, 5)), rng.choice(7, size=rng.integers(0, 5), replace=False).tolist()
        expected = {z for z in POOL if has_way_out({**atoms, z: atoms.get(z, 0) + added}, totals)}
        found = allowed(atoms, added, totals)
        assert expected <= found, (atoms, added, totals)
        right, wrong = right + len(expected), wrong + len(found - expected)
    assert right > 500
    assert wrong < 0.01 * right  # a new element taken for its own partner in another oxidation state


def test_one_more_element_begins_where_it_can_finish() -> None:
    (items,) = compositions(counts_of(Ca=1, Ti=1))
    assert TABLE.begins(items, 3, bits(0))  # CaTiO3
    assert TABLE.begins(items, 1, bits(2, 5))  # an oxygen now, two later
    (alkalis,) = compositions(counts_of(Na=4, K=4))
    assert not TABLE.begins(alkalis, 1, bits(0))  # no single atom has a charge of -8
    assert TABLE.begins(alkalis, 1, bits(3))
    assert TABLE.begins(compositions(counts_of(Au=3))[0], 1, bits(0))  # a crystal of one element is neutral
    assert not TABLE.begins(compositions(counts_of(Au=3))[0], 1, 0)  # but there is no room to finish it


def test_a_missing_required_element_is_counted_on() -> None:
    oxides = NeutralityTable(POOL, required=(8,))
    after = [bits(1, 3)]  # one or three atoms must follow
    assert oxides.elements(counts_of(Ca=1), np.array([1]), after)[0, atomic_numbers["Ti"]]
    only_one = [bits(1)]
    assert not oxides.elements(counts_of(Na=4), np.array([4]), only_one)[0, atomic_numbers["K"]]  # 8+ on one oxygen


def test_what_is_finished_is_what_screening_calls_neutral() -> None:
    rows = np.concatenate([counts_of(Na=1, Cl=1), counts_of(Na=2, Cl=1), counts_of(He=2), counts_of(Ti=3, Al=1)])
    assert TABLE.finished(rows).tolist() == [True, False, True, neutral({22: 3, 13: 1})]
