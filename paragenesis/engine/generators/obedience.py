"""Whether crystals obey a condition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import reduce
from math import gcd
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from paragenesis.crystals import Crystals

if TYPE_CHECKING:
    from paragenesis.engine.generators.condition import Condition


def violations(condition: Condition, crystals: Crystals, symprec: float, relaxed: bool) -> list[str]:
    """What each of n crystals disobeys, in words; "" for one that obeys. See `Condition.violations`."""
    return [
        _chemistry_violation(condition, crystals, i)
        or _charge_violation(condition, crystals, i)
        or _seed_violation(condition, crystals, i, symprec, relaxed)
        or _space_group_violation(condition, crystals, i, symprec)
        for i in range(len(crystals))
    ]


def space_group(crystals: Crystals, index: int, symprec: float = 0.1) -> int:
    """International number of the space group of crystal `index` (moyopy); 0 where the search fails."""
    from moyopy import Cell, MoyoDataset

    atoms = crystals.atoms_of(index)
    cell = Cell(crystals.lattices[index].tolist(), crystals.frac[atoms].tolist(), crystals.numbers[atoms].tolist())
    try:
        return int(MoyoDataset(cell, symprec=symprec).number)
    except ValueError:  # atoms on top of each other, or a flat cell
        return 0


def listed(symbols: Iterable[str]) -> str:
    """Symbols in words, sorted."""
    return ", ".join(sorted(symbols))


def _chemistry_violation(condition: Condition, crystals: Crystals, index: int) -> str:
    numbers = crystals.numbers[crystals.atoms_of(index)]
    counts = Counter(chemical_symbols[z] for z in numbers.tolist())
    present = set(counts)
    if not condition.min_atoms <= len(numbers) <= condition.max_atoms:
        return f"{len(numbers)} atoms, not {condition.min_atoms} to {condition.max_atoms}"
    if condition.allowed_elements is not None and not present <= set(condition.allowed_elements):
        return f"{listed(present - set(condition.allowed_elements))} not allowed"
    if not present >= set(condition.required_elements):
        return f"{listed(set(condition.required_elements) - present)} required but absent"
    if condition.exact_elements is not None and present != set(condition.exact_elements):
        return f"elements {listed(present)}, not {listed(condition.exact_elements)}"
    common = reduce(gcd, counts.values())
    if condition.composition is not None and {e: c // common for e, c in counts.items()} != condition.formula_unit:
        return f"composition {crystals.formulas[index]}, not {condition.composition}"
    return ""


def _charge_violation(condition: Condition, crystals: Crystals, index: int) -> str:
    if not condition.charge_neutral:
        return ""
    from paragenesis.engine.screening.chemistry import charge_reason, composition_of

    return charge_reason(composition_of(crystals, index))


def _seed_violation(condition: Condition, crystals: Crystals, index: int, symprec: float, relaxed: bool) -> str:
    if condition.seed_structure is None:
        return ""
    atoms = crystals.atoms_of(index)
    if relaxed:
        return condition.seed_structure.relaxed_violation(crystals.numbers[atoms])
    return condition.seed_structure.violation(
        crystals.numbers[atoms], crystals.frac[atoms], crystals.lattices[index], symprec
    )


def _space_group_violation(condition: Condition, crystals: Crystals, index: int, symprec: float) -> str:
    if condition.space_group is None:
        return ""
    found = space_group(crystals, index, symprec)
    return "" if found == condition.space_group else f"space group {found or 'not found'}, not {condition.space_group}"
