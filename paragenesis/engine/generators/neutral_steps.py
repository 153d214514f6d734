"""Which elements a growing crystal may take next so that it can still become charge-neutral.

The rule of neutrality is that of `neutrality`. A partial composition counts as finishable if it is neutral as it
stands, or becomes so with some number of atoms of one more element, be it a new one or one already there, beside those
of each required element that is missing. Every step that is allowed
leaves such a way out, and taking it is always allowed, so that dead ends are rare. Two simplifications leave some: the
numbers of several elements to come are judged one by one, and a new element may be counted on in two oxidation states.
The price is that a step is refused after which two elements that nobody requires would have to be added together: on
the way to 1 in 1,000 of the neutral crystals in MP-20.

What charges can be reached, and what charges are still wanted, are sets kept as the bits of integers, and so are sets
of elements and of numbers of atoms: a step costs some tens of microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from ase.data import chemical_symbols

from paragenesis.crystals import BoolArray, IntArray
from paragenesis.engine.generators.neutrality import combined, differences, ion_charges, set_bits
from paragenesis.engine.screening.chemistry import electronegativity

ELEMENTS = 104  # atomic numbers 0 (unused) to 103

Items = tuple[tuple[int, int], ...]
"""A composition: atomic numbers, ascending, and the numbers of atoms that each may have, as bits."""


@dataclass(frozen=True, eq=False)
class Split:
    """A composition's elements up to an electronegativity as cations, the others as anions.

    Attributes:
        cations: The total charges that the cations can have, as bits.
        anions: The total charges that the anions can have, without their sign, as bits.
        may_be_cations: Elements that could join the cations, as bits.
        may_be_anions: Elements that could join the anions, as bits.
        rests: Of each element, the charges that the others of its sign can have, as bits.
        signs: The sign of each element.
    """

    cations: int
    anions: int
    may_be_cations: int
    may_be_anions: int
    rests: tuple[int, ...]
    signs: tuple[int, ...]

    def with_charges(self, place: int, charges: int) -> tuple[int, int]:
        """The charges of the cations and of the anions if the element at a place had these."""
        changed = combined(self.rests[place], charges)
        return (changed, self.anions) if self.signs[place] > 0 else (self.cations, changed)


_ALL = (1 << ELEMENTS) - 1
_WIDTH = (ELEMENTS + 7) // 8


class NeutralityTable:
    """Answers for B partial compositions at once; what it has worked out it keeps."""

    def __init__(self, allowed: Collection[int], required: Collection[int] = ()) -> None:
        """Take what the finished crystal may and must hold.

        Args:
            allowed: Atomic numbers that may be used.
            required: Atomic numbers that must be.
        """
        self._allowed = sum(1 << z for z in set(allowed))
        self._required = sum(1 << z for z in set(required))
        self._elements = lru_cache(maxsize=200_000)(self._elements_of)
        self._completes = lru_cache(maxsize=200_000)(self._is_completed)
        self._groups = lru_cache(maxsize=20_000)(self._groups_of)

    def finished(self, counts: IntArray) -> BoolArray:
        """Whether each composition is neutral, shape `B`.

        Args:
            counts: Atoms of each atomic number, shape `B x 104`.
        """
        return np.array([_is_neutral(items) for items in compositions(counts)], dtype=np.bool_)

    def begins(self, composition: Items, added: int, totals: int) -> bool:
        """Whether one more element, or one already there, would make a composition neutral.

        Args:
            composition: See `compositions`; required elements may be missing, then nothing is refused.
            added: How many atoms of it come now.
            totals: How many may come later, as bits: bit 0 if none need.
        """
        if len(composition) < 2 or self._required & ~_present(composition):
            return totals > 0
        return any(self._completes(composition, added + later) for later in set_bits(totals))

    def elements(self, counts: IntArray, added: IntArray, totals: Sequence[int]) -> BoolArray:
        """Elements that may be added, shape `B x 104`.

        Args:
            counts: Atoms of each atomic number so far, shape `B x 104`.
            added: How many atoms are added, shape `B`.
            totals: The numbers of atoms that may come afterwards, as bits: bit 0 if none need come.
        """
        rows = zip(compositions(counts), added.tolist(), totals, strict=True)
        sets = b"".join(self._elements(items, more, total).to_bytes(_WIDTH, "little") for items, more, total in rows)
        raw = np.frombuffer(sets, dtype=np.uint8).reshape(len(counts), _WIDTH)
        return np.unpackbits(raw, axis=1, bitorder="little")[:, :ELEMENTS].astype(np.bool_)

    # --- one composition ---------------------------------------------------------------------------------------------

    def _is_completed(self, items: Items, atoms: int) -> bool:
        """Whether so many atoms of one more element, new or there already, make a composition neutral."""
        return any(self._completed(items, split, atoms) for split in _splits(items))

    def _completed(self, items: Items, split: Split, atoms: int) -> bool:
        """Whether they do so at one split into cations and anions."""
        wanted, spare = _needs(split.cations, split.anions)
        if self._brings_some(1, split.may_be_cations, 1 << atoms, wanted):
            return True
        if self._brings_some(-1, split.may_be_anions, 1 << atoms, spare):
            return True
        return any(_balanced(split, i, ions_of(z, split.signs[i], had << atoms)) for i, (z, had) in enumerate(items))

    def _elements_of(self, items: Items, added: int, totals: int) -> int:
        """See `elements`; a set of elements as bits."""
        missing = self._required & ~_present(items)
        found = self._allowed & ~missing & self._with_way_out(items, added, totals, missing)
        for z in set_bits(missing & self._allowed):
            found |= (1 << z) & self._with_way_out(items, added, totals, missing & ~(1 << z))
        return found

    def _with_way_out(self, items: Items, added: int, totals: int, missing: int) -> int:
        """Elements after which a way out is left, if these are still missing then."""
        if not totals:
            return 0
        if not items and not missing:
            return _ALL  # an elemental crystal is neutral
        found = 1 << items[0][0] if len(items) == 1 and not missing else 0
        whole = _with(items, missing, totals)
        after = totals | 1 if missing else totals  # nothing but what is missing need come
        for split in _splits(whole):
            positive = self._bring(totals & ~1, 1, split.may_be_cations)
            negative = self._bring(totals & ~1, -1, split.may_be_anions)
            found |= self._new(whole, added, after, split, positive, negative)
            for i, (z, had) in enumerate(whole):
                if missing >> z & 1 or found >> z & 1:
                    continue
                sign, once = split.signs[i], had << added
                if _balanced(split, i, ions_of(z, sign, combined(once, after))):
                    found |= 1 << z
                    continue
                wanted, spare = _needs(*split.with_charges(i, ions_of(z, sign, once)))
                found |= 1 << z if wanted & positive or spare & negative else 0
        return found

    def _new(self, items: Items, added: int, totals: int, split: Split, positive: int, negative: int) -> int:
        """New elements with a way out, at one split into cations and anions.

        Args:
            items: The composition.
            added: The atoms of the new element.
            totals: The numbers of atoms of elements that are there, or of the new one, that may follow, as bits.
            split: The cations and anions.
            positive: The charges that one more cation can bring, as bits.
            negative: The charges that one more anion can bring, as bits.
        """
        wanted, spare = _needs(split.cations, split.anions)
        # what the new element has to bring is what is wanted, less what the one after it brings
        as_cation = differences(wanted, positive) | combined(wanted, negative) | differences(negative, spare)
        as_anion = differences(spare, negative) | combined(spare, positive) | differences(positive, wanted)
        more = totals & ~1
        for i, (z, had) in enumerate(items) if more else ():
            charges = ions_of(z, split.signs[i], combined(had, more))
            other_wanted, other_spare = _needs(*split.with_charges(i, charges))
            as_cation |= other_wanted
            as_anion |= other_spare
        return self._able(1, split.may_be_cations, 1 << added, as_cation, totals << added, wanted) | self._able(
            -1, split.may_be_anions, 1 << added, as_anion, totals << added, spare
        )

    # --- the pool of elements ----------------------------------------------------------------------------------------

    def _groups_of(self, sign: int, totals: int) -> tuple[tuple[int, int], ...]:
        """The total charges that elements of the pool can have, as bits, and which elements, as bits, have them."""
        groups: dict[int, int] = {}
        for z in set_bits(self._allowed):
            charges = ions_of(z, sign, totals)
            if charges and _electronegativity(z) == _electronegativity(z):
                groups[charges] = groups.get(charges, 0) | 1 << z
        return tuple(groups.items())

    def _brings_some(self, sign: int, among: int, totals: int, charges: int) -> bool:
        """Whether some number of atoms of one element out of some brings one of these charges."""
        return any(brought & charges and elements & among for brought, elements in self._groups(sign, totals))

    def _bring(self, totals: int, sign: int, among: int) -> int:
        """Total charges, as bits, that some number of atoms of one element out of some can bring."""
        found = 0
        for charges, elements in self._groups(sign, totals):
            if elements & among:
                found |= charges
        return found

    def _able(self, sign: int, among: int, atoms: int, charges: int, totals: int, others: int) -> int:
        """Elements out of some that bring one of `charges` with `atoms`, or one of `others` with one of `totals`."""
        found = 0
        for brought, elements in self._groups(sign, atoms):
            if brought & charges:
                found |= elements
        for brought, elements in self._groups(sign, totals):
            if brought & others:
                found |= elements
        return found & among


# --- compositions ----------------------------------------------------------------------------------------------------


def compositions(counts: IntArray) -> list[Items]:
    """The compositions of B rows of atoms of each atomic number."""
    rows, numbers = np.nonzero(counts)
    found: list[list[tuple[int, int]]] = [[] for _ in range(len(counts))]
    for row, z, count in zip(rows.tolist(), numbers.tolist(), counts[rows, numbers].tolist(), strict=True):
        found[row].append((z, 1 << count))
    return [tuple(one) for one in found]


def _present(items: Items) -> int:
    """The elements of a composition, as bits."""
    return sum(1 << z for z, _ in items)


def _with(items: Items, elements: int, totals: int) -> Items:
    """A composition with further elements, as bits, each in one of some numbers of atoms above 0."""
    if not elements:
        return items
    return tuple(sorted((*items, *((z, totals & ~1) for z in set_bits(elements)))))


@lru_cache(maxsize=200)
def _electronegativity(z: int) -> float:
    """Pauling's electronegativity; NaN where there is none, which is neither below nor above any other."""
    value = electronegativity(chemical_symbols[z])
    return float("nan") if value is None else value


