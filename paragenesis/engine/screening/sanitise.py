"""Crystals from outside: accepted as valid crystals, or refused with one sentence that says why.

Sizes are checked on the raw text before a parser works on it, because parsers take minutes for files of a few
hundred kB. What they return is judged by the same function as generated crystals (`validity.invalid_reasons`).
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from paragenesis.crystals import Crystals
from paragenesis.engine.screening.settings import ScreeningSettings
from paragenesis.engine.screening.validity import LARGEST_COORDINATE, invalid_reasons
from paragenesis.errors import RejectedInput
from paragenesis.settings import Settings

if TYPE_CHECKING:
    from pymatgen.io.cif import CifBlock

T = TypeVar("T")
TextFormat = Literal["cif", "poscar", "extxyz"]

_SAFE_NAME = re.compile(r"[^A-Za-z0-9_.:+()-]+")
_OCCUPANCY_TOLERANCE = 1e-3
_NAME_COLUMNS = ("id", "material_id", "candidate_id", "name")
_FORMULA_COLUMNS = ("formula", "pretty_formula", "reduced_formula", "formula_pretty")


class InputLimits(Settings):
    """How large crystals and files from outside may be.

    Attributes:
        max_file_bytes: Size of a file after decompression.
        max_text_bytes: Size of the text of one CIF or POSCAR.
        max_atoms: Atoms of one crystal.
        max_symmetry_operations: Operations in one CIF; no space group has more than 192 in its conventional cell.
        max_sites_times_operations: Work that a CIF asks of the parser (5,000 take about ten seconds).
    """

    max_file_bytes: int = Field(default=500_000_000, gt=0)
    max_text_bytes: int = Field(default=1_000_000, gt=0)
    max_atoms: int = Field(default=500, gt=0)
    max_symmetry_operations: int = Field(default=192, gt=0)
    max_sites_times_operations: int = Field(default=5_000, gt=0)


def sanitise(path: str | Path, limits: InputLimits | None = None) -> Crystals:
    """All crystals of a file, every one of them valid.

    Reads CIF, POSCAR/CONTCAR, extxyz, CSV with a column `cif`, and Parquet with a column `cif` or the columns that
    `Crystals.to_arrow` writes; each also gzipped.

    Raises:
        RejectedInput: The file is missing, too large, of unknown format, or one of its crystals is not valid.
    """
    path, limits = Path(path), limits or InputLimits()
    name = path.name.removesuffix(".gz")
    stem = _safe_name(Path(name).stem)
    if name.lower().endswith((".csv", ".parquet")):
        if name.lower().endswith(".parquet") and (crystals := _from_parquet(path, limits)) is not None:
            return _judged(crystals, limits, path.name)
        rows = [sanitise_text(cif, "cif", row, limits) for row, _, cif in cif_table(path, limits)]
        return Crystals.concatenate(rows)
    return sanitise_text(_text(path, limits), _format_of(path), stem, limits)


def sanitise_text(
    text: str, text_format: TextFormat, name: str = "input", limits: InputLimits | None = None
) -> Crystals:
    """All crystals in a text, every one of them valid; ids are `name`, or `name-0`, `name-1`, ... for several.

    Raises:
        RejectedInput: The text is too large, cannot be parsed, or one of its crystals is not valid.
    """
    limits = limits or InputLimits()
    crystals = _PARSERS[text_format](text, limits, name)
    if not len(crystals):
        raise RejectedInput(f"{name} holds no crystals")
    ids = [name] if len(crystals) == 1 else [f"{name}-{i}" for i in range(len(crystals))]
    return _judged(crystals.with_ids(ids), limits, name)


def cif_table(path: Path, limits: InputLimits) -> Iterator[tuple[str, str, str]]:
    """Id, formula ("" without such a column) and CIF text of each row of a CSV or Parquet file.

    Raises:
        RejectedInput: The file is missing, too large, or has no column `cif`.
    """
    table = _table(path, limits)
    if "cif" not in table.column_names:
        raise RejectedInput(f"{path.name} has no column 'cif', only {', '.join(table.column_names)}; add it")
    names = next((table.column(c).to_pylist() for c in _NAME_COLUMNS if c in table.column_names), None)
    formulas = next((table.column(c).to_pylist() for c in _FORMULA_COLUMNS if c in table.column_names), None)
    for row, cif in enumerate(table.column("cif").to_pylist()):
        name = f"row-{row}" if names is None else _safe_name(str(names[row]))
        yield name, "" if formulas is None else str(formulas[row]), str(cif)


def _judged(crystals: Crystals, limits: InputLimits, where: str) -> Crystals:
    """The crystals, if all of them are small enough and valid."""
    if not len(crystals):
        raise RejectedInput(f"{where} holds no crystals")
    largest = int(crystals.n_atoms.max())
    if largest > limits.max_atoms:
        raise RejectedInput(f"{where} holds a crystal of {largest} atoms; at most {limits.max_atoms} are accepted")
    # Chemistry is a matter of plausibility, for generated crystals only: what exists may well break the rule.
    reasons = invalid_reasons(crystals, ScreeningSettings(charge_neutrality=False))
    for name, reason in zip(crystals.ids, reasons, strict=True):
        if reason:
            raise RejectedInput(f"crystal {name} of {where} is not valid: {reason}")
    return crystals


# --- files -----------------------------------------------------------------------------------------------------------


def _format_of(path: Path) -> TextFormat:
    """The format that a file's name tells."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".cif"):
        return "cif"
    if name.endswith((".extxyz", ".xyz")):
        return "extxyz"
    if name.startswith(("poscar", "contcar")) or name.endswith((".vasp", ".poscar")):
        return "poscar"
    raise RejectedInput(
        f"the format of {path.name} is unknown; expected .cif, .extxyz, .vasp (or POSCAR), .csv or .parquet"
    )


