"""Orbits of atoms: a Wyckoff site, an element, and the free parameters in whole steps of 1/`GRID` of the cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from paragenesis.crystals import IntArray
from paragenesis.engine.generators.wyckoff.normaliser import GRID, Move, image_of, site_symmetries
from paragenesis.engine.generators.wyckoff.sites import pivots, space_group, wyckoff_sites

Orbit = tuple[int, int, tuple[int, ...]]  # site, atomic number, parameters in steps


def moved(group: int, orbits: Sequence[Orbit], move: Move) -> list[Orbit]:
    """Orbits in another description."""
    out = []
    for site, number, steps in orbits:
        target, matrix, shift = image_of(move, site)
        new = (matrix @ np.array(steps, dtype=np.int64) + shift) % GRID
        out.append((target, number, smallest(group, target, new)))
    return out


def anchored(group: int, orbits: list[Orbit]) -> list[list[Orbit]]:
    """The orbits, sorted, with each origin along the polar axes that puts an atom of the rarest kind at zero there."""
    polar = list(space_group(group).polar)
    if not polar:
        return [sorted(orbits, key=order)]
    shifts = np.unique(np.concatenate([_points(group, orbit)[:, polar] for orbit in _rarest(orbits)]), axis=0)
    out = []
    for shift in shifts:
        back = np.zeros(3, dtype=np.int64)
        back[polar] = -shift
        own = []
        for site, number, steps in orbits:
            rows, signs = pivots(wyckoff_sites(group)[site])
            new = (np.array(steps, dtype=np.int64) + signs * back[rows]) % GRID
            own.append((site, number, smallest(group, site, new)))
        out.append(sorted(own, key=order))
    return out


def _rarest(orbits: Sequence[Orbit]) -> list[Orbit]:
    """The orbits of the element that has the fewest; of several such elements the one with the smallest number."""
    numbers = [number for _, number, _ in orbits]
    rarest = min(set(numbers), key=lambda number: (numbers.count(number), number))
    return [orbit for orbit in orbits if orbit[1] == rarest]


def _points(group: int, orbit: Orbit) -> IntArray:
    """The points of an orbit in the conventional cell, steps, shape `m x 3`."""
    site, symmetry = wyckoff_sites(group)[orbit[0]], space_group(group)
    linear, offset = np.rint(site.linear[:, list(site.free)]).astype(np.int64), np.rint(site.offset * GRID)
    point = linear @ np.array(orbit[2], dtype=np.int64) + offset.astype(np.int64)
    shifts = np.rint(symmetry.translations * GRID).astype(np.int64)
    return np.unique((symmetry.rotations @ point + shifts) % GRID, axis=0)


def smallest(group: int, site: int, steps: IntArray) -> tuple[int, ...]:
    """The smallest of the parameters that describe the same orbit."""
    if len(steps) == 0:
        return ()
    matrices, shifts = site_symmetries(group, site)
    return tuple(min(((matrices @ steps + shifts) % GRID).tolist()))


def order(orbit: Orbit) -> tuple[int, float, int, tuple[int, ...]]:
    """What orbits are sorted by."""
    return orbit[0], electronegativity(orbit[1]), orbit[1], orbit[2]


@cache
def electronegativity(number: int) -> float:
    """Pauling's electronegativity; 0 where there is none."""
    from paragenesis.engine.screening import chemistry
    from paragenesis.engine.screening.validity import symbol_of

    return chemistry.electronegativity(symbol_of(number)) or 0.0
