"""Whether the atoms still wanted find room on the Wyckoff positions still to be filled.

A position without free parameters can be taken once, the others by any number of orbits; orbits are placed in the
order of their sites (a, b, c, ...). So what counts about the sites left is, per number of atoms, how many can be taken
once, and which can be repeated: many groups agree on that, and everything here is remembered under it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import product
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from paragenesis.crystals import BoolArray, IntArray
from paragenesis.engine.generators.wyckoff.sites import GROUPS, wyckoff_sites
from paragenesis.errors import InputError

if TYPE_CHECKING:
    from paragenesis.engine.generators.condition import Condition

SITES = 28  # a group has at most 27 Wyckoff positions; the last column of a mask says END
END = SITES - 1
ELEMENTS = 104  # atomic numbers 0 (unused) to 103

Left = tuple[tuple[tuple[int, int], ...], tuple[int, ...]]
"""Sites left: (atoms, how many such) of those that can be taken once, and the atoms of those that can be repeated."""

_IMPOSSIBLE = -1
_MOST_STATES = 250_000  # compositions beyond which a chemical system's neutral ones are not listed


@cache
def sites_left(group: int, lowest: int = 0) -> Left:
    """The sites of a space group from the one with index `lowest` on, in atoms of the primitive cell."""
    sites = wyckoff_sites(group)[lowest:]
    once = Counter(site.in_primitive for site in sites if not site.free)
    return tuple(sorted(once.items())), tuple(sorted({site.in_primitive for site in sites if site.free}))


@lru_cache(maxsize=200_000)
def fills(left: Left, amounts: tuple[int, ...]) -> bool:
    """Whether so many atoms of each element can be placed exactly.

    Args:
        left: The sites left.
        amounts: Atoms of each element still to be placed, each above 0, in any order.
    """
    once, again = left
    if all(_sums(again, amount) for amount in amounts):
        return True
    amount, rest = amounts[0], amounts[1:]
    for taken in product(*(range(min(many, amount // atoms) + 1) for atoms, many in once)):
        short = amount - sum(n * atoms for n, (atoms, _) in zip(taken, once, strict=True))
        if short >= 0 and _sums(again, short):
            spared = tuple((atoms, many - n) for n, (atoms, many) in zip(taken, once, strict=True) if many > n)
            if fills((spared, again), rest):
                return True
    return False


def _sums(parts: tuple[int, ...], total: int) -> bool:
    """Whether a number is a sum of parts, each used as often as one likes."""
    return bool(_semigroup(parts, total) >> total & 1)


@lru_cache(maxsize=10_000)
def _semigroup(parts: tuple[int, ...], largest: int) -> int:
    """The sums of parts, each used as often as one likes, up to `largest`, as bits."""
    found = 1
    for total in range(1, largest + 1):
        if any(part <= total and found >> (total - part) & 1 for part in parts):
            found |= 1 << total
    return found


def fits(group: int, amounts: Collection[int]) -> bool:
    """Whether a space group can host so many atoms of each element in its primitive cell, exactly."""
    return fills(sites_left(group), tuple(sorted((n for n in amounts if n), reverse=True)))


@lru_cache(maxsize=10_000)
def most_orbits(left: Left, atoms: int) -> tuple[int, ...]:
    """The largest number of orbits that 0, 1, ... `atoms` atoms can form; -1 where they cannot be placed exactly."""
    once, again = left
    best = [0] + [_IMPOSSIBLE] * atoms
    for part, many in once:
        for _ in range(many):
            for total in range(atoms, part - 1, -1):
                if best[total - part] >= 0:
                    best[total] = max(best[total], best[total - part] + 1)
    for part in again:
        for total in range(part, atoms + 1):
            if best[total - part] >= 0:
                best[total] = max(best[total], best[total - part] + 1)
    return tuple(best)


def possible_groups(unit: Mapping[str, int], max_atoms: int, min_atoms: int = 1) -> tuple[int, ...]:
    """The space groups that can host a whole number of formula units in a primitive cell of that size."""
    return tuple(group for group in GROUPS if hosts(group, unit, max_atoms, min_atoms))


def hosts(group: int, unit: Mapping[str, int], max_atoms: int, min_atoms: int = 1) -> bool:
    """Whether a space group can host a whole number of formula units in a primitive cell of that size."""
    size = sum(unit.values())
    cells = range(-(-max(min_atoms, 1) // size), max_atoms // size + 1)
    return any(fits(group, [k * n for n in unit.values()]) for k in cells)


class Room:
    """What a growing crystal may take next so that it can still be finished, for B crystals at once.

    With targets, the finished crystal has one of those compositions; without, it has `min_atoms` to `max_atoms` atoms
    and the required elements. Either way the answer is exact: what is allowed can be finished, what can be finished is
    allowed.
    """

    def __init__(
        self,
        min_atoms: int,
        max_atoms: int,
        required: Collection[int] = (),
        targets: Sequence[Mapping[int, int]] | None = None,
    ) -> None:
        """Take what the finished crystal must be.

        Args:
            min_atoms: Fewest atoms in the primitive cell.
            max_atoms: Most atoms in the primitive cell.
            required: Atomic numbers of elements that it holds.
            targets: All compositions that it may have, as atoms of each atomic number in the primitive cell.

        Raises:
            InputError: The list of targets is empty.
        """
        if targets is not None and not targets:
            raise InputError(
                f"no composition of {min_atoms} to {max_atoms} atoms is left to aim at; allow another number of atoms"
            )
        self.min_atoms, self.max_atoms = min_atoms, max_atoms
        self._required = np.zeros(ELEMENTS, dtype=np.bool_)
        self._required[list(required)] = True
        self._targets = None if targets is None else _Targets(targets)
        self._known: set[int] = set()
        shape = (GROUPS.stop, SITES, 1 if targets is not None else max_atoms + 1)
        self._orbits = np.full(shape, _IMPOSSIBLE, dtype=np.int16)

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, condition: Condition) -> Room:
        """The room of a condition; charge neutrality is part of it where the elements are given exactly.

        Raises:
            InputError: The elements have no charge-neutral composition of that size.
        """
        from ase.data import atomic_numbers

        from paragenesis.engine.generators.neutrality import neutral_compositions

        low, high, unit = condition.min_atoms, condition.max_atoms, condition.formula_unit
        exact = condition.exact_elements
        required = [atomic_numbers[s] for s in exact or condition.required_elements]
        targets: list[dict[int, int]] | None = None
        if unit:
            size = sum(unit.values())
            cells = range(-(-low // size), high // size + 1)
            targets = [{atomic_numbers[s]: k * n for s, n in unit.items()} for k in cells]
        elif condition.charge_neutral and exact is not None and comb(high + len(exact), high) <= _MOST_STATES:
            found = neutral_compositions(exact, low, high)
            targets = [{atomic_numbers[s]: n for s, n in zip(exact, row, strict=True)} for row in found]
        return cls(low, high, required, targets)

    @property
    def settles_charges(self) -> bool:
        """Whether the compositions are listed, so that a condition's charge neutrality is already taken care of."""
        return self._targets is not None

    def holds(self, group: int) -> bool:
        """Whether any crystal of a space group can be finished."""
        start = np.zeros(1, dtype=np.int64)
        return bool(self.sites(np.array([group]), start, np.zeros((1, ELEMENTS), dtype=np.int64)).any())

    def groups(self) -> BoolArray:
        """Which space groups have room, shape `230`."""
        return np.array([self.holds(group) for group in GROUPS])

    def sites(self, group: IntArray, lowest: IntArray, counts: IntArray) -> BoolArray:
        """Sites that may come next, the last column for END, shape `B x 28`.

        Args:
            group: Space groups, shape `B`.
            lowest: Index of the first site still allowed, shape `B`.
            counts: Atoms of each atomic number so far, shape `B x 104`.
        """
        if self._targets is not None:
            return self._targets.sites(group, lowest, counts)
        orbits, missing = self._after(group, counts)
        mask = (orbits >= np.maximum(missing - 1, 0)[:, None]) & (np.arange(SITES) >= lowest[:, None])
        atoms = counts.sum(1)
        mask[:, END] = (missing == 0) & (atoms >= self.min_atoms) & (atoms <= self.max_atoms)
        return np.asarray(mask, dtype=np.bool_)

    def elements(self, group: IntArray, site: IntArray, counts: IntArray) -> BoolArray:
        """Elements that may take a site that `sites` allowed, shape `B x 104`; the allowed elements are not looked at.

        Args:
            group: Space groups, shape `B`.
            site: Index of the site, shape `B`.
            counts: Atoms of each atomic number so far, shape `B x 104`.
        """
        if self._targets is not None:
            return self._targets.elements(group, site, counts)
        orbits, missing = self._after(group, counts)
        spare = orbits[np.arange(len(site)), site]
        mask = np.where((spare >= missing)[:, None], True, self._missing(counts) & (spare >= missing - 1)[:, None])
        mask[:, 0] = False
        return np.asarray(mask, dtype=np.bool_)

    def _missing(self, counts: IntArray) -> BoolArray:
        return np.asarray(self._required & (counts == 0))

    def _after(self, group: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
        """Most orbits that fit after one on each site, -1 where the site does not, `B x 28`; how many are missing."""
        for one in set(group.tolist()) - self._known:
            self._fill(one)
            self._known.add(one)
        atoms = np.minimum(counts.sum(1), self.max_atoms)
        return self._orbits[group, :, atoms].astype(np.int64), self._missing(counts).sum(1)

    def _fill(self, group: int) -> None:
        """Enter a space group into the table."""
        for index, site in enumerate(wyckoff_sites(group)):
            best = most_orbits(sites_left(group, index if site.free else index + 1), self.max_atoms)
            for atoms in range(self.max_atoms - site.in_primitive + 1):
                held = atoms + site.in_primitive
                choices = best[max(self.min_atoms - held, 0) : self.max_atoms - held + 1]
                self._orbits[group, index, atoms] = max(choices, default=_IMPOSSIBLE)


class _Targets:
    """The compositions that a finished crystal may have, and from which partial ones they can be reached.

    The states are all compositions up to the targets; which of them can be finished on which sites is found backwards
    from the targets, site by site, for all states at once.
    """

    def __init__(self, targets: Sequence[Mapping[int, int]]) -> None:
        self._elements = np.array(sorted({z for target in targets for z in target}), dtype=np.int64)
        rows = {tuple(target.get(z, 0) for z in self._elements.tolist()) for target in targets}
        self._bounds = np.max(list(rows), axis=0)
        self._states = _below(self._bounds, max(map(sum, rows)))
        self._radix = np.cumprod([1, *(self._bounds[:0:-1] + 1)])[::-1].astype(np.int64)
        self._codes = self._states @ self._radix  # ascending
        self._nothing = len(self._states)  # the number of no state at all, which is never finished
        self._finished = np.zeros(self._nothing + 1, dtype=np.bool_)
        self._finished[self._numbered(np.array(sorted(rows), dtype=np.int64))] = True
        self._finishing: dict[Left, BoolArray] = {((), ()): self._finished}
        self._next: dict[int, IntArray] = {}
        self._choices: dict[tuple[int, int], BoolArray] = {}

    def sites(self, group: IntArray, lowest: IntArray, counts: IntArray) -> BoolArray:
        """See `Room.sites`."""
        out = np.zeros((len(group), SITES), dtype=np.bool_)
        for i, (g, low, state) in enumerate(self._rows(group, lowest, counts)):
            out[i] = self._possible(g, state).any(1)
            out[i, :low] = False
            out[i, END] = self._finished[state]
        return out

    def elements(self, group: IntArray, site: IntArray, counts: IntArray) -> BoolArray:
        """See `Room.elements`."""
        out = np.zeros((len(group), ELEMENTS), dtype=np.bool_)
        for i, (g, s, state) in enumerate(self._rows(group, site, counts)):
            out[i, self._elements] = self._possible(g, state)[s]
        return out

    def _rows(self, group: IntArray, site: IntArray, counts: IntArray) -> Iterator[tuple[int, int, int]]:
        """Group, site and state, row by row, as plain numbers."""
        states = self._numbered(counts[:, self._elements])
        return zip(group.tolist(), site.tolist(), states.tolist(), strict=True)

    def _numbered(self, have: IntArray) -> IntArray:
        """The number of each composition's state, shape `n`; of no state where it is beyond all targets."""
        place = np.minimum(np.searchsorted(self._codes, have @ self._radix), self._nothing - 1)
        known = (have <= self._bounds).all(1) & (self._codes[place] == have @ self._radix)
        return np.where(known, place, self._nothing)

    def _possible(self, group: int, state: int) -> BoolArray:
        """Which element on which site leaves a crystal that can be finished, shape `28 x E`; whatever came before."""
        kept = self._choices.get((group, state))
        if kept is None:
            kept = np.zeros((SITES, len(self._elements)), dtype=np.bool_)
            for index, site in enumerate(wyckoff_sites(group)):
                left = sites_left(group, index if site.free else index + 1)
                kept[index] = self._can_finish(left)[self._after(site.in_primitive)[:, state]]
            self._choices[group, state] = kept
        return kept

    def _can_finish(self, left: Left) -> BoolArray:
        """Which states can be finished on the sites left, the last one, no state, never."""
        kept = self._finishing.get(left)
        if kept is None:
            once, again = left
            if once:
                atoms, many = once[-1]
                fewer = (*once[:-1], (atoms, many - 1)) if many > 1 else once[:-1]
                rest = self._can_finish((fewer, again))
            else:
                atoms = again[-1]
                rest = self._can_finish((once, again[:-1]))
            following = self._after(atoms)
            kept = rest | rest[following].any(0)
            while not once and not np.array_equal(kept, rest):
                rest = kept
                kept = rest | rest[following].any(0)
            self._finishing[left] = kept
        return kept

    def _after(self, atoms: int) -> IntArray:
        """The state once so many atoms of each element are added, shape `E x (states + 1)`."""
        kept = self._next.get(atoms)
        if kept is None:
            kept = np.full((len(self._elements), self._nothing + 1), self._nothing, dtype=np.int64)
            for place, more in enumerate(atoms * np.eye(len(self._elements), dtype=np.int64)):
                kept[place, :-1] = self._numbered(self._states + more)
            self._next[atoms] = kept
        return kept


def _below(bounds: IntArray, largest: int) -> IntArray:
    """All compositions with at most so many atoms of each element, and `largest` in all, ascending, one a row."""
    states = np.zeros((1, 0), dtype=np.int64)
    for bound in bounds.tolist():
        states = np.column_stack([np.repeat(states, bound + 1, axis=0), np.tile(np.arange(bound + 1), len(states))])
        states = states[states.sum(1) <= largest]
    return states
