"""The sources of training data: tables, structure files and campaigns, each read into crystals and labels."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from paragenesis.crystals import Crystals, FloatArray, IntArray
from paragenesis.engine.ledger.disk import sha256_of
from paragenesis.engine.ledger.export import MANIFEST, export_folder, exported_rounds, manifest_problems
from paragenesis.engine.screening.apart import load_table
from paragenesis.engine.screening.files import NAME_COLUMNS, listed
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.sanitise import STORED, crystals_of, sanitise_text, sanitise_with_notes
from paragenesis.engine.screening.texts import Notes, safe_name
from paragenesis.errors import InputError, RejectedInput

HULL_DISTANCE = "energy_above_hull"  # eV/atom
GOOD_HULL_DISTANCE = 0.1  # eV/atom; a campaign's crystals above it are not learnt from

_STRUCTURE = STORED - {"id"}
_OWN = ("space_group", "symprec")  # what `write_extxyz` adds of itself
_UNKNOWN = {"", "nan", "none", "null", "na", "n/a"}

Labels = dict[str, FloatArray]


@dataclass
class Part:
    """What one source holds: crystals as they stand in it, their labels, and what could not be read."""

    crystals: Crystals
    labels: Labels
    left_out: Counter[str] = field(default_factory=Counter)


def most_cells(numbers: IntArray) -> int:
    """At most how many primitive cells a cell with these atoms can hold."""
    return math.gcd(*np.unique(numbers, return_counts=True)[1].tolist())


def too_large(max_atoms: int) -> str:
    """The reason to leave out a crystal with more atoms, in words."""
    return f"with more than {max_atoms} atoms in the primitive cell"


def read_source(path: Path, max_atoms: int) -> Part:
    """What a source holds, by its kind."""
    if path.is_dir():
        return _read_campaign(path)
    if not path.is_file():
        raise InputError(
            f"there is no training data '{path}'; give CSV, CSV.gz, Parquet, extxyz or CIF files, or a campaign's "
            "directory"
        )
    if path.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        return _read_table(path, max_atoms)
    crystals, notes = sanitise_with_notes(path)
    return Part(crystals, _labels(notes))


def content_hash(path: Path) -> str:
    """The sha256 of a file, or of the manifests of a campaign's closed rounds."""
    if path.is_file():
        return sha256_of(path)
    return hashlib.sha256(b"".join((folder / MANIFEST).read_bytes() for folder in _rounds(path))).hexdigest()


def _read_table(path: Path, max_atoms: int) -> Part:
    """Crystals of a table; rows that cannot be read, or are surely too large, are left out and counted."""
    table = load_table(path, InputLimits())
    columns = table.column_names
    if {"candidate_id", "verdict"} | _STRUCTURE <= set(columns):  # its numbers are about the campaign
        return Part(_kept(table, path.name), {})
    if "cif" in columns:
        return _from_cifs(table, max_atoms)
    if not set(columns) >= STORED:
        raise InputError(
            f"{path} has no column 'cif' and not the columns id, numbers, frac, lattice, only {listed(columns)}; "
            "add the crystals as CIF texts"
        )
    return Part(crystals_of(table, path.name), _number_columns(table))


