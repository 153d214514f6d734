"""The table oracle: verification by look-up, for benchmarks and for results that exist already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.ledger.disk import sha256_of
from paragenesis.engine.level import Level
from paragenesis.engine.oracles.contract import Verified
from paragenesis.engine.screening.apart import load_table
from paragenesis.engine.screening.files import listed
from paragenesis.engine.screening.fingerprint import fingerprints
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.errors import InputError
from paragenesis.settings import Settings, shown

_Key = str | tuple[str, int]
_MISSING = ("", "-", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "#N/A")  # in place of a number


class TableOracleSettings(Settings):
    """Where the table is, and which columns of it mean what.

    Attributes:
        path: A CSV (or CSV.gz) or Parquet file with a header, relative to the campaign's folder.
        functional: The level of theory the values come from; part of the results' key.
        match: Whether a row is found by the candidate's id or by its reduced formula.
        key_column: The column with ids or formulas; "id" or "formula" by default.
        space_group_column: With `match = "formula"`, a column that tells polymorphs apart.
        columns: The table's column for each objective's name; by default every numeric column under its own name.
        noise_columns: Columns with the standard deviations of the values, by the objective's name.
        symprec: Tolerance of the space-group search, angstrom.
    """

    path: Path
    functional: str = Field(min_length=1)
    match: Literal["id", "formula"] = "formula"
    key_column: str = ""
    space_group_column: str = ""
    columns: dict[str, str] = Field(default={})
    noise_columns: dict[str, str] = Field(default={})
    symprec: float = Field(default=0.1, gt=0.0)


class TableOracle:
    """Looks values up in a table; a look-up costs nothing, a crystal that is not in the table is an error."""

    def __init__(self, settings: TableOracleSettings, *, directory: Path = Path()) -> None:
        """Read the table.

        Args:
            settings: Where it is and what it holds.
            directory: Where a relative path begins.

        Raises:
            InputError: The file is missing or unreadable, lacks a column, or holds a key twice.
        """
        settings = settings.model_copy(update={"path": directory / settings.path})
        self._settings = settings
        table = _read(settings.path)
        key_column = settings.key_column or settings.match
        names = _keys_of(table, key_column, settings.path)
        if settings.match == "formula":
            names = [_reduced(name, settings.path) for name in names]
        keys: Sequence[_Key] = names
        if settings.space_group_column:
            keys = list(zip(names, _groups(table, settings.space_group_column, settings.path), strict=True))
        self._rows = _index(keys, settings.path)
        used = {key_column, settings.space_group_column, *settings.noise_columns.values()}
        self._values = _values(table, settings, used)
        self._noise = {name: _numbers(table, column, settings.path) for name, column in settings.noise_columns.items()}
        digest = sha256_of(settings.path)
        self._level = Level(engine="table", version=digest[:12], functional=settings.functional)

    @property
    def level(self) -> Level:
        """The table's level of theory; its version is the beginning of the file's sha256."""
        return self._level

    def verify(self, crystals: Crystals) -> Verified:
        """The table's values for each crystal."""
        keys = self._keys(crystals)
        rows = np.array([self._rows.get(key, -1) for key in keys], dtype=np.int64)
        found = rows >= 0

        def looked_up(columns: dict[str, FloatArray]) -> dict[str, FloatArray]:
            return {name: np.where(found, column[rows], np.nan) for name, column in columns.items()}

        return Verified(
            crystals=crystals,
            values=looked_up(self._values),
            noise=looked_up(self._noise),
            errors={
                i: f"{_words(keys[i])} is not in {self._settings.path.name}" for i in np.flatnonzero(~found).tolist()
            },
            cost_seconds=np.zeros(len(crystals)),
        )

    def cost(self, crystals: Crystals) -> FloatArray:
        """1 each: all look-ups are alike."""
        return np.ones(len(crystals))

    def _keys(self, crystals: Crystals) -> Sequence[_Key]:
        """What each crystal is looked up by."""
        if self._settings.match == "id":
            names: Sequence[str] = crystals.ids
        else:
            names = crystals.formulas
        if not self._settings.space_group_column:
            return names
        groups = fingerprints(crystals, self._settings.symprec).space_groups.tolist()
        return list(zip(names, groups, strict=True))


def _read(path: Path) -> pa.Table:
    """A CSV (also .csv.gz) or Parquet file as an Arrow table, behind the limits for what comes from outside."""
    if not path.is_file():
        raise InputError(f"there is no oracle table '{path}'; give a CSV or Parquet file")
    return load_table(path, InputLimits())


def _column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """A column by its name."""
    if name not in table.column_names:
        raise InputError(f"'{path}' has no column '{name}'; its columns are {listed(table.column_names)}")
    return table.column(name)


