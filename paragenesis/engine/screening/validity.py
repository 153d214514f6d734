"""Is it a valid crystal: cheap checks in order, each with a reason that holds the number it failed on.

The same function judges generated and imported crystals. A check sees only crystals that passed all checks before
it, so each may rely on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import BoolArray, Crystals, FloatArray, IntArray
from paragenesis.engine.screening.chemistry import chemistry_reason, composition_of
from paragenesis.engine.screening.neighbours import pair_distances

if TYPE_CHECKING:
    from paragenesis.engine.screening.settings import ScreeningSettings

LAST_ELEMENT = 118
LARGEST_COORDINATE = 1e6  # in units of the cell; beyond it rounding moves atoms by more than 1e-9 of the cell
_LONGEST_VECTOR = 1e3  # angstrom; keeps cell reduction inside double precision
_UNKNOWN_RADIUS = 1.6  # angstrom; Cordero's table ends at curium

Check = Callable[[Crystals, "ScreeningSettings"], Sequence[str]]


def invalid_reasons(crystals: Crystals, settings: ScreeningSettings) -> list[str]:
    """Why each crystal is no valid crystal: the first check that it fails, or "" where it passes all."""
    reasons = [""] * len(crystals)
    alive = np.arange(len(crystals))
    for check in _CHECKS:
        if not alive.size:
            break
        found = check(crystals[alive], settings)
        for index, reason in zip(alive, found, strict=True):
            reasons[int(index)] = reason
        alive = alive[[not reason for reason in found]]
    return reasons


@lru_cache(maxsize=1)
def covalent_radii() -> FloatArray:
    """Covalent radii by atomic number, angstrom, shape 119 (Cordero et al., Dalton Trans. 2832 (2008))."""
    from ase.data import covalent_radii as table

    radii = np.full(LAST_ELEMENT + 1, _UNKNOWN_RADIUS)
    radii[1:97] = table[1:97]
    return radii


def of_no_element(numbers: IntArray) -> BoolArray:
    """Which atomic numbers no element has."""
    return np.asarray((numbers < 1) | (numbers > LAST_ELEMENT))


def symbol_of(number: int) -> str:
    """The symbol of an element."""
    from ase.data import chemical_symbols

    return str(chemical_symbols[number])


def _not_finite(crystals: Crystals, settings: ScreeningSettings) -> list[str]:
    """Crystals without atoms, with numbers that are not finite, or with absurd coordinates."""
    lattice: BoolArray = np.array([np.isfinite(one).all() for one in crystals.lattices], dtype=np.bool_)
    finite: BoolArray = np.asarray(np.isfinite(crystals.frac).all(axis=1))
    size = np.abs(np.where(finite[:, None], crystals.frac, 0.0)).max(axis=1, initial=0.0)
    bad_atoms: IntArray = np.bincount(crystals.batch[np.logical_not(finite)], minlength=len(crystals))
    largest = np.zeros(len(crystals))
    np.maximum.at(largest, crystals.batch, size)
    reasons = []
    for i in range(len(crystals)):
        if crystals.n_atoms[i] < 1:
            reasons.append("empty: it has no atoms")
        elif not lattice[i]:
            reasons.append("not_finite: its lattice holds NaN or infinity")
        elif bad_atoms[i]:
            reasons.append(f"not_finite: {bad_atoms[i]} of its {crystals.n_atoms[i]} atoms are at NaN or infinity")
        elif largest[i] > LARGEST_COORDINATE:
            reasons.append(
                f"not_finite: a fractional coordinate of size {largest[i]:.3g} has lost its place in the cell"
            )
        else:
            reasons.append("")
    return reasons


def _unknown_element(crystals: Crystals, settings: ScreeningSettings) -> list[str]:
    """Crystals with an atomic number that no element has."""
    reasons = [""] * len(crystals)
    for atom in np.flatnonzero(of_no_element(crystals.numbers))[::-1]:
        reasons[int(crystals.batch[atom])] = f"unknown_element: no element has Z = {crystals.numbers[atom]}"
    return reasons


def _lattice(crystals: Crystals, settings: ScreeningSettings) -> list[str]:
    """Crystals with absurdly long cell vectors, by their largest component."""
    longest = np.abs(crystals.lattices).max(axis=(1, 2))
    return [
        f"lattice: a cell vector of {length:.3g} A is longer than {_LONGEST_VECTOR:g} A"
        if length > _LONGEST_VECTOR
        else ""
        for length in longest
    ]


def _volume(crystals: Crystals, settings: ScreeningSettings) -> list[str]:
    """Crystals that are far denser or thinner than any known one."""
    low, high = settings.min_volume_per_atom, settings.max_volume_per_atom
    values = crystals.volumes / crystals.n_atoms
    return ["" if low <= v <= high else f"volume: {v:.3g} A^3/atom is outside {low:g} to {high:g}" for v in values]


def _overlap(crystals: Crystals, settings: ScreeningSettings) -> list[str]:
    """Crystals with two atoms, or an atom and its own image, much nearer than their covalent radii allow."""
    reasons = [""] * len(crystals)
    radii = covalent_radii()
    for pairs in pair_distances(crystals):
        numbers = crystals.numbers[crystals.offsets[pairs.crystals][:, None] + np.arange(int(pairs.j.max()) + 1)]
        sums = radii[numbers[:, pairs.i]] + radii[numbers[:, pairs.j]]
        worst = np.argmin(pairs.distances / sums, axis=1)
        for row in np.flatnonzero((pairs.distances < settings.overlap_factor * sums).any(axis=1)):
            pair = worst[row]
            first, second = (symbol_of(int(numbers[row, atoms[pair]])) for atoms in (pairs.i, pairs.j))
            image = " (its own image)" if pairs.i[pair] == pairs.j[pair] else ""
            reasons[int(pairs.crystals[row])] = (
                f"overlap: {first}-{second}{image} {pairs.distances[row, pair]:.2f} A is below "
                f"{settings.overlap_factor:g} of the sum of covalent radii, {sums[row, pair]:.2f} A"
            )
    return reasons


def _chemistry(crystals: Crystals, settings: ScreeningSettings) -> list[str]:
    """Crystals whose composition is not charge neutral or not balanced in electronegativity."""
    if not settings.charge_neutrality:
        return [""] * len(crystals)
    return [chemistry_reason(composition_of(crystals, i)) for i in range(len(crystals))]


_CHECKS: tuple[Check, ...] = (_not_finite, _unknown_element, _lattice, _volume, _overlap, _chemistry)
