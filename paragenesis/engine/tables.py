"""Tables that users bring: CSV, CSV.gz and Parquet, with errors that name the row."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.screening.apart import load_table, parse_apart
from paragenesis.engine.screening.files import listed
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.sanitise import faults
from paragenesis.engine.screening.texts import one_line
from paragenesis.errors import InputError, RejectedInput

ENERGY = "formation_energy_per_atom"  # eV/atom
_FORMULA_SUM = re.compile(r"^_chemical_formula_sum[ \t]+(.+)$", re.MULTILINE)
_AMOUNT = re.compile(r"([A-Z][a-z]?)([0-9.]*)")
_MAX_VOLUME = 1_000.0  # A^3/atom; solid noble gases and molecular crystals are thin


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
        found = [_read_cif(self.cifs[index], self.places[index]) for index in which]
        return Crystals.concatenate(found).with_ids([str(index) for index in which])


def _read_cif(text: str, place: str) -> Crystals:
    """The one valid crystal of a CIF.

    Raises:
        InputError: It cannot be read, or holds none or several.
    """
    try:
        crystals, _ = parse_apart(text, "cif", InputLimits(), place)
    except RejectedInput as error:
        raise InputError(f"{place}: the CIF cannot be read ({error})") from None
    if len(crystals) != 1:
        raise InputError(f"{place}: the CIF holds {len(crystals)} crystals; give each a row")
    if reason := faults(crystals, _MAX_VOLUME)[0]:
        raise InputError(f"{place}: the crystal is not valid ({reason}); remove the row")
    return crystals


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a CSV, CSV.gz or Parquet file; every CSV value is text, because 'NaN' is sodium nitride.

    Raises:
        InputError: The file cannot be read or lacks a column.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a CSV, CSV.gz or Parquet file")
    table = load_table(path, InputLimits())
    for column in columns:
        if column not in table.column_names:
            raise InputError(
                f"{path} has no column '{column}', only {listed(table.column_names)}; "
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
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: '{one_line(str(value), 60)}' is not a finite number; correct or remove the row")
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
            cif = str(cif or "")
            formula = _FORMULA_SUM.search(cif)
            if formula is None:
                raise InputError(f"{place}: the column 'cif' holds no CIF with a _chemical_formula_sum")
            amounts.append(
                {symbol: read_number(amount or 1, place) for symbol, amount in _AMOUNT.findall(formula.group(1))}
            )
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
