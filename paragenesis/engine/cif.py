"""A crystal as CIF with its space group and asymmetric unit."""

from __future__ import annotations

import warnings
from math import isclose

from paragenesis.crystals import Crystals
from paragenesis.engine.symmetry import SYMPREC, symmetrised

_EXACT = 1e-3  # angstrom; for crystals that obey their operations to rounding


def to_cif(crystal: Crystals, symprec: float = SYMPREC) -> str:
    """A crystal as the text of a CIF: space group, operations and asymmetric unit, in the conventional cell.

    The crystal is first made exactly symmetric, so that a program that applies the operations to the asymmetric unit
    gets this crystal again. Where that fails, the CIF has the cell as it is, atom by atom in P1, and says so in a
    comment.

    Args:
        crystal: One crystal.
        symprec: How far atoms may be from symmetric places, angstrom.
    """
    from pymatgen.io.cif import CifWriter
    from pymatgen.symmetry.analyzer import SymmetryUndeterminedError

    try:
        text = str(CifWriter(symmetrised(crystal, symprec)[0].to_structures()[0], symprec=_EXACT))
    except (SymmetryUndeterminedError, ValueError):  # spglib finds nothing where atoms lie on each other
        problem = "no symmetry was found"
    else:
        if _reads_back(text, crystal):
            return text
        problem = "the symmetry found would read back as another crystal"
    return f"# in P1: {problem} within {symprec:g} A\n{CifWriter(crystal.to_structures()[0])}"


def _reads_back(text: str, crystal: Crystals) -> bool:
    """Whether a CIF holds a cell of the same formula and density."""
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parser, about atoms too close: the very case looked for
        try:
            again = Structure.from_str(text, fmt="cif")
        except ValueError:
            return False
    same_density = isclose(again.volume / len(again), float(crystal.volumes[0] / crystal.n_atoms[0]), rel_tol=0.01)
    return same_density and again.composition.reduced_formula == crystal.formulas[0]
