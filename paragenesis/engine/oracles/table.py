"""The table oracle: verification by look-up, for benchmarks and for results that exist already."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from paragenesis.crystals import Crystals, FloatArray
from paragenesis.engine.level import Level
from paragenesis.engine.oracles.contract import Verified
from paragenesis.engine.screening.fingerprint import fingerprints
from paragenesis.errors import InputError
from paragenesis.settings import Settings

_Key = str | tuple[str, int]


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
        names = [str(key) for key in _column(table, key_column, settings.path).to_pylist()]
        if settings.match == "formula":
            names = [_reduced(name, settings.path) for name in names]
        keys: Sequence[_Key] = names
        if settings.space_group_column:
            groups = _column(table, settings.space_group_column, settings.path)
            if not pa.types.is_integer(groups.type):
                raise InputError(
                    f"column '{settings.space_group_column}' of '{settings.path}' holds {groups.type}, but space "
                    "groups are given by their international numbers"
                )
            keys = list(zip(names, groups.to_pylist(), strict=True))
        self._rows = _index(keys, settings.path)
        used = {key_column, settings.space_group_column, *settings.noise_columns.values()}
        self._values = _values(table, settings, used)
        self._noise = {name: _numbers(table, column, settings.path) for name, column in settings.noise_columns.items()}
        digest = hashlib.sha256(settings.path.read_bytes()).hexdigest()
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
    """A CSV (also .csv.gz) or Parquet file as an Arrow table."""
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"there is no oracle table '{path}'; give a CSV or Parquet file")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        return pa_csv.read_csv(path)  # undoes gzip by the suffix; text is never null, so NaN may be sodium nitride
    except pa.ArrowException as error:
        raise InputError(f"'{path}' cannot be read as {path.suffix or 'CSV'}: {error}") from None


def _column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """A column by its name."""
    if name not in table.column_names:
        raise InputError(f"'{path}' has no column '{name}'; its columns are {', '.join(table.column_names)}")
    return table.column(name)


def _values(table: pa.Table, settings: TableOracleSettings, used: set[str]) -> dict[str, FloatArray]:
    """The property columns as float arrays, by the objective's name; a missing value is NaN."""
    numeric = [f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    columns = settings.columns or {name: name for name in numeric if name not in used}
    if not columns:
        raise InputError(f"'{settings.path}' has no numeric column to look up; its columns: {table.column_names}")
    return {objective: _numbers(table, name, settings.path) for objective, name in columns.items()}


def _numbers(table: pa.Table, name: str, path: Path) -> FloatArray:
    """A numeric column; a missing value is NaN."""
    column = _column(table, name, path)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(f"column '{name}' of '{path}' holds {column.type}, but numbers are expected")
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


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
        return str(Composition(formula).reduced_formula)
    except ValueError:
        raise InputError(f"'{path}' holds the formula {formula!r}, which cannot be read") from None


def _words(key: _Key) -> str:
    """A key as it is written in a message."""
    return key if isinstance(key, str) else f"{key[0]} in space group {key[1]}"
