"""Tables that users bring: CSV, CSV.gz and Parquet, with errors that name the row."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.errors import InputError

ENERGY = "formation_energy_per_atom"  # eV/atom
_FORMULA_SUM = re.compile(r"^_chemical_formula_sum\s+(.+?)\s*$", re.MULTILINE)
_AMOUNT = re.compile(r"([A-Z][a-z]?)([0-9.]*)")


@dataclass(frozen=True, kw_only=True)
class KnownCrystals:
    """Crystals whose formation energies are known from elsewhere, as CIF texts: building them all may take long.

    Attributes:
        places: File and row each stands in, for messages, `n` of them.
        cifs: CIF texts, `n` of them.
        amounts: Atoms of each element in the cell, `n` mappings.
        formation_energies: eV/atom, shape `n`.
    """

    places: tuple[str, ...]
    cifs: tuple[str, ...]
    amounts: tuple[Mapping[str, float], ...]
    formation_energies: FloatArray

    def __len__(self) -> int:
        """How many crystals there are."""
        return len(self.cifs)

    def crystals(self, which: Sequence[int]) -> Crystals:
        """The crystals at some indices.

        Raises:
            InputError: A CIF cannot be read.
        """
        from pymatgen.core import Structure

        structures = []
        for index in which:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Issues encountered while parsing CIF")  # rounded coordinates
                    warnings.filterwarnings("ignore", "No Pauling electronegativity")  # noble gases
                    structures.append(Structure.from_str(self.cifs[index], fmt="cif"))
            except ValueError as error:
                raise InputError(f"{self.places[index]}: the CIF cannot be read ({error})") from None
        return Crystals.from_structures(structures, ids=[str(index) for index in which])


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a CSV, CSV.gz or Parquet file; every CSV value is text, because 'NaN' is sodium nitride.

    Raises:
        InputError: The file cannot be read or lacks a column.
    """
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            as_text = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
            )
            multiline = pyarrow.csv.ParseOptions(newlines_in_values=True)  # a CIF is one quoted value
            table = pyarrow.csv.read_csv(path, convert_options=as_text, parse_options=multiline)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}; give a CSV, CSV.gz or Parquet file") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is no readable CSV, CSV.gz or Parquet file: {error}") from None
    for column in columns:
        if column not in table.column_names:
            raise InputError(
                f"{path} has no column '{column}', only {', '.join(table.column_names)}; "
                f"{' and '.join(columns)} are needed"
            )
    return table.select(list(columns))


def read_number(value: object, where: str) -> float:
    """A finite number from a cell of a table.

    Raises:
        InputError: It is none; the message begins with `where`.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: '{value}' is not a finite number; correct or remove the row")
    return number


def read_known_crystals(paths: Sequence[Path]) -> KnownCrystals:
    """Crystals with known formation energies from tables with columns `cif` and `formation_energy_per_atom`.

    Raises:
        InputError: A file cannot be read, lacks a column, or a row is wrong (the row is named, counted from 1).
    """
    places: list[str] = []
    cifs: list[str] = []
    amounts: list[Mapping[str, float]] = []
    energies: list[float] = []
    for path in paths:
        table = read_table(path, ["cif", ENERGY])
        for row, (cif, energy) in enumerate(zip(table["cif"].to_pylist(), table[ENERGY].to_pylist(), strict=True), 1):
            place = f"{path}, row {row}"
            formula = _FORMULA_SUM.search(cif or "")
            if formula is None:
                raise InputError(f"{place}: the column 'cif' holds no CIF with a _chemical_formula_sum")
            amounts.append({symbol: float(amount or 1) for symbol, amount in _AMOUNT.findall(formula.group(1))})
            energies.append(read_number(energy, f"{place}, {ENERGY}"))
            cifs.append(cif)
            places.append(place)
    return KnownCrystals(
        places=tuple(places), cifs=tuple(cifs), amounts=tuple(amounts), formation_energies=np.array(energies)
    )


def covering_sample(
    amounts: Sequence[Mapping[str, float]], n: int, seed: int, *, at_least: int = 30, most_atoms: int = 20
) -> list[int]:
    """Indices of at most `n` crystals in which every element occurs `at_least` times where the data allow it.

    A random order is walked twice: first for crystals with an element that is still rare in the sample, then to fill.

    Args:
        amounts: Atoms of each element, one mapping a crystal.
        n: Crystals to take.
        seed: Fixes the order.
        at_least: Crystals wanted for every element.
        most_atoms: Larger cells are left out.
    """
    small = [index for index, one in enumerate(amounts) if sum(one.values()) <= most_atoms]
    order = [small[i] for i in np.random.default_rng(seed).permutation(len(small))]
    seen: Counter[str] = Counter()
    taken: dict[int, None] = {}
    for index in order:
        if len(taken) < n and any(seen[symbol] < at_least for symbol in amounts[index]):
            taken[index] = None
            seen.update(amounts[index].keys())
    for index in order:
        if len(taken) < n:
            taken[index] = None
    return sorted(taken)
