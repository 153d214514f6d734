"""The known-answer check: are a potential's formation energies of well-known compounds right?

Weights can load without an error and still compute nonsense for compounds, while every one-element crystal is right
(the two kinds of atom of a bond exchanged, say). So before a campaign may use a potential, it computes the formation
energies of some common compounds against its own elements, and they are held against Materials Project values. The
bound is wide enough for any sound functional, and far too narrow for such an accident.

Formation energies: Materials Project (materialsproject.org, CC BY 4.0), corrected PBE(+U) of the database as of 2021.
Lattices: the ideal prototypes with lattice constants rounded to 0.01 A, near the PBE ones.
Elements: the crystals of `ase.collections.dcdft` (Lejaeghere et al., Crit. Rev. Solid State 39, 1 (2014)).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.potentials.judge import judge

if TYPE_CHECKING:
    from ase import Atoms

    from paragenesis.engine.potentials.contract import Potential

BOUND = 0.4  # eV/atom, on the mean absolute error; sound weights reach 0.06 to 0.23, exchanged atoms 1.2 to 1.7
FEWEST = 4  # compounds; with fewer there is no verdict

_PROTOTYPES: dict[str, tuple[int, tuple[tuple[float, float, float], ...]]] = {  # space group, basis
    "rocksalt": (225, ((0, 0, 0), (0.5, 0.5, 0.5))),
    "fluorite": (225, ((0, 0, 0), (0.25, 0.25, 0.25))),
    "zincblende": (216, ((0, 0, 0), (0.25, 0.25, 0.25))),
    "caesium chloride": (221, ((0, 0, 0), (0.5, 0.5, 0.5))),
    "perovskite": (221, ((0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0))),
    "rutile": (136, ((0, 0, 0), (0.305, 0.305, 0))),
    "corundum": (167, ((0, 0, 0.352), (0.306, 0, 0.25))),
}
_COMPOUNDS: tuple[tuple[str, str, float, float, float], ...] = (  # formula, prototype, a, c (A), eV/atom
    ("NaCl", "rocksalt", 5.69, 5.69, -2.110),
    ("KCl", "rocksalt", 6.38, 6.38, -2.258),
    ("LiF", "rocksalt", 4.08, 4.08, -3.166),
    ("LiBr", "rocksalt", 5.51, 5.51, -1.810),
    ("MgO", "rocksalt", 4.25, 4.25, -3.016),
    ("CaO", "rocksalt", 4.84, 4.84, -3.096),
    ("TiC", "rocksalt", 4.34, 4.34, -0.810),
    ("CaF2", "fluorite", 5.50, 5.50, -4.226),
    ("ZnS", "zincblende", 5.45, 5.45, -1.062),
    ("ZnSe", "zincblende", 5.74, 5.74, -0.952),
    ("GaAs", "zincblende", 5.75, 5.75, -0.353),
    ("InP", "zincblende", 5.96, 5.96, -0.206),
    ("SiC", "zincblende", 4.38, 4.38, -0.204),
    ("AlNi", "caesium chloride", 2.89, 2.89, -0.659),
    ("SrTiO3", "perovskite", 3.94, 3.94, -3.552),
    ("TiO2", "rutile", 4.65, 2.97, -3.502),
    ("Al2O3", "corundum", 4.81, 13.12, -3.427),
)


@dataclass(frozen=True)
class KnownAnswer:
    """The outcome of the check.

    Attributes:
        passed: Whether a campaign may use the potential.
        error: Mean absolute error of the formation energies, eV/atom; NaN if nothing was compared.
        n: How many compounds were compared.
        sentence: The outcome in words.
    """

    passed: bool
    error: float
    n: int
    sentence: str


def known_compounds() -> tuple[Crystals, FloatArray]:
    """The compounds of the check, n of them, and their known formation energies, eV/atom, shape `n`."""
    return Crystals.from_atoms([_reference(row[0]) for row in _COMPOUNDS]), np.array([row[-1] for row in _COMPOUNDS])


def known_answer_check(potential: Potential) -> KnownAnswer:
    """Hold a potential's formation energies of common compounds against the known ones (seconds).

    A Lennard-Jones potential claims nothing about real compounds and passes unchecked.
    """
    if potential.level.engine == "lennard-jones":
        return KnownAnswer(True, float("nan"), 0, f"{potential.name} claims nothing about compounds: not checked")
    compounds = [row for row in _COMPOUNDS if not potential.unknown_elements(_reference(row[0]).numbers.tolist())]
    if len(compounds) < FEWEST:
        return KnownAnswer(
            False,
            float("nan"),
            len(compounds),
            f"{potential.name} knows the elements of only {len(compounds)} of the {len(_COMPOUNDS)} compounds of the "
            f"known-answer check, which needs {FEWEST}",
        )
    errors = _errors(potential, compounds)
    if errors.size < len(compounds) / 2:
        sentence = f"{potential.name} refuses {len(compounds) - errors.size} of {len(compounds)} common compounds"
        return KnownAnswer(False, float("nan"), int(errors.size), sentence)
    error = float(np.mean(np.abs(errors)))
    passed = error < BOUND
    verdict = "passes" if passed else "fails"
    sentence = (
        f"{potential.name} {verdict} the known-answer check: mean error {error:.3f} eV/atom over the formation "
        f"energies of {errors.size} compounds, {BOUND} allowed"
    )
    if not passed:
        sentence += "; do not use these weights with this version of their package"
    return KnownAnswer(passed, error, int(errors.size), sentence)


def _errors(potential: Potential, compounds: Sequence[tuple[str, str, float, float, float]]) -> np.ndarray:
    """Errors of the formation energies, eV/atom; compounds or elements that the potential refuses are left out."""
    crystals = [_reference(row[0]) for row in compounds]
    elements = sorted({symbol for crystal in crystals for symbol in crystal.symbols})
    judged = judge(potential, Crystals.from_atoms([*(_element(symbol) for symbol in elements), *crystals])).energies
    reference = dict(zip(elements, judged[: len(elements)], strict=True))
    against = [np.mean([reference[symbol] for symbol in crystal.symbols]) for crystal in crystals]
    errors = judged[len(elements) :] - against - np.array([row[4] for row in compounds])
    return np.asarray(errors[np.isfinite(errors)])


def _element(symbol: str) -> Atoms:
    """The elemental crystal of a symbol."""
    from ase.collections import dcdft

    return dcdft[symbol]


@functools.cache
def _reference(formula: str) -> Atoms:
    """The crystal of a compound of the table, its primitive cell."""
    from ase.formula import Formula
    from ase.spacegroup import crystal

    _, prototype, a, c, _ = next(row for row in _COMPOUNDS if row[0] == formula)
    space_group, basis = _PROTOTYPES[prototype]
    gamma = 120 if prototype == "corundum" else 90
    return crystal(
        list(Formula(formula).count()),
        basis=basis,
        spacegroup=space_group,
        cellpar=[a, a, c, 90, 90, gamma],
        primitive_cell=True,
        pbc=True,
    )
