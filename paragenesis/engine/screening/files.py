"""Files from outside behind limits: their texts, and the tables in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from paragenesis.engine.screening.apart import load_table
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.tabular import read_bytes
from paragenesis.engine.screening.texts import TextFormat, one_line, safe_name
from paragenesis.errors import RejectedInput

NAME_COLUMNS = ("id", "material_id", "candidate_id", "name")
_FORMULA_COLUMNS = ("formula", "pretty_formula", "reduced_formula", "formula_pretty")
_FEW = 12  # columns that a message names


def format_of(path: Path) -> TextFormat:
    """The format that a file's name tells.

    Raises:
        RejectedInput: It tells none that can be read.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".cif"):
        return "cif"
    if name.endswith((".extxyz", ".xyz")):
        return "extxyz"
    if "poscar" in name or "contcar" in name or name.endswith(".vasp"):
        return "poscar"
    raise RejectedInput(
        f"the format of {path.name} is unknown; expected .cif, .extxyz, .vasp (or POSCAR), .csv or .parquet"
    )


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".parquet"))


def read_text(path: Path, limits: InputLimits) -> str:
    """A file's text, decompressed.

    Raises:
        RejectedInput: The file is missing or too large.
    """
    return read_bytes(path, limits).decode("utf-8", errors="replace")


def cif_table(path: Path, limits: InputLimits) -> Iterator[tuple[str, str, str]]:
    """Id, formula ("" without such a column) and CIF text of each row of a CSV or Parquet file.

    Raises:
        RejectedInput: The file is missing, too large, or has no column `cif`.
    """
    table = load_table(path, limits)
    if "cif" not in table.column_names:
        raise RejectedInput(f"{path.name} has no column 'cif', only {listed(table.column_names)}; add it")
    names = next((table.column(c).to_pylist() for c in NAME_COLUMNS if c in table.column_names), None)
    formulas = next((table.column(c).to_pylist() for c in _FORMULA_COLUMNS if c in table.column_names), None)
    for row, cif in enumerate(table.column("cif").to_pylist()):
        name = f"row-{row}" if names is None else safe_name(str(names[row]))
        yield name, "" if formulas is None else str(formulas[row]), str(cif)


def listed(columns: Sequence[str]) -> str:
    """The names of some columns, the first of them where there are many."""
    more = f", ... ({len(columns)} in all)" if len(columns) > _FEW else ""
    return ", ".join(one_line(name, 40) for name in columns[:_FEW]) + more