@lru_cache(maxsize=1_000)
def _below(value: float) -> int:
    """Elements less electronegative than that, as bits."""
    return sum(1 << z for z in range(1, ELEMENTS) if _electronegativity(z) < value)


@lru_cache(maxsize=1_000)
def _up_to(value: float) -> int:
    """Elements at most that electronegative, as bits."""
    return sum(1 << z for z in range(1, ELEMENTS) if _electronegativity(z) <= value)


@lru_cache(maxsize=100_000)
def ions_of(z: int, sign: int, totals: int) -> int:
    """The total charges, as bits, that an element can have as ions of one sign; `totals` are numbers of atoms."""
    found = 0
    for count in set_bits(totals):
        found |= ion_charges(chemical_symbols[z], count, sign) if count else 0
    return found


@lru_cache(maxsize=100_000)
def _charges(items: Items, sign: int) -> int:
    """The total charges of a composition as ions of one sign, as bits."""
    if not items:
        return 1
    (z, totals), rest = items[-1], items[:-1]
    own = ions_of(z, sign, totals)
    return combined(_charges(rest, sign), own) if own else 0


@lru_cache(maxsize=100_000)
def _splits(items: Items) -> tuple[Split, ...]:
    """The ways to take a composition's less electronegative elements for cations and the others for anions."""
    scale = [_electronegativity(z) for z, _ in items]
    if any(value != value for value in scale):
        return ()  # a noble gas: there are no such ions
    new = ~_present(items)
    found = []
    for low, high in pairwise([float("-inf"), *sorted(set(scale)), float("inf")]):
        signs = tuple(1 if value <= low else -1 for value in scale)
        cations, anions = _charges(_of_sign(items, signs, 1), 1), _charges(_of_sign(items, signs, -1), -1)
        if cations and anions:
            rests = tuple(
                _charges(tuple(other for other in _of_sign(items, signs, sign) if other is not item), sign)
                for item, sign in zip(items, signs, strict=True)
            )
            found.append(Split(cations, anions, new & _below(high), new & ~_up_to(low), rests, signs))
    return tuple(found)


def _of_sign(items: Items, signs: Sequence[int], sign: int) -> Items:
    return tuple(item for item, its in zip(items, signs, strict=True) if its == sign)


def _balanced(split: Split, place: int, charges: int) -> bool:
    """Whether a composition is neutral if the element at a place has these charges."""
    cations, anions = split.with_charges(place, charges)
    return bool(cations & anions)


@lru_cache(maxsize=100_000)
def _needs(cations: int, anions: int) -> tuple[int, int]:
    """The charges that a further cation would have to bring to balance, and those that an anion would."""
    if not (cations and anions):
        return 0, 0
    return differences(anions, cations), differences(cations, anions)


@lru_cache(maxsize=100_000)
def _is_neutral(items: Items) -> bool:
    """Whether a composition is charge-neutral."""
    return len(items) == 1 or any(split.cations & split.anions > 1 for split in _splits(items))