def _bytes(path: Path, limits: InputLimits) -> bytes:
    """A file's content, decompressed, if it is not too large."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            content: bytes = file.read(limits.max_file_bytes + 1)
    except (OSError, EOFError) as error:
        raise RejectedInput(f"{path} cannot be read: {error}") from None
    if len(content) > limits.max_file_bytes:
        raise RejectedInput(f"{path.name} is larger than {limits.max_file_bytes} bytes; split it")
    return content


def _text(path: Path, limits: InputLimits) -> str:
    """A file's text."""
    return _bytes(path, limits).decode("utf-8", errors="replace")


def _table(path: Path, limits: InputLimits) -> pa.Table:
    """A CSV or Parquet file as a table of text columns and numbers."""
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    content = io.BytesIO(_bytes(path, limits))
    try:
        if path.name.lower().endswith(".parquet"):
            return pq.read_table(content)
        # Every column as text: "NaN" is sodium nitride here.
        header = content.readline().decode("utf-8", errors="replace").strip().split(",")
        content.seek(0)
        types = {column.strip('"'): pa.string() for column in header}
        return pc.read_csv(
            content,
            parse_options=pc.ParseOptions(newlines_in_values=True),
            convert_options=pc.ConvertOptions(column_types=types),
        )
    except (pa.ArrowException, ValueError) as error:
        raise RejectedInput(f"{path.name} cannot be read as a table: {error}") from None


