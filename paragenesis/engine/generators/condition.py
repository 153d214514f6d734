"""What is asked of a generated crystal: its chemistry, size, symmetry and prototype."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import reduce
from math import gcd
from typing import Self

from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field, field_validator, model_validator

from paragenesis.crystals import Crystals
from paragenesis.settings import Settings

_ELEMENTS = frozenset(chemical_symbols[1:104])  # H to Lr, the elements that bulk crystals are known of


class Condition(Settings):
    """What every crystal of a generator must be; parts left out are free.

    Elements are kept sorted by symbol and a composition as its reduced formula, so equal wishes are equal conditions.

    Attributes:
        allowed_elements: The only elements a crystal may hold.
        required_elements: Elements that every crystal holds.
        chemical_system: Exactly these elements, all of them: "Ca-Ti-O".
        composition: The reduced formula: "CaTiO3".
        min_atoms: Fewest atoms in the primitive cell.
        max_atoms: Most atoms in the primitive cell.
        space_group: International number of the space group, 1 to 230.
        prototype: Name of a prototype in the generator's template library.
    """

    allowed_elements: tuple[str, ...] | None = None
    required_elements: tuple[str, ...] = ()
    chemical_system: str | None = None
    composition: str | None = None
    min_atoms: int = Field(default=1, ge=1)
    max_atoms: int = Field(default=20, ge=1)
    space_group: int | None = Field(default=None, ge=1, le=230)
    prototype: str | None = Field(default=None, min_length=1)

    @field_validator("allowed_elements", "required_elements")
    @classmethod
    def _real_elements(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else _checked(value)

    @field_validator("chemical_system")
    @classmethod
    def _real_system(cls, value: str | None) -> str | None:
        return None if value is None else "-".join(_checked(part.strip() for part in value.split("-")))

    @field_validator("composition")
    @classmethod
    def _real_composition(cls, value: str | None) -> str | None:
        from pymatgen.core import Composition

        if value is None:
            return None
        try:
            composition = Composition(value)
            whole = all(float(amount).is_integer() for amount in composition.values())
        except (ValueError, KeyError):
            raise ValueError(f"'{value}' is no chemical formula; write it like CaTiO3") from None
        if not composition or not whole:
            raise ValueError(f"'{value}' has no whole numbers of atoms; write it like CaTiO3")
        _checked(element.symbol for element in composition)
        return str(composition.reduced_formula)

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        sentence = _size_contradiction(self) or _chemistry_contradiction(self)
        if sentence:
            raise ValueError(sentence)
        return self

    @property
    def formula_unit(self) -> dict[str, int]:
        """Atoms of each element in the smallest whole-number formula; empty without a composition."""
        from pymatgen.core import Composition

        if self.composition is None:
            return {}
        counts = {e.symbol: round(amount) for e, amount in Composition(self.composition).items()}
        common = reduce(gcd, counts.values())
        return {symbol: count // common for symbol, count in counts.items()}

    @property
    def exact_elements(self) -> tuple[str, ...] | None:
        """The elements of the chemical system or composition, sorted by symbol; None where neither is set."""
        if self.composition is not None:
            return tuple(sorted(self.formula_unit))
        return tuple(self.chemical_system.split("-")) if self.chemical_system is not None else None

    def parts(self) -> frozenset[str]:
        """Names of the parts that are set to something else than their default."""
        return frozenset(
            name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default
        )

    def violations(self, crystals: Crystals, symprec: float = 0.1) -> list[str]:
        """What each of n crystals disobeys, in words; "" for one that obeys.

        The prototype is not judged here: it is a matter of the generator's library, which names it in the origin.

        Args:
            crystals: The crystals, as primitive cells.
            symprec: Tolerance of the space group search, angstrom.
        """
        return [
            self._chemistry_violation(crystals, i) or self._space_group_violation(crystals, i, symprec)
            for i in range(len(crystals))
        ]

    def _chemistry_violation(self, crystals: Crystals, index: int) -> str:
        numbers = crystals.numbers[crystals.atoms_of(index)]
        counts = Counter(chemical_symbols[z] for z in numbers.tolist())
        present = set(counts)
        if not self.min_atoms <= len(numbers) <= self.max_atoms:
            return f"{len(numbers)} atoms, not {self.min_atoms} to {self.max_atoms}"
        if self.allowed_elements is not None and not present <= set(self.allowed_elements):
            return f"{_list(present - set(self.allowed_elements))} not allowed"
        if not present >= set(self.required_elements):
            return f"{_list(set(self.required_elements) - present)} required but absent"
        if self.exact_elements is not None and present != set(self.exact_elements):
            return f"elements {_list(present)}, not {_list(self.exact_elements)}"
        common = reduce(gcd, counts.values())
        if self.composition is not None and {e: c // common for e, c in counts.items()} != self.formula_unit:
            return f"composition {crystals.formulas[index]}, not {self.composition}"
        return ""

    def _space_group_violation(self, crystals: Crystals, index: int, symprec: float) -> str:
        if self.space_group is None:
            return ""
        found = space_group(crystals, index, symprec)
        return "" if found == self.space_group else f"space group {found or 'not found'}, not {self.space_group}"


def space_group(crystals: Crystals, index: int, symprec: float = 0.1) -> int:
    """International number of the space group of crystal `index` (moyopy); 0 where the search fails."""
    from moyopy import Cell, MoyoDataset

    atoms = crystals.atoms_of(index)
    cell = Cell(crystals.lattices[index].tolist(), crystals.frac[atoms].tolist(), crystals.numbers[atoms].tolist())
    try:
        return int(MoyoDataset(cell, symprec=symprec).number)
    except ValueError:  # atoms on top of each other, or a flat cell
        return 0


def _checked(symbols: Iterable[str]) -> tuple[str, ...]:
    """The symbols sorted and without repeats, if all are elements."""
    unique = sorted(set(symbols))
    for symbol in unique:
        if symbol not in _ELEMENTS:
            raise ValueError(f"'{symbol}' is no chemical element; write symbols like Ca, Ti, O")
    if not unique:
        raise ValueError("no element is named; leave the field out or name at least one")
    return tuple(sorted(unique, key=lambda s: (s, atomic_numbers[s])))


def _size_contradiction(condition: Condition) -> str:
    """Why no cell can have the number of atoms asked for, or ""."""
    low, high = condition.min_atoms, condition.max_atoms
    if low > high:
        return f"min_atoms = {low} is more than max_atoms = {high}; swap or widen them"
    unit = sum(condition.formula_unit.values())
    if unit and high // unit * unit < low:
        return (
            f"a cell of {condition.composition} has a multiple of {unit} atoms, and none lies between min_atoms = "
            f"{low} and max_atoms = {high}; widen them"
        )
    needed = condition.exact_elements or condition.required_elements
    if len(needed) > high:
        return f"{len(needed)} elements ({_list(needed)}) do not fit in max_atoms = {high}; raise it"
    return ""


def _chemistry_contradiction(condition: Condition) -> str:
    """Which two parts name elements that exclude each other, or ""."""
    required = set(condition.required_elements)
    system = set(condition.chemical_system.split("-")) if condition.chemical_system is not None else None
    unit = set(condition.formula_unit)
    allowed = set(condition.allowed_elements) if condition.allowed_elements is not None else None
    if system is not None and required - system:
        return f"required element {_list(required - system)} is outside the chemical system {condition.chemical_system}"
    if unit and required - unit:
        return f"required element {_list(required - unit)} is not in the composition {condition.composition}"
    if unit and system is not None and unit != system:
        return f"the composition {condition.composition} is not of the chemical system {condition.chemical_system}"
    if allowed is None:
        return ""
    for what, elements in (
        ("required_elements", required),
        ("chemical_system", system or set()),
        ("composition", unit),
    ):
        if elements - allowed:
            return f"{what} has {_list(elements - allowed)}, which allowed_elements leaves out; allow it or drop it"
    return ""


def _list(symbols: Iterable[str]) -> str:
    return ", ".join(sorted(symbols))
