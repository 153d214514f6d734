"""The hard side of a condition while a template grows: which group, site and element may come next.

Every rule is a mask, so that what is drawn obeys by construction. Rules that need to look ahead (an exact
composition, charge neutrality) ask tables that know whether a partial crystal can still be finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paragenesis.crystals import IntArray
from paragenesis.engine.generators.condition import Condition
from paragenesis.engine.generators.wyckoff import tokens as tk
from paragenesis.engine.generators.wyckoff.neutral_room import room_for
from paragenesis.errors import InputError

BoolArray = npt.NDArray[np.bool_]

_TABLE_ELEMENTS = tk.ELEMENTS + 1


@dataclass(frozen=True)
class Template:
    """A crystal without its numbers: which elements sit on which sites.

    Attributes:
        group: Space group.
        sites: Index of each orbit's site in the group.
        numbers: Atomic number of each orbit.
    """

    group: int
    sites: tuple[int, ...]
    numbers: tuple[int, ...]


@dataclass
class Partial:
    """B templates that grow in step.

    Attributes:
        row: Which of the templates begun each is, shape `B`.
        group: Space groups, shape `B`.
        lowest: The first site still allowed, shape `B`.
        atoms: Atoms in the primitive cell so far, shape `B`.
        counts: Atoms of each element so far, shape `B x 104`.
        site: The site whose element comes next, shape `B`.
        orbits: How many orbits there are, shape `B`.
        sites: Sites so far, shape `B x 20`.
        numbers: Their elements, shape `B x 20`.
    """

    row: IntArray
    group: IntArray
    lowest: IntArray
    atoms: IntArray
    counts: IntArray
    site: IntArray
    orbits: IntArray
    sites: IntArray
    numbers: IntArray

    @classmethod
    def start(cls, n: int) -> Partial:
        """Templates without an orbit."""
        zero = np.zeros(n, dtype=np.int64)
        wide = np.zeros((n, tk.MAX_ORBITS), dtype=np.int64)
        counts = np.zeros((n, _TABLE_ELEMENTS), dtype=np.int64)
        return cls(np.arange(n), zero, zero.copy(), zero.copy(), counts, zero.copy(), zero.copy(), wide, wide.copy())

    def __len__(self) -> int:
        """How many templates there are."""
        return len(self.group)

    def rows(self, index: IntArray) -> Partial:
        """Some of them."""
        return Partial(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})

    def template(self, row: int) -> Template:
        """One of them, as it stands."""
        n = int(self.orbits[row])
        return Template(
            int(self.group[row]), tuple(self.sites[row, :n].tolist()), tuple(self.numbers[row, :n].tolist())
        )

    def add(self, site: IntArray, number: IntArray) -> None:
        """Put an element on a site of each."""
        rows, table = np.arange(len(self)), tk.group_table()
        at = np.minimum(self.orbits, tk.MAX_ORBITS - 1)  # a row that has ended idles on
        self.sites[rows, at], self.numbers[rows, at] = site, number
        self.orbits = self.orbits + 1
        added = table.in_primitive[self.group, site]
        self.atoms = self.atoms + added
        self.counts[rows, number] += added
        self.lowest = np.where(table.free[self.group, site] > 0, site, site + 1)


class Rules:
    """What may come next so that the finished crystal obeys the condition."""

    def __init__(self, condition: Condition, elements: BoolArray) -> None:
        """Take the condition.

        Args:
            condition: What every crystal must be.
            elements: Which atomic numbers may be used at all, shape `104`.

        Raises:
            InputError: No space group has room for such a crystal.
        """
        self.condition, self.allowed = condition, elements
        self.room = room_for(condition, elements)
        self._groups = self._with_room()

    def _with_room(self) -> BoolArray:
        mask = self.room.groups()
        if self.condition.space_group is not None:
            mask &= np.arange(1, tk.GROUPS + 1) == self.condition.space_group
        if not mask.any():
            raise InputError(f"{_where(self.condition)} for {_what(self.condition)}; raise max_atoms, or drop a part")
        return mask

    def groups(self, n: int) -> BoolArray:
        """Space groups that may be chosen, shape `n x 230`."""
        return np.broadcast_to(self._groups, (n, tk.GROUPS)).copy()

    def sites(self, partial: Partial) -> BoolArray:
        """Sites that may come next, END included, shape `B x 28`."""
        mask = self.room.sites(partial.group, partial.lowest, partial.counts)
        mask[:, tk.END] &= partial.orbits > 0
        full = partial.orbits >= tk.MAX_ORBITS
        mask[full, : tk.END] = False
        return mask

    def elements(self, partial: Partial) -> BoolArray:
        """Elements that may sit on the chosen site, shape `B x 103`."""
        return (self.room.elements(partial.group, partial.site, partial.counts) & self.allowed)[:, 1:]


def _where(condition: Condition) -> str:
    group = condition.space_group
    return "no space group has room" if group is None else f"space group {group} has no room"


def _what(condition: Condition) -> str:
    if condition.composition is not None:
        what = condition.composition
    elif condition.exact_elements or condition.required_elements:
        what = f"a crystal of {', '.join(condition.exact_elements or condition.required_elements)}"
    else:
        what = "a crystal"
    return f"{what} with {condition.min_atoms} to {condition.max_atoms} atoms in the primitive cell"


def usable_elements(condition: Condition, learned: BoolArray, radioactive: bool) -> Any:
    """Atomic numbers that may be used, shape `104`; noble gases only where the condition names them.

    Args:
        condition: Names elements that are allowed, or exactly wanted.
        learned: Elements the weights have seen, shape `104`.
        radioactive: Whether elements without a stable isotope may be used where the condition does not name them.
    """
    from ase.data import atomic_numbers
    from pymatgen.core import Element

    named = condition.exact_elements or condition.allowed_elements
    if named is not None:
        mask = np.zeros(_TABLE_ELEMENTS, dtype=np.bool_)
        mask[[atomic_numbers[symbol] for symbol in named]] = True
        return mask
    mask = learned.copy()
    for z in range(1, _TABLE_ELEMENTS):
        element = Element.from_Z(z)
        if element.is_noble_gas or (element.is_radioactive and not radioactive):
            mask[z] = False
    for symbol in condition.required_elements:
        mask[atomic_numbers[symbol]] = True
    return mask