def _number_columns(table: pa.Table) -> Labels:
    """Every column in which each known value is a finite number; columns of names do not count."""
    labels = {}
    for name in table.column_names:
        if name in NAME_COLUMNS or name.endswith("_id") or name == "cif" or name in _STRUCTURE:
            continue
        column = table.column(name)
        if pa.types.is_string(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            values = _numbers(column.to_pylist())
            if values is not None and np.isfinite(values).any():
                labels[name] = values
    return labels


def _numbers(cells: Sequence[Any]) -> FloatArray | None:
    """Numbers with NaN for the unknown; None if one of the cells is neither."""
    try:
        values = [math.nan if cell is None or str(cell).strip().lower() in _UNKNOWN else float(cell) for cell in cells]
    except ValueError:
        return None
    array = np.array(values, dtype=np.float64)
    return np.where(np.isinf(array), np.nan, array)


def _labels(notes: Sequence[Notes]) -> Labels:
    """The numbers beside the crystals of an extended XYZ file, which many programs write there."""
    names = sorted({k for beside in notes for k in beside if k not in NAME_COLUMNS + _OWN and not k.endswith("_id")})
    columns = {name: [beside.get(name, math.nan) for beside in notes] for name in names}
    found = {name: _numbers(cells) for name, cells in columns.items() if None not in cells}
    return {name: values for name, values in found.items() if values is not None}


# --- CIF texts -------------------------------------------------------------------------------------------------------

_P1 = re.compile(
    # Possessive: a text of a million blanks must not be tried in a million ways.
    r"loop_\s++_symmetry_equiv_pos_site_id\s++_symmetry_equiv_pos_as_xyz\s++1\s++'x, ?y, ?z'\s++"
    r"loop_\s++((?:_atom_site_\w++\s++)++)([^_]*+)\Z"
)
_CELL = re.compile(r"^_cell_(length_[abc]|angle_(?:alpha|beta|gamma))[ \t]++([0-9.]+)[ \t\r]*+$", re.MULTILINE)
_CELL_KEYS = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_PLACE = tuple(f"_atom_site_fract_{axis}" for axis in "xyz")


def _from_cifs(table: pa.Table, max_atoms: int) -> Part:
    """Crystals of a column of CIF texts.

    Args:
        table: The table, all of its columns.
        max_atoms: Crystals that surely have more in the primitive cell are not built.
    """
    limits, left_out = InputLimits(), Counter[str]()
    names = next((table.column(name).to_pylist() for name in NAME_COLUMNS if name in table.column_names), None)
    rows, found = [], []
    for row, text in enumerate(table.column("cif").to_pylist()):
        name = f"row-{row}" if names is None else safe_name(str(names[row]))
        try:
            text = str(text or "")
            quick = plain_cif(text, name) if len(text) <= limits.max_text_bytes else None
            crystal = quick or sanitise_text(text, "cif", name, limits)
        except RejectedInput:
            left_out["with a CIF that cannot be read"] += 1
            continue
        if len(crystal) != 1:
            left_out["with several crystals in one CIF"] += 1
        elif len(crystal.numbers) > max_atoms * most_cells(crystal.numbers):
            left_out[too_large(max_atoms)] += 1
        else:
            rows.append(row)
            found.append(crystal)
    labels = {name: values[rows] for name, values in _number_columns(table).items()}
    return Part(Crystals.concatenate(found), labels, left_out)


def plain_cif(text: str, name: str) -> Crystals | None:
    """The crystal of a CIF that lists every atom of its cell, as most tables have it; None for any other CIF.

    Parsers for all that CIF allows take 7 ms each, which is minutes for a training set.
    """
    from pymatgen.core import Lattice

    cell, sites = dict(_CELL.findall(text)), _P1.search(text)
    if sites is None or len(cell) != len(_CELL_KEYS) or len(re.findall(r"^[ \t]*data_", text, re.MULTILINE)) != 1:
        return None
    keys, cells = sites.group(1).split(), sites.group(2).split()
    if len(cells) % len(keys) or not cells:
        return None
    columns = {key: cells[start :: len(keys)] for start, key in enumerate(keys)}
    full = {"1", "1.0"}.issuperset(columns.get("_atom_site_occupancy", ["1"]))
    try:
        numbers = [_atomic_numbers()[symbol] for symbol in columns["_atom_site_type_symbol"]]
        frac = np.array([columns[place] for place in _PLACE], dtype=np.float64).T
        with np.errstate(all="ignore"):  # angles of 0 and the like are judged with all else
            lattice = Lattice.from_parameters(*(float(cell[key]) for key in _CELL_KEYS)).matrix
    except (KeyError, ValueError):
        return None
    if not full:
        return None
    return Crystals(
        ids=(name,), n_atoms=np.array([len(numbers)]), numbers=np.array(numbers), frac=frac, lattices=lattice
    )


def _atomic_numbers() -> Mapping[str, int]:
    from ase.data import atomic_numbers

    known: Mapping[str, int] = atomic_numbers
    return known


# --- campaigns -------------------------------------------------------------------------------------------------------


def _rounds(directory: Path) -> list[Path]:
    """The folders of a campaign's closed rounds, which are readable while the campaign runs.

    Raises:
        InputError: There are none, or one of them is damaged or leads out of the campaign.
    """
    numbers = exported_rounds(directory)
    if not numbers:
        raise InputError(
            f"'{directory}' holds no closed round of a campaign to train on; give the directory that "
            "`paragenesis run` wrote to, or files"
        )
    problems = [problem for number in numbers for problem in manifest_problems(directory, number)]
    if problems:
        raise InputError(f"{problems[0]}; `paragenesis recover {directory}` makes damaged exports anew")
    return [export_folder(directory, number) for number in numbers]


def _read_campaign(directory: Path) -> Part:
    """The good crystals of a campaign's closed rounds: kept, and not far above the hull where that is known.

    Labels are the verified values, else what the ensemble predicts.
    """
    tables: dict[str, list[pa.Table]] = {"candidates": [], "predictions": [], "verifications": []}
    for folder in _rounds(directory):
        for name, found in tables.items():
            found.append(load_table(folder / f"{name}.parquet", InputLimits()))
    crystals = _kept(pa.concat_tables(tables["candidates"], promote_options="default"), str(directory))
    known: dict[str, dict[str, float]] = {}
    for row in pa.concat_tables(tables["predictions"], promote_options="default").to_pylist():
        if row["model"] == "ensemble" and row["mean"] is not None:
            known.setdefault(row["property"], {})[row["candidate_id"]] = row["mean"]
    for row in pa.concat_tables(tables["verifications"], promote_options="default").to_pylist():
        if row["status"] == "verified" and row["value"] is not None:
            known.setdefault(row["property"], {})[row["candidate_id"]] = row["value"]
    labels = {
        name: np.array([values.get(i, math.nan) for i in crystals.ids], dtype=np.float64)
        for name, values in sorted(known.items())
    }
    heights = labels.get(HULL_DISTANCE, np.full(len(crystals), np.nan))
    good = ~(heights > GOOD_HULL_DISTANCE)
    left_out = Counter({f"more than {GOOD_HULL_DISTANCE:g} eV/atom above the hull": int((~good).sum())})
    return Part(crystals[good], {name: values[good] for name, values in labels.items()}, left_out)


def _kept(candidates: pa.Table, where: str) -> Crystals:
    """The kept crystals of a ledger's table of candidates."""
    import pyarrow.compute as pc

    kept = candidates.filter(
        pc.and_(pc.equal(candidates.column("verdict"), "kept"), pc.is_valid(candidates.column("numbers")))
    )
    kept = kept.rename_columns(["id" if name == "candidate_id" else name for name in kept.column_names])
    return crystals_of(kept, where).with_ids(kept.column("id").to_pylist())  # labels are found by them
