"""Who looks like it: the cheap key of a crystal, and the cell in which crystals are compared.

A key reads "TiO2|6|136": reduced formula, atoms of the primitive cell, space group. Crystals can only be the same
if formula and primitive cell agree; the space group merely says whom to compare with first, because two nearly
symmetric copies of one crystal easily get different ones (measured: with atoms moved by 0.06 A, 15 % still do at
twice the tolerance).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.engine.screening.chemistry import composition_of, formula_text

if TYPE_CHECKING:
    from pymatgen.core import Structure

_LOOSER = 2.0  # the primitive cell is found with this times symprec: rattled supercells still fold back


@dataclass(frozen=True)
class Fingerprints:
    """What identifies each of n crystals cheaply.

    Attributes:
        keys: "formula|atoms of the primitive cell|space group", `n` of them.
        space_groups: International numbers, shape `n`; 0 where none was found.
        errors: Why the symmetry of a crystal could not be found, or "", `n` of them.
    """

    keys: tuple[str, ...]
    space_groups: IntArray
    errors: tuple[str, ...]


def fingerprints(crystals: Crystals, symprec: float) -> Fingerprints:
    """Keys and space groups of valid crystals; symmetry that cannot be found is an error in words, never raised."""
    keys, groups, errors = [], [], []
    for i in range(len(crystals)):
        group, n_primitive, error = 0, int(crystals.n_atoms[i]), ""
        try:
            group = int(_symmetry(crystals, i, symprec).number)
            n_primitive = int(_symmetry(crystals, i, symprec * _LOOSER).prim_std_cell.num_atoms)
        except ValueError as problem:
            error = f"symmetry: none found within {symprec:g} A ({problem})"
        keys.append(f"{formula_text(composition_of(crystals, i))}|{n_primitive}|{group}")
        groups.append(group)
        errors.append(error)
    return Fingerprints(tuple(keys), np.array(groups, dtype=np.int64), tuple(errors))


def parts_of(key: str) -> tuple[str, int, int]:
    """Formula, atoms of the primitive cell and space group in a key."""
    formula, n_primitive, group = key.split("|")
    return formula, int(n_primitive), int(group)


def comparison_cell(crystals: Crystals, index: int, symprec: float) -> Structure:
    """The primitive, Niggli-reduced cell of one crystal; its cell as given where symmetry fails.

    Two crystals compare several times faster in these than as they are, and rattled supercells are found more often.
    """
    import moyopy
    from pymatgen.core import Lattice, Structure

    atoms = crystals.atoms_of(index)
    basis, frac, numbers = crystals.lattices[index], crystals.frac[atoms], crystals.numbers[atoms]
    try:
        cell = _symmetry(crystals, index, symprec * _LOOSER).prim_std_cell
        basis, frac, numbers = (np.asarray(part) for part in (cell.basis, cell.positions, cell.numbers))
    except ValueError:
        pass  # the crystal itself is a cell too, only a larger one
    niggli: FloatArray = np.asarray(moyopy.niggli_reduce(basis.tolist())[0])
    order = np.argsort(numbers, kind="stable")
    return Structure(Lattice(niggli), numbers[order].tolist(), (frac @ basis @ np.linalg.inv(niggli))[order])


def _symmetry(crystals: Crystals, index: int, symprec: float) -> Any:
    """The symmetry dataset of moyo; raises ValueError where it finds none."""
    import moyopy

    # moyo warns of every supercell; without a handler Python would print that.
    logging.getLogger("moyo").addHandler(_SILENT)
    atoms = crystals.atoms_of(index)
    cell = moyopy.Cell(
        crystals.lattices[index].tolist(), crystals.frac[atoms].tolist(), crystals.numbers[atoms].tolist()
    )
    return moyopy.MoyoDataset(cell, symprec=symprec)


_SILENT = logging.NullHandler()
