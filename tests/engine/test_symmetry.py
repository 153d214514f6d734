"""Symmetry found within a tolerance and made exact: in any cell, and never where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.symmetry import SYMPREC, Operations, space_groups, symmetrised

RUTILE = crystal(
    ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.59, 4.59, 2.96, 90, 90, 90]
)  # fmt: skip
QUARTZ = crystal(
    ["Si", "O"], [(0.47, 0, 2 / 3), (0.41, 0.27, 0.78)], spacegroup=154, cellpar=[4.91, 4.91, 5.4, 90, 90, 120]
)
ROCK_SALT = bulk("NaCl", "rocksalt", 5.64)
LEFT_HANDED = ROCK_SALT.copy()
LEFT_HANDED.set_cell(ROCK_SALT.cell.array[[1, 0, 2]])
CELLS = {
    "primitive": (ROCK_SALT, 225),
    "left-handed": (LEFT_HANDED, 225),
    "conventional": (bulk("NaCl", "rocksalt", 5.64, cubic=True), 225),
    "longer than its symmetry": (ROCK_SALT * (1, 1, 2), 225),
    "tetragonal": (RUTILE, 136),
    "tetragonal, doubled": (RUTILE * (2, 1, 1), 136),
    "trigonal": (QUARTZ, 154),
    "polar": (bulk("ZnS", "wurtzite", a=3.8, c=6.2, u=0.38), 186),
}


def noisy(atoms: Atoms, size: float) -> Crystals:
    """A crystal with its atoms displaced and its cell strained at random."""
    rng = np.random.default_rng(1)
    moved = atoms.copy()
    moved.positions += rng.uniform(-size, size, moved.positions.shape)
    strain = rng.uniform(-size, size, (3, 3)) / 20
    moved.set_cell(moved.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return Crystals.from_atoms([moved])


def displacements(one: Crystals, other: Crystals) -> FloatArray:
    """How far atoms are from each other, angstrom."""
    gap = one.frac - other.frac
    distances: FloatArray = np.linalg.norm((gap - np.round(gap)) @ one.lattices[0], axis=1)
    return distances


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("size", [0.0, 0.002])
def test_a_crystal_near_its_symmetry_is_moved_onto_it(name: str, size: float) -> None:
    atoms, group = CELLS[name]
    given = noisy(atoms, size)
    exact, _ = symmetrised(given, SYMPREC)
    assert space_groups(exact, 1e-6).tolist() == [group]
    assert (space_groups(given, 1e-6) == group).all() == (size == 0.0)
    far = displacements(given, exact) - displacements(given, exact).min()  # the origin may move with all atoms
    assert far.max() < (1e-9 if size == 0.0 else SYMPREC)
    np.testing.assert_allclose(exact.lattices, given.lattices, atol=1e-9 if size == 0.0 else SYMPREC)
    np.testing.assert_array_equal(exact.numbers, given.numbers)


@pytest.mark.parametrize("name", CELLS)
def test_operations_are_isometries_that_form_a_group(name: str) -> None:
    exact, (found,) = symmetrised(noisy(CELLS[name][0], 0.002), SYMPREC)
    rotations, images = found.rotations, found.images
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotations.shape),
                               atol=1e-12)  # fmt: skip
    members = {(tuple(R.round(6).ravel() + 0.0), tuple(g)) for R, g in zip(rotations, images, strict=True)}
    assert len(members) == len(rotations) > 1
    for R, g in zip(rotations, images, strict=True):
        assert sorted(g) == list(range(images.shape[1]))
        products = {
            (tuple((R @ S).round(6).ravel() + 0.0), tuple(g[h])) for S, h in zip(rotations, images, strict=True)
        }
        assert products == members
    copies = np.bincount(found.sites)
    assert (copies == len(exact.numbers) // images.shape[1]).all()


def test_an_operation_takes_each_atom_to_its_image() -> None:
    exact, (found,) = symmetrised(Crystals.from_atoms([QUARTZ]), SYMPREC)
    cart = exact.frac @ exact.lattices[0]
    for R, g in zip(found.rotations, found.images, strict=True):
        shift = (cart[g] - cart @ R.T) @ np.linalg.inv(exact.lattices[0])
        np.testing.assert_allclose(shift - shift[0] - np.round(shift - shift[0]), 0, atol=1e-9)  # one translation


def test_a_real_distortion_is_not_undone() -> None:
    distorted = RUTILE.copy()
    distorted.positions[0] += [0, 0, 0.05]
    given = Crystals.from_atoms([distorted])
    exact, _ = symmetrised(given, SYMPREC)
    assert space_groups(exact, 1e-6)[0] == space_groups(given)[0] != 136
    np.testing.assert_allclose(displacements(exact, given), 0, atol=1e-9)


def test_a_crystal_without_symmetry_stays_as_it_is() -> None:
    given = noisy(RUTILE, 0.3)
    exact, (found,) = symmetrised(given, SYMPREC)
    assert space_groups(given).tolist() == [1]
    assert exact == given
    assert len(found.rotations) == 1
    np.testing.assert_array_equal(found.images, Operations.identity(6).images)


@pytest.mark.parametrize("how", ["nan", "flat", "infinite", "on each other", "empty", "tiny"])
def test_nonsense_has_no_symmetry_and_raises_nothing(how: str) -> None:
    given = Crystals.from_atoms([ROCK_SALT])
    broken = {
        "nan": replace(given, frac=given.frac * np.nan),
        "flat": replace(given, lattices=given.lattices * np.array([1.0, 1.0, 0.0])),
        "infinite": replace(given, lattices=given.lattices + np.inf),
        "on each other": replace(given, frac=given.frac * 0, numbers=given.numbers * 0 + 11),
        "empty": Crystals(
            ids=("0",), n_atoms=np.zeros(1), numbers=np.zeros(0), frac=np.zeros(0), lattices=given.lattices
        ),
        "tiny": replace(given, lattices=given.lattices * 1e-4),
    }[how]
    exact, operations = symmetrised(broken, SYMPREC)
    if how != "tiny":  # a cell below the tolerance may be anything
        assert exact == broken
        assert len(operations[0].rotations) == 1
        assert space_groups(broken).tolist() == [0]


def test_each_crystal_of_a_batch_is_judged_by_itself() -> None:
    atoms = [atoms for atoms, _ in CELLS.values()]
    batch = Crystals.from_atoms(atoms)
    assert space_groups(batch).tolist() == [group for _, group in CELLS.values()]
    together, operations = symmetrised(batch, SYMPREC)
    for i, one in enumerate(batch):
        alone, (own,) = symmetrised(one, SYMPREC)
        np.testing.assert_array_equal(alone.frac, together[i].frac)
        np.testing.assert_array_equal(own.images, operations[i].images)
