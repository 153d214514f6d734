"""What is asked of a generated crystal: its chemistry, size, symmetry, geometry and properties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from math import gcd
from typing import Any, Self

from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field, field_validator, model_validator

from paragenesis.crystals import Crystals
from paragenesis.engine.generators.contradictions import contradiction
from paragenesis.engine.generators.obedience import violations
from paragenesis.engine.generators.seed_structure import SeedStructure
from paragenesis.errors import InputError
from paragenesis.settings import Settings

_ELEMENTS = frozenset(chemical_symbols[1:104])  # H to Lr, the elements that bulk crystals are known of
_STRENGTHS = frozenset({"guidance"})  # how strongly other parts are pursued; nothing to honour by itself


class PropertyRange(Settings):
    """The values of one property that are wanted; `value = 0.0` in a campaign stands for both bounds.

    Attributes:
        property: Its name, as in the data that the generator learned from: "band_gap".
        low: Least value, in the unit of those data; None for no bound.
        high: Largest value; None for no bound.
    """

    property: str = Field(min_length=1)
    low: float | None = None
    high: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_value(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "value" not in value:
            return value
        if value.keys() & {"low", "high"}:
            raise ValueError("a value and a bound were given; give value = ..., or low = ... and high = ...")
        rest = {name: given for name, given in value.items() if name != "value"}
        return {**rest, "low": value["value"], "high": value["value"]}

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError(f"the property '{self.property}' has no bounds; give low, high, both, or value")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low = {self.low:g} of '{self.property}' is more than high = {self.high:g}; swap them")
        return self

    @staticmethod
    def from_text(text: str) -> dict[str, Any]:
        """Plain values from "band_gap=1.0:2.0", "band_gap=1.0:", "band_gap=:2.0" or "energy_above_hull=0.0".

        Raises:
            InputError: The text has another form.
        """
        name, _, bounds = text.partition("=")
        low, colon, high = bounds.partition(":")
        try:
            ends = {end: float(given) for end, given in (("low", low), ("high", high if colon else low)) if given}
        except ValueError:
            ends = {}
        if not (name and ends):
            raise InputError(f"'{text}' is no property with its range; write NAME=LOW:HIGH, NAME=LOW: or NAME=VALUE")
        return {"property": name, **ends}

    def holds(self, value: float) -> bool:
        """Whether a value is within the bounds; NaN never is."""
        low = self.low if self.low is not None else float("-inf")
        high = self.high if self.high is not None else float("inf")
        return low <= value <= high


class Condition(Settings):
    """What every crystal of a generator must be; parts left out are free.

    Every part is hard, which means that each crystal obeys it, but `properties`: those are soft, pursued and not
    promised. Elements are kept sorted by symbol and a composition as its reduced formula, so equal wishes are equal
    conditions.

    Attributes:
        allowed_elements: The only elements a crystal may hold.
        required_elements: Elements that every crystal holds.
        chemical_system: Exactly these elements, all of them: "Ca-Ti-O".
        composition: The reduced formula: "CaTiO3".
        min_atoms: Fewest atoms in the primitive cell.
        max_atoms: Most atoms in the primitive cell.
        space_group: International number of the space group, 1 to 230.
        prototype: Name of a prototype in the generator's template library.
        charge_neutral: Known oxidation states balance, cations less electronegative than anions, as SMACT has it
            (`screening.chemistry`); intermetallics are not exempt, crystals of one element pass.
        seed_structure: A geometry to keep, up to its scale, with some of its sites' elements.
        properties: Values or ranges of properties to aim at, by name.
        guidance: Weight w with which `properties` are pursued: (1 + w) conditional - w unconditional; 0 follows the
            conditional distribution, more follows the wishes closer and makes the crystals less diverse.
    """

    allowed_elements: tuple[str, ...] | None = None
    required_elements: tuple[str, ...] = ()
    chemical_system: str | None = None
    composition: str | None = None
    min_atoms: int = Field(default=1, ge=1)
    max_atoms: int = Field(default=20, ge=1)
    space_group: int | None = Field(default=None, ge=1, le=230)
    prototype: str | None = Field(default=None, min_length=1)
    charge_neutral: bool = False
    seed_structure: SeedStructure | None = None
    properties: tuple[PropertyRange, ...] = ()
    guidance: float = Field(default=2.0, ge=0.0)

    @field_validator("allowed_elements")
    @classmethod
    def _real_elements(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else _checked(value)

    @field_validator("required_elements")
    @classmethod
    def _real_or_none(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _checked(value) if value else ()

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

    @field_validator("properties")
    @classmethod
    def _by_name(cls, value: tuple[PropertyRange, ...]) -> tuple[PropertyRange, ...]:
        return tuple(sorted(value, key=lambda wish: wish.property))

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        if sentence := contradiction(self):
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
        """Names of the parts that are set to something else than their default; guidance alone is none."""
        return frozenset(name for name in PARTS if getattr(self, name) != type(self).model_fields[name].default)

    def violations(self, crystals: Crystals, symprec: float = 0.1, *, relaxed: bool = False) -> list[str]:
        """What each of n crystals disobeys, in words; "" for one that obeys.

        Properties are soft and never violated. The prototype is not judged here: it is a matter of the generator's
        library, which names it in the origin.

        Args:
            crystals: The crystals, as primitive cells.
            symprec: Tolerance of the space group search and of the seed structure's geometry, angstrom.
            relaxed: They were relaxed: of the seed structure, only its fixed elements can still be told.
        """
        return violations(self, crystals, symprec, relaxed)


PARTS = frozenset(Condition.model_fields) - _STRENGTHS


def _checked(symbols: Iterable[str]) -> tuple[str, ...]:
    """The symbols sorted and without repeats, if all are elements."""
    unique = sorted(set(symbols))
    for symbol in unique:
        if symbol not in _ELEMENTS:
            raise ValueError(f"'{symbol}' is no chemical element; write symbols like Ca, Ti, O")
    if not unique:
        raise ValueError("no element is named; leave the field out or name at least one")
    return tuple(sorted(unique, key=lambda s: (s, atomic_numbers[s])))
