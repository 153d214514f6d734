"""Charge neutrality of compositions, whole and in the making.

The rule and its tables are those that crystals are screened by (`screening.chemistry`, after SMACT): each element has
one oxidation state, mixed-valent elements one an atom; the charges add up to zero, and every cation is less
electronegative than every anion. Intermetallics, which screening exempts, are held to it; crystals of one element are
neutral.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from ase.data import atomic_numbers

from paragenesis.engine.screening.chemistry import (
    ReducedComposition,
    add_ions,
    charge_reason,
    electronegativity,
    oxidation_states,
    reduced_composition,
)

_SMALL = 20  # atoms; a neutral composition is looked for among so many before it is among more


def is_neutral(counts: Mapping[str, int]) -> bool:
    """Whether a composition, as atoms of each symbol, is charge-neutral."""
    return not charge_reason(_reduced(counts))


def composition_reason(counts: Mapping[str, int]) -> str:
    """Why a composition is not charge-neutral, in words with the closest total charge, or ""."""
    return charge_reason(_reduced(counts))


def _reduced(counts: Mapping[str, int]) -> ReducedComposition:
    return reduced_composition({atomic_numbers[symbol]: count for symbol, count in counts.items()})


@lru_cache(maxsize=100_000)
def ion_charges(symbol: str, count: int, sign: int) -> int:
    """What total charges `count` atoms of an element can have as ions of one sign: bit k is set for sign * k.

    Args:
        symbol: The element.
        count: How many atoms, all of one oxidation state unless the element is mixed-valent.
        sign: 1 for cations, -1 for anions.
    """
    charges = [state * sign for state in oxidation_states().get(symbol, ()) if state * sign > 0]
    return add_ions(1, symbol, count, charges) if charges else 0


def elements_reason(allowed: Sequence[str] | None, required: Sequence[str], min_atoms: int, max_atoms: int) -> str:
    """Why no crystal with these elements is charge-neutral, in words, or "".

    Args:
        allowed: The only elements there may be; None for all.
        required: Elements that there must be.
        min_atoms: Fewest atoms in the cell.
        max_atoms: Most atoms in the cell.
    """
    if len(required) < 2:
        return ""  # a crystal of one element is neutral
    known = {s for s, states in oxidation_states().items() if states and electronegativity(s) is not None}
    unknown = sorted(set(required) - known)
    if unknown:
        return f"no oxidation states are known of {', '.join(unknown)}, so that no compound of it is charge-neutral"
    others = known.intersection(known if allowed is None else allowed).difference(required)
    for atoms in sorted({min(_SMALL, max_atoms), max_atoms}):
        if _some_neutral(required, sorted(others), min(min_atoms, atoms), atoms):
            return ""
    among = "" if not others else f", alone or with {_some(sorted(others))},"
    return f"no crystal of {', '.join(required)}{among} with {min_atoms} to {max_atoms} atoms is charge-neutral"


def _some(symbols: Sequence[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= 6 else f"any of {len(symbols)} other elements"


def _some_neutral(required: Sequence[str], others: Sequence[str], min_atoms: int, max_atoms: int) -> bool:
    """Whether some composition of all the required elements, and perhaps of others, is charge-neutral."""
    scale = {s: electronegativity(s) or 0.0 for s in (*required, *others)}
    # the most electronegative others first: an oxide or fluoride is what most elements lack to be neutral
    order = [*required, *sorted(others, key=lambda s: (-scale[s], s))]
    return any(
        _some_neutral_at(order, len(required), [scale[s] < border for s in order], min_atoms, max_atoms)
        for border in sorted(set(scale.values()))[1:]
    )


def _some_neutral_at(
    order: Sequence[str], required: int, cation: Sequence[bool], min_atoms: int, max_atoms: int
) -> bool:
    """Whether a composition is neutral with these elements as cations and the others as anions."""
    zero = 10 * max_atoms  # the bit that stands for no charge; no ion has as many as ten
    totals = {0: 1 << zero}  # what charges can be reached, by the number of atoms
    for place, (symbol, positive) in enumerate(zip(order, cation, strict=True)):
        grown = {} if place < required else dict(totals)
        for atoms, bits in totals.items():
            for count in range(1, max_atoms - atoms + 1):
                charges = ion_charges(symbol, count, 1 if positive else -1)
                more = _shifted(bits, charges, 1 if positive else -1)
                grown[atoms + count] = grown.get(atoms + count, 0) | more
        totals = {atoms: bits for atoms, bits in grown.items() if bits}
        if place >= required - 1 and any(bits >> zero & 1 for atoms, bits in totals.items() if atoms >= min_atoms):
            return True
    return False


def _shifted(bits: int, charges: int, sign: int) -> int:
    """The totals of `bits` with each of `charges` added, or taken away where `sign` is -1."""
    out = 0
    for charge in set_bits(charges):
        out |= bits << charge if sign > 0 else bits >> charge
    return out


def set_bits(bits: int) -> Iterator[int]:
    """The places of the bits that are set, ascending."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def neutral_compositions(elements: Sequence[str], min_atoms: int, max_atoms: int) -> list[tuple[int, ...]]:
    """Every charge-neutral composition of exactly these elements in a cell of that size, as atoms of each, sorted."""
    if len(elements) == 1:
        return [(count,) for count in range(max(min_atoms, 1), max_atoms + 1)]
    scale = [electronegativity(symbol) for symbol in elements]
    known = [value for value in scale if value is not None]
    if len(known) < len(elements):
        return []
    found: set[tuple[int, ...]] = set()
    for border in sorted(set(known))[1:]:
        signs = [1 if value < border else -1 for value in known]
        found.update(_balanced_counts(elements, signs, max_atoms))
    return sorted(counts for counts in found if sum(counts) >= min_atoms)


