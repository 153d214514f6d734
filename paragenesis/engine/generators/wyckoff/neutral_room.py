"""Room for atoms that can also become charge-neutral: `room` and `neutral_steps` together."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np

from paragenesis.crystals import BoolArray, IntArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.neutral_steps import NeutralityTable, compositions
from paragenesis.engine.generators.wyckoff.room import END, Left, Room, most_orbits, sites_left
from paragenesis.engine.generators.wyckoff.sites import wyckoff_sites


def room_for(condition: Condition, allowed: BoolArray) -> Room:
    """What crystals that grow under a condition may take next.

    Args:
        condition: What the crystals must be.
        allowed: Which atomic numbers may be used, shape `104`.

    Raises:
        InputError: The elements have no charge-neutral composition of that size.
    """
    from ase.data import atomic_numbers

    room = Room.of(condition)
    if not condition.charge_neutral or room.settles_charges:
        return room
    required = [atomic_numbers[symbol] for symbol in condition.required_elements]
    return NeutralRoom(condition.min_atoms, condition.max_atoms, required, np.flatnonzero(allowed).tolist())


class NeutralRoom(Room):
    """Room for crystals of any composition that is charge-neutral.

    What is allowed leads to a neutral crystal, with the exceptions that `neutral_steps` tells.
    """

    def __init__(self, min_atoms: int, max_atoms: int, required: Collection[int], allowed: Collection[int]) -> None:
        """Take what the finished crystal must be.

        Args:
            min_atoms: Fewest atoms in the primitive cell.
            max_atoms: Most atoms in the primitive cell.
            required: Atomic numbers of elements that it holds.
            allowed: Atomic numbers of elements that it may hold.
        """
        super().__init__(min_atoms, max_atoms, required)
        self._table = NeutralityTable(allowed, required)

    def sites(self, group: IntArray, lowest: IntArray, counts: IntArray) -> BoolArray:
        """See `Room.sites`."""
        mask = super().sites(group, lowest, counts)
        mask[:, END] &= self._table.finished(counts)
        atoms, groups, held = counts.sum(1).tolist(), group.tolist(), compositions(counts)
        doubtful = []
        for row, site in zip(*(axis.tolist() for axis in np.nonzero(mask[:, :END])), strict=True):
            if not self._table.begins(held[row], *self._taken(groups[row], site, atoms[row])):
                doubtful.append((row, site))  # one more element, beginning on this site, does not do
        if doubtful:
            rows, sites = np.array(doubtful, dtype=np.int64).T
            mask[rows, sites] = self.elements(group[rows], sites, counts[rows]).any(1)
        return mask

    def elements(self, group: IntArray, site: IntArray, counts: IntArray) -> BoolArray:
        """See `Room.elements`; elements that are not allowed are left out."""
        atoms = counts.sum(1).tolist()
        taken = [self._taken(g, s, held) for g, s, held in zip(group.tolist(), site.tolist(), atoms, strict=True)]
        added = np.array([more for more, _ in taken], dtype=np.int64)
        neutral = self._table.elements(counts, added, [then for _, then in taken])
        return np.asarray(super().elements(group, site, counts) & neutral)

    def _taken(self, group: int, site: int, atoms: int) -> tuple[int, int]:
        """The atoms that a site takes, and the numbers of atoms that may follow, as bits."""
        return _taken(group, site, self.min_atoms - atoms, self.max_atoms - atoms)


@lru_cache(maxsize=200_000)
def _taken(group: int, site: int, fewest: int, most: int) -> tuple[int, int]:
    """The atoms that a site takes, and what may follow then, if `fewest` to `most` are still to come with it."""
    position = wyckoff_sites(group)[site]
    left, added = sites_left(group, site if position.free else site + 1), position.in_primitive
    return added, _totals(left, fewest - added, most - added)


@lru_cache(maxsize=100_000)
def _totals(left: Left, fewest: int, most: int) -> int:
    """The numbers of atoms from `fewest` to `most` that the sites left can take exactly, as bits."""
    orbits = most_orbits(left, max(most, 0))
    return sum(1 << total for total in range(max(fewest, 0), most + 1) if orbits[total] >= 0)