def _keys_of(table: pa.Table, name: str, path: Path) -> list[str]:
    """The ids or formulas that rows are found by."""
    keys = [str("" if key is None else key).strip() for key in _column(table, name, path).to_pylist()]
    if "" in keys:
        raise InputError(
            f"'{path}' has nothing in column '{name}' of row {keys.index('') + 1}; fill it in, or remove it"
        )
    return keys


def _groups(table: pa.Table, name: str, path: Path) -> list[int]:
    """The international numbers of space groups in a column."""
    numbers = _numbers(table, name, path)
    odd = np.flatnonzero(~np.isin(numbers, np.arange(1, 231)))
    if odd.size:
        raise InputError(
            f"column '{name}' of '{path}' holds {_cell(table, name, odd[0])} in row {odd[0] + 1}, but space groups are "
            "given by their international numbers, 1 to 230"
        )
    return [int(number) for number in numbers]


def _values(table: pa.Table, settings: TableOracleSettings, used: set[str]) -> dict[str, FloatArray]:
    """The property columns as float arrays, by the objective's name; a missing value is NaN."""
    if settings.columns:
        return {objective: _numbers(table, name, settings.path) for objective, name in settings.columns.items()}
    numeric = {name: _floats(table, name) for name in table.column_names if name not in used}
    found = {k: _finite(table, k, values, settings.path) for k, values in numeric.items() if values is not None}
    if not found:
        raise InputError(
            f"'{settings.path}' has no numeric column to look up; its columns are {listed(table.column_names)}"
        )
    return found


def _numbers(table: pa.Table, name: str, path: Path) -> FloatArray:
    """A column that must be of numbers; a missing value is NaN."""
    _column(table, name, path)
    values = _floats(table, name)
    if values is None:
        raise InputError(f"column '{name}' of '{path}' holds {_odd_cell(table, name)}, but numbers are expected")
    return _finite(table, name, values, path)


def _finite(table: pa.Table, name: str, values: FloatArray, path: Path) -> FloatArray:
    """The same values, none of which is infinite."""
    odd = np.flatnonzero(np.isinf(values))
    if odd.size:
        raise InputError(
            f"column '{name}' of '{path}' holds {_cell(table, name, odd[0])} in row {odd[0] + 1}, which is no finite "
            "number; leave the cell empty where a value is missing"
        )
    return values


def _floats(table: pa.Table, name: str) -> FloatArray | None:
    """A column as numbers, NaN where a value is missing; None if it holds anything else, or is of words that miss."""
    column = table.column(name)
    words = pa.types.is_string(column.type)
    if words:
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.is_in(column, pa.array(_MISSING)), pa.scalar(None, pa.string()), column)
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    if words and column.null_count == len(column):
        return None
    try:
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        return None


def _odd_cell(table: pa.Table, name: str) -> str:
    """What a column holds that is no number, for a message."""
    column = table.column(name)
    for row, cell in enumerate(column.to_pylist() if pa.types.is_string(column.type) else []):
        try:
            float("nan" if (word := str(cell or "").strip()) in _MISSING else word)
        except ValueError:
            return f"{shown(cell)} in row {row + 1}"
    return "no number" if pa.types.is_string(column.type) else str(column.type)


def _cell(table: pa.Table, name: str, row: int) -> str:
    """A cell as it is quoted in a message."""
    return shown(str(table.column(name)[int(row)].as_py()))


def _index(keys: Sequence[_Key], path: Path) -> dict[_Key, int]:
    """Row numbers by key; a key that occurs twice would make the answer arbitrary."""
    rows: dict[_Key, int] = {}
    for row, key in enumerate(keys):
        if key in rows:
            cure = "" if isinstance(key, tuple) else " (for polymorphs, name a space_group_column)"
            raise InputError(f"'{path}' has two rows for {_words(key)}: {rows[key] + 1} and {row + 1}; keep one{cure}")
        rows[key] = row
    return rows


def _reduced(formula: str, path: Path) -> str:
    """A formula of the table in its reduced form."""
    from pymatgen.core import Composition

    try:
        composition = Composition(formula)
        if not len(composition) or not math.isfinite(composition.num_atoms):
            raise ValueError("it names no atoms")
        return str(composition.reduced_formula)
    except (ValueError, ArithmeticError, LookupError, RecursionError):  # "Xx", "Na1e999", "((((((..."
        raise InputError(
            f"'{path}' holds the formula {shown(formula)}, which cannot be read; correct the row"
        ) from None


def _words(key: _Key) -> str:
    """A key as it is written in a message."""
    return key if isinstance(key, str) else f"{key[0]} in space group {key[1]}"