def _balanced_counts(elements: Sequence[str], signs: Sequence[int], max_atoms: int) -> Iterator[tuple[int, ...]]:
    """The compositions that are neutral with cations and anions told by `signs`."""

    def grow(counts: tuple[int, ...], room: int, cations: int, anions: int) -> Iterator[tuple[int, ...]]:
        place = len(counts)
        if place == len(elements):
            if cations & anions:
                yield counts
            return
        for count in range(1, room - (len(elements) - place - 1) + 1):
            charges = ion_charges(elements[place], count, signs[place])
            if not charges:
                return  # an element without such ions
            more = (combined(cations, charges), anions) if signs[place] > 0 else (cations, combined(anions, charges))
            yield from grow((*counts, count), room - count, *more)

    return grow((), max_atoms, 1, 1)


@lru_cache(maxsize=100_000)
def combined(bits: int, others: int) -> int:
    """The sums of a number from each of two sets, all sets as bits."""
    few, many = sorted((bits, others), key=lambda one: len(_runs(one)))
    found = 0
    for start, length in _runs(few):
        spread, covered = many, 1
        while covered < length:
            step = min(covered, length - covered)
            spread |= spread << step
            covered += step
        found |= spread << start
    return found


@lru_cache(maxsize=100_000)
def differences(bits: int, others: int) -> int:
    """What a number of one set exceeds a number of another by, 0 included, all sets as bits."""
    found = 0
    for start, length in _runs(others):
        spread, covered = bits >> start, 1
        while covered < length:
            step = min(covered, length - covered)
            spread |= spread >> step
            covered += step
        found |= spread
    return found


@lru_cache(maxsize=100_000)
def _runs(bits: int) -> tuple[tuple[int, int], ...]:
    """Where the runs of set bits start, and how long they are: few for the charges of mixed-valent elements."""
    found = []
    at = 0
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        length = (~bits & (bits + 1)).bit_length() - 1
        bits >>= length
        found.append((at + skipped, length))
        at += skipped + length
    return tuple(found)
