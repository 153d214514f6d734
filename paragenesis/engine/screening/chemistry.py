"""Charge neutrality and electronegativity balance of compositions, by the tables of SMACT.

The rule is SMACT's (Davies et al., JOSS 4, 1361 (2019)): some combination of known oxidation states is neutral, and
in it every cation is less electronegative than every anion. Elements that SMACT lists as mixed-valent may have
several states at once. SMACT tries all combinations and gives up beyond a million of them; here the reachable total
charges are kept as bits of an integer, which is exact and takes microseconds for any composition.

Alloys and intermetallics have no oxidation states to balance and are judged by their own rule: a composition of
metals, or of metals with the metalloids boron and silicon (SMACT already counts germanium and antimony as metals),
passes. So do the elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np

from paragenesis.crystals import Crystals

ReducedComposition = tuple[tuple[str, int], ...]  # symbols and numbers of atoms, by atomic number

# SMACT's tables come from the ICSD, where promethium, which has no stable isotope, hardly occurs.
_PROMETHIUM = "Pm"
_PROMETHIUM_STATES, _PROMETHIUM_ELECTRONEGATIVITY = (3,), 1.13
_INTERMETALLIC_METALLOIDS = frozenset({"B", "Si"})


@lru_cache(maxsize=1)
def oxidation_states() -> Mapping[str, tuple[int, ...]]:
    """Oxidation states seen at least three times in the ICSD, by symbol (SMACT's default table)."""
    from smact.utils.oxidation import ICSD24OxStatesFilter

    table = ICSD24OxStatesFilter().filter(consensus=3)
    pairs = zip(table["element"], table["oxidation_state"], strict=True)
    states = {str(symbol): tuple(int(s) for s in str(text).split()) for symbol, text in pairs}
    return {_PROMETHIUM: _PROMETHIUM_STATES} | states


@lru_cache(maxsize=1)
def _metals() -> frozenset[str]:
    """Symbols of the metals."""
    import smact

    return frozenset(smact.metals) | {_PROMETHIUM}


@lru_cache(maxsize=200)
def electronegativity(symbol: str) -> float | None:
    """Pauling's electronegativity, or None where there is none."""
    import smact

    if symbol == _PROMETHIUM:
        return _PROMETHIUM_ELECTRONEGATIVITY
    value = smact.Element(symbol).pauling_eneg
    return None if value is None else float(value)


@lru_cache(maxsize=200)
def is_mixed_valent(symbol: str) -> bool:
    """Whether atoms of the element may have different oxidation states in one crystal."""
    from smact.screening import MIXED_VALENCE_ELEMENTS

    return symbol in MIXED_VALENCE_ELEMENTS


@lru_cache(maxsize=100_000)
def chemistry_reason(composition: ReducedComposition) -> str:
    """Why a composition is chemically implausible, or "".

    Args:
        composition: Symbols and numbers of atoms in the reduced formula, each symbol once.
    """
    return "" if _is_intermetallic([symbol for symbol, _ in composition]) else charge_reason(composition)


@lru_cache(maxsize=100_000)
def charge_reason(composition: ReducedComposition) -> str:
    """Why a composition is no charge-neutral compound, or ""; intermetallics are held to it, the elements are not.

    Args:
        composition: Symbols and numbers of atoms in the reduced formula, each symbol once.
    """
    symbols = [symbol for symbol, _ in composition]
    if len(symbols) == 1:
        return ""
    unknown = [s for s in symbols if not oxidation_states().get(s)]
    if unknown:
        return f"charge: no oxidation states are known of {', '.join(unknown)}"
    closest = _closest_charge(composition)
    if closest:
        formula = _readable(composition)
        return f"charge: no combination of oxidation states makes {formula} neutral (the closest leaves {closest:+d})"
    missing = [s for s in symbols if electronegativity(s) is None]
    if missing:
        return f"electronegativity: none is known of {', '.join(missing)}"
    if not _balanced(composition):
        return (
            f"electronegativity: every neutral combination of oxidation states in {_readable(composition)} "
            "has a cation that is at least as electronegative as an anion"
        )
    return ""


def _is_intermetallic(symbols: list[str]) -> bool:
    """True for metals, alone or with boron or silicon."""
    metals = _metals()
    return any(s in metals for s in symbols) and all(s in metals or s in _INTERMETALLIC_METALLOIDS for s in symbols)


def _closest_charge(composition: ReducedComposition) -> int:
    """The total charge of smallest magnitude that the known oxidation states allow."""
    lowest = [min(oxidation_states()[symbol]) for symbol, _ in composition]
    shift = -sum(count * low for (_, count), low in zip(composition, lowest, strict=True))
    bits = 1
    for (symbol, count), low in zip(composition, lowest, strict=True):
        bits = add_ions(bits, symbol, count, [state - low for state in oxidation_states()[symbol]])
    totals = (total - shift for total in range(bits.bit_length()) if bits >> total & 1)
    return min(totals, key=lambda total: (abs(total), total))


def _balanced(composition: ReducedComposition) -> bool:
    """True if a neutral combination exists whose cations are all less electronegative than its anions."""
    states = oxidation_states()
    scale = {symbol: electronegativity(symbol) or 0.0 for symbol, _ in composition}
    for border in sorted(set(scale.values()))[1:]:
        cations, anions = 1, 1
        for symbol, count in composition:
            if scale[symbol] < border:
                cations = add_ions(cations, symbol, count, [s for s in states[symbol] if s > 0])
            else:
                anions = add_ions(anions, symbol, count, [-s for s in states[symbol] if s < 0])
        if cations & anions:
            return True
    return False


def add_ions(bits: int, symbol: str, count: int, charges: Iterable[int]) -> int:
    """The reachable totals (bit k set: k is reachable) once `count` atoms with one of `charges` >= 0 are added."""
    steps, factor = (count, 1) if is_mixed_valent(symbol) else (1, count)
    for _ in range(steps):
        total = 0
        for charge in charges:
            total |= bits << (charge * factor)
        bits = total
    return bits


def _readable(composition: ReducedComposition) -> str:
    """A reduced composition as chemists write it, the most electronegative element last."""
    return formula_text(tuple(sorted(composition, key=lambda item: electronegativity(item[0]) or 0.0)))


def reduced_composition(amounts: Mapping[int, int]) -> ReducedComposition:
    """The reduced composition of so many atoms of each atomic number."""
    from ase.data import chemical_symbols

    divisor = math.gcd(*amounts.values())
    return tuple((str(chemical_symbols[z]), amounts[z] // divisor) for z in sorted(amounts))


def composition_of(crystals: Crystals, index: int) -> ReducedComposition:
    """The reduced composition of one crystal of a batch."""
    numbers, counts = np.unique(crystals.numbers[crystals.atoms_of(index)], return_counts=True)
    return reduced_composition(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))


def formula_text(composition: ReducedComposition) -> str:
    """A reduced composition as text, by atomic number: "O2Ti"."""
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in composition)