def _from_parquet(path: Path, limits: InputLimits) -> Crystals | None:
    """Crystals stored as columns, or None where the file has no such columns."""
    table = _table(path, limits)
    if not {"id", "numbers", "frac", "lattice"} <= set(table.column_names):
        return None
    try:
        crystals = Crystals.from_arrow(table)
    except (ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise RejectedInput(f"the columns of {path.name} hold no crystals: {error}") from None
    return crystals.with_ids([_safe_name(str(name)) for name in crystals.ids])


def _safe_name(text: str) -> str:
    """A name fit for reports, file names and SQL: no markup, no path, at most 64 characters."""
    return _SAFE_NAME.sub("_", text)[:64] or "_"


# --- texts -----------------------------------------------------------------------------------------------------------


def _parsed(what: str, name: str, parse: Callable[[], T]) -> T:
    """The result of a third party's parser, whatever it may raise turned into a refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parsers warn of what they mend; what they return is judged afterwards
        try:
            return parse()
        except RejectedInput:
            raise
        except Exception as error:  # noqa: BLE001  parsers raise a dozen types on hostile text
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise RejectedInput(f"{name} cannot be read as {what}: {problem}") from None


def _from_cif(text: str, limits: InputLimits, name: str) -> Crystals:
    """Crystals of a CIF."""
    from pymatgen.io.cif import CifFile, CifParser

    _check_size(text, limits, name)
    blocks = _parsed("CIF", name, lambda: CifFile.from_str(text)).data.values()
    if len(blocks) != len(re.findall(r"^\s*data_", text, re.MULTILINE)):
        raise RejectedInput(f"{name} has data blocks of the same name, or a powder pattern; give each crystal its own")
    for block in blocks:
        _check_block(block, limits, name)
    structures = _parsed(
        "CIF", name, lambda: CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")
    )
    crystals = _parsed("CIF", name, lambda: Crystals.from_structures(structures))
    listed = sum(map(_sites, (block.data for block in blocks)))
    if len(crystals.numbers) < listed:
        raise RejectedInput(f"only {len(crystals.numbers)} of the {listed} sites in {name} could be read; mend it")
    return crystals


def _sites(data: Mapping[str, Any]) -> int:
    """How many atom sites a CIF block lists."""
    return max((len(v) for k, v in data.items() if k.startswith("_atom_site") and isinstance(v, list)), default=0)


def _check_size(text: str, limits: InputLimits, name: str) -> None:
    """Refuse texts that are too long for one crystal."""
    if len(text) > limits.max_text_bytes:
        raise RejectedInput(f"{name} has {len(text)} characters; at most {limits.max_text_bytes} are accepted")


def _check_block(block: CifBlock, limits: InputLimits, name: str) -> None:
    """Refuse a CIF block that asks too much of the parser, or whose cell is none."""
    data: Mapping[str, Any] = block.data
    sites = _sites(data)
    listed = [len(v) for k, v in data.items() if ("symop" in k or "equiv_pos" in k) and isinstance(v, list)]
    operations = max(listed) if listed else _operations_of_name(data)
    if sites > limits.max_atoms:
        raise RejectedInput(f"{name} lists {sites} atom sites; at most {limits.max_atoms} are accepted")
    if operations > limits.max_symmetry_operations:
        raise RejectedInput(
            f"{name} lists {operations} symmetry operations; at most {limits.max_symmetry_operations} exist"
        )
    if sites * operations > limits.max_sites_times_operations:
        raise RejectedInput(
            f"{name} has {sites} sites times {operations} symmetry operations; at most "
            f"{limits.max_sites_times_operations} together are accepted: give its cell in P1"
        )
    _check_cell(data, name)
    _check_sites(data, name)


def _operations_of_name(data: Mapping[str, Any]) -> int:
    """How many operations a space group given by its name alone may have."""
    names = [str(v).replace(" ", "") for k, v in data.items() if "space_group" in k or "Int_Tables" in k]
    return 1 if not names or any(name in ("P1", "1") for name in names) else 192


def _check_cell(data: Mapping[str, Any], name: str) -> None:
    """Refuse cell lengths that are not positive and angles that are not between 0 and 180 degrees."""
    for keys, top in (
        (("length_a", "length_b", "length_c"), np.inf),
        (("angle_alpha", "angle_beta", "angle_gamma"), 180),
    ):
        for key in keys:
            text = data.get(f"_cell_{key}")
            if text is None:
                continue  # cubic cells may give one length only; the parser knows
            value = _number(text, name)
            if not 0 < value < top:
                raise RejectedInput(f"{name} has _cell_{key} {value:g}, which no cell has")


def _check_sites(data: Mapping[str, Any], name: str) -> None:
    """Refuse partial occupancies and absurd coordinates, which the parser would mend or drop without a word."""
    for text in data.get("_atom_site_occupancy", ()):
        # "." and "?" mean not known, full occupancy by convention.
        if text not in (".", "?") and not abs(_number(text, name) - 1) < _OCCUPANCY_TOLERANCE:
            raise RejectedInput(f"{name} has a site with occupancy {text[:20]}; only full ones are accepted: order it")
    for axis in "xyz":
        for text in data.get(f"_atom_site_fract_{axis}", ()):
            if not abs(_number(text, name)) <= LARGEST_COORDINATE:
                raise RejectedInput(f"{name} has a site with fract_{axis} {text[:20]}, which is no place in a cell")


def _number(text: str, name: str) -> float:
    """A number of a CIF, its uncertainty in brackets dropped."""
    from pymatgen.io.cif import str2float

    return _parsed("CIF", name, lambda: float(str2float(text)))


def _from_poscar(text: str, limits: InputLimits, name: str) -> Crystals:
    """The crystal of a POSCAR with symbols on line 6 and their numbers on line 7."""
    from pymatgen.io.vasp import Poscar

    _check_size(text, limits, name)
    lines = text.splitlines()
    symbols, counts = (lines[5].split(), lines[6].split()) if len(lines) > 7 else ([], [])
    if not symbols or len(symbols) != len(counts) or not all(c.isdecimal() and len(c) < 10 for c in counts):
        raise RejectedInput(f"{name} is no POSCAR with element symbols on line 6 and as many numbers on line 7")
    total = sum(int(c) for c in counts)
    if total > limits.max_atoms:
        raise RejectedInput(f"{name} holds {total} atoms; at most {limits.max_atoms} are accepted")
    return _parsed("POSCAR", name, lambda: Crystals.from_structures([Poscar.from_str(text).structure]))


def _from_extxyz(text: str, limits: InputLimits, name: str) -> Crystals:
    """The crystals of an extended XYZ text."""
    from ase.io.extxyz import read_extxyz

    lines = text.splitlines()
    at = 0
    while at < len(lines) and lines[at].strip():
        count = lines[at].strip()
        if not (count.isdecimal() and len(count) < 10):
            raise RejectedInput(f"line {at + 1} of {name} should be a number of atoms, but is {count[:40]!r}")
        if int(count) > limits.max_atoms:
            raise RejectedInput(f"{name} holds a crystal of {count} atoms; at most {limits.max_atoms} are accepted")
        at += int(count) + 2
    return _parsed("extxyz", name, lambda: Crystals.from_atoms(list(read_extxyz(io.StringIO(text), slice(None)))))


_PARSERS: Mapping[TextFormat, Callable[[str, InputLimits, str], Crystals]] = {
    "cif": _from_cif,
    "poscar": _from_poscar,
    "extxyz": _from_extxyz,
}
