"""Supply risk and raw-material cost: what a composition costs the world and its buyer."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, field_validator

from paragenesis.crystals import FloatArray, Relaxed
from paragenesis.errors import InputError
from paragenesis.objectives.builtin import NAME_PATTERN, BuiltIn, certain, mass_weighted
from paragenesis.objectives.contract import Estimate
from paragenesis.objectives.goals import AnyGoal, Minimize
from paragenesis.settings import shown

_Z_MAX = 118
_MOST_BYTES = 1_000_000  # of a price table
_Positive = Annotated[float, Field(ge=0.0)]


class SupplyRisk(BuiltIn):
    """Herfindahl-Hirschman index of the elements' supply, averaged over mass fractions.

    Near 0 where many countries share the supply, 10,000 where one has it all.

    Values and averaging after Gaultois et al., Chem. Mater. 25, 2911 (2013), as pymatgen ships them. That table has
    no hydrogen, technetium, actinides, nor noble gases beyond helium; a crystal with one of them has no value (NaN)
    unless `values` gives it.

    Attributes:
        of: Concentration of the yearly production, or of the known reserves, over countries.
        values: Indices of further elements, by symbol; they go before the table's.
    """

    unit: ClassVar[str] = "1"
    name: str = Field(default="supply_risk", pattern=NAME_PATTERN)
    goal: AnyGoal = Minimize()
    of: Literal["production", "reserve"] = "production"
    values: dict[str, Annotated[float, Field(ge=0.0, le=10_000.0)]] = Field(default={})

    @field_validator("values")
    @classmethod
    def _elements(cls, values: dict[str, float]) -> dict[str, float]:
        _atomic_numbers(values)
        return values

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """From the compositions alone."""
        return certain(mass_weighted(relaxed.crystals, _by_number({**_hhi(self.of), **self.values})))


class RawMaterialCost(BuiltIn):
    """Price of the elements in a kilogram of the crystal, USD/kg, from the user's prices.

    Attributes:
        prices: USD per kilogram by element symbol; in a campaign also a CSV file with the columns element, price.
    """

    unit: ClassVar[str] = "USD/kg"
    name: str = Field(default="raw_material_cost", pattern=NAME_PATTERN)
    goal: AnyGoal = Minimize()
    prices: dict[str, _Positive]

    @field_validator("prices")
    @classmethod
    def _elements(cls, prices: dict[str, float]) -> dict[str, float]:
        _atomic_numbers(prices)
        return prices

    @classmethod
    def from_options(cls, options: Mapping[str, Any], directory: Path) -> Self:
        """As for any built-in objective; `prices` may name a CSV file, relative to `directory`."""
        prices = options.get("prices")
        if isinstance(prices, (str, Path)):
            options = {**options, "prices": read_prices(directory / prices)}
        return super().from_options(options, directory)

    def estimate(self, relaxed: Relaxed) -> Estimate:
        """From the compositions alone.

        Raises:
            InputError: A crystal holds an element without a price.
        """
        crystals = relaxed.crystals
        prices = _by_number(self.prices)
        unpriced = np.unique(crystals.numbers[np.isnan(prices[crystals.numbers])])
        if unpriced.size:
            from ase.data import chemical_symbols

            names = ", ".join(chemical_symbols[z] for z in unpriced)
            raise InputError(f"objective '{self.name}' has no price for {names}; add the element to 'prices'")
        return certain(mass_weighted(crystals, prices))


def read_prices(path: Path) -> dict[str, float]:
    """Prices by element symbol from a CSV file with the columns element and price (USD/kg).

    Raises:
        InputError: The file is missing, lacks a column, repeats an element, or holds a price that is no number.
    """
    if not path.is_file():
        raise InputError(f"there is no price table '{path}'; give a CSV file with the columns element, price")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(
                f"'{path}' is larger than {_MOST_BYTES} bytes, but a price table has a line for an element"
            )
        lines = [line for line in content.decode("utf-8-sig").splitlines() if not line.startswith("#")]
        reader = csv.DictReader(lines, skipinitialspace=True)
        columns, rows = reader.fieldnames, list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"'{path}' cannot be read as CSV ({error}); give one with the columns element, price"
        ) from None
    if not {"element", "price"} <= set(columns or ()):
        raise InputError(f"'{path}' has the columns {shown(columns)}, but a price table needs element, price")
    prices: dict[str, float] = {}
    for row in rows:
        element, price = (row["element"] or "").strip(), row["price"]
        if element in prices:
            raise InputError(f"'{path}' gives two prices for {element}; keep one")
        try:
            prices[element] = float(price)
        except (TypeError, ValueError):
            raise InputError(f"'{path}' gives {element} the price {shown(price)}, which is no number") from None
    return prices


def _atomic_numbers(symbols: Mapping[str, float]) -> list[int]:
    """Atomic numbers of element symbols; a symbol that is none is a ValueError that names it."""
    from ase.data import atomic_numbers

    for symbol in symbols:
        if atomic_numbers.get(symbol, 0) == 0:  # ASE's symbol "X" has the number 0
            raise ValueError(f"'{symbol}' is no chemical element; use symbols such as 'Fe'")
    return [atomic_numbers[symbol] for symbol in symbols]


def _by_number(values: Mapping[str, float]) -> FloatArray:
    """Values by atomic number instead of symbol, shape `119`; NaN where none is given."""
    table = np.full(_Z_MAX + 1, np.nan)
    table[_atomic_numbers(values)] = list(values.values())
    return table


@lru_cache(maxsize=2)
def _hhi(of: Literal["production", "reserve"]) -> dict[str, float]:
    """The table of Gaultois et al. by element symbol."""
    from pymatgen.analysis.hhi import HHIModel

    column = ("production", "reserve").index(of)
    return {symbol: both[column] for symbol, both in HHIModel().symbol_hhip_hhir.items()}
