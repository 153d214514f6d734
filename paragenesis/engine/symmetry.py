"""The symmetry of crystals, found within a tolerance and made exact."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, IntArray

if TYPE_CHECKING:
    from moyopy import MoyoDataset

SYMPREC = 0.01  # angstrom; enough for the digits of files, too little to undo a real distortion
_SLACK = 3.0  # the search widens its tolerance at need: too far if an atom would move by so many times symprec


@dataclass(frozen=True, kw_only=True)
class Operations:
    """The m symmetry operations of a crystal of n atoms, p of them in its primitive cell.

    Attributes:
        rotations: On columns of Cartesian vectors, shape `m x 3 x 3`.
        images: The atom of the primitive cell that each operation takes each one to, shape `m x p`.
        sites: The atom of the primitive cell that each atom is a copy of, shape `n`.
    """

    rotations: FloatArray
    images: IntArray
    sites: IntArray

    @classmethod
    def identity(cls, n_atoms: int) -> Self:
        """No symmetry."""
        atoms = np.arange(n_atoms)
        return cls(rotations=np.eye(3)[None], images=atoms[None], sites=atoms)


def symmetrised(crystals: Crystals, symprec: float) -> tuple[Crystals, list[Operations]]:
    """Crystals that obey their operations to rounding, and the operations; without any, a crystal stays as it is.

    Args:
        crystals: n crystals, valid or not.
        symprec: How far atoms may be from where an operation wants them, angstrom.
    """
    frac, lattices = crystals.frac.copy(), crystals.lattices.copy()
    found = [Operations.identity(n) for n in crystals.n_atoms.tolist()]
    for i in range(len(crystals)):
        if (exact := _exact(crystals, i, symprec)) is not None:
            frac[crystals.atoms_of(i)], lattices[i], found[i] = exact
    return replace(crystals, frac=frac, lattices=lattices), found


def space_groups(crystals: Crystals, symprec: float = SYMPREC) -> IntArray:
    """International numbers of the space groups, shape `n`; 0 where none is found."""
    found = (_search(crystals, i, symprec) for i in range(len(crystals)))
    return np.array([0 if data is None else data.number for data in found], dtype=np.int64)


def _search(crystals: Crystals, index: int, symprec: float) -> MoyoDataset | None:
    """What moyo finds, in the orientation given; None where atoms lie on each other, the cell is flat, ..."""
    import moyopy

    if not crystals.n_atoms[index]:
        return None  # moyo would panic
    logging.getLogger("moyo").addHandler(_SILENT)  # it warns of operations that a larger cell does not show
    atoms = crystals.atoms_of(index)
    cell = moyopy.Cell(
        crystals.lattices[index].tolist(), crystals.frac[atoms].tolist(), crystals.numbers[atoms].tolist()
    )
    try:
        return moyopy.MoyoDataset(cell, symprec=symprec, rotate_basis=False)
    except ValueError:
        return None


def _exact(crystals: Crystals, index: int, symprec: float) -> tuple[FloatArray, FloatArray, Operations] | None:
    """Coordinates and lattice of a crystal that obey its operations, and the operations; None without symmetry.

    moyo refines the primitive cell to its space group; it is brought back to the cell, the origin and the orientation
    that the crystal came with.
    """
    import moyopy

    frac, lattice = crystals.frac[crystals.atoms_of(index)], crystals.lattices[index]
    data = _search(crystals, index, symprec)
    if data is None or (data.number == 1 and data.prim_std_cell.num_atoms == len(frac)):
        return None
    primitive, sites = data.prim_std_cell, np.array(data.mapping_std_prim)
    basis, places = np.array(primitive.basis), np.array(primitive.positions)
    linear, origin = np.array(data.prim_std_linear), np.array(data.prim_std_origin_shift)
    back = np.round(np.linalg.inv(linear))  # a cell is made of whole primitive cells
    images = np.round((frac - origin) @ back.T - places[sites])
    moved = (places[sites] + images) @ linear.T + origin
    if np.linalg.norm((moved - frac) @ lattice, axis=1).max() > _SLACK * symprec:
        return None
    group = moyopy.operations_from_number(
        data.number, setting=moyopy.Setting.hall_number(data.hall_number), primitive=True
    )
    rotations = np.array(group.rotations, dtype=np.float64)
    operations = Operations(
        rotations=basis.T @ rotations @ np.linalg.inv(basis.T),
        images=_images(places, basis, np.array(primitive.numbers), rotations, np.array(group.translations)),
        sites=sites,
    )
    return moved, back.T @ basis, operations


def _images(
    frac: FloatArray, lattice: FloatArray, numbers: IntArray, rotations: FloatArray, translations: FloatArray
) -> IntArray:
    """The atom of the same element to which each operation takes each atom, shape `m x n`."""
    images = np.empty((len(rotations), len(frac)), dtype=np.int64)
    for g, (rotation, translation) in enumerate(zip(rotations, translations, strict=True)):
        gap = (frac @ rotation.T + translation)[:, None, :] - frac
        distances = np.linalg.norm((gap - np.round(gap)) @ lattice, axis=2)
        images[g] = np.where(numbers[:, None] == numbers, distances, np.inf).argmin(axis=1)
    return images


_SILENT = logging.NullHandler()
