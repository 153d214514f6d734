"""Texts of crystals from outside: sizes are checked on the raw text, then parsers of the field's libraries read it.

Parsers take minutes for texts of a few hundred kB, and raise whatever they like. What stands here runs in a process
of its own (`apart.py`); what it returns is judged elsewhere.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from paragenesis.crystals import Crystals
from paragenesis.engine.screening.limits import InputLimits
from paragenesis.engine.screening.validity import LARGEST_COORDINATE
from paragenesis.errors import RejectedInput

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.io.cif import CifBlock

T = TypeVar("T")
TextFormat = Literal["cif", "poscar", "extxyz"]
Notes = dict[str, float | None]  # what stands beside a crystal by name; None where it is no number
Parsed = tuple[Crystals, Sequence[Notes]]

_OCCUPANCY_TOLERANCE = 1e-3
_LONGEST_OPERATION = 100  # characters; "-x+1/2,y+1/2,-z+1/2" has 19
_MOST_COLUMNS = 1_000  # numbers beside an atom
_SAFE_NAME = re.compile(r"[^A-Za-z0-9_.:+()-]+")
_BLOCK = re.compile(r"^[ \t]*data_", re.MULTILINE)
_PROPERTIES = re.compile(r"Properties=[\"']?([^\s\"']*)", re.IGNORECASE)


def parse(text: str, text_format: TextFormat, limits: InputLimits, name: str) -> Parsed:
    """The crystals in a text as they stand, and the numbers beside each.

    Args:
        text: A CIF with any number of blocks, a POSCAR, or one frame of an extxyz file.
        text_format: Which of them.
        limits: How large it may be.
        name: What it is called in messages.

    Raises:
        RejectedInput: It holds too many atoms, asks too much of a parser, or cannot be read.
    """
    crystals, notes = _PARSERS[text_format](text, limits, name)
    return crystals, notes or [{} for _ in range(len(crystals))]


def load_libraries(text_format: TextFormat | None) -> None:
    """Import what the parser of a format imports; nothing for None."""
    for library in _LIBRARIES.get(text_format, ()):
        import_module(library)


def safe_name(text: str) -> str:
    """A name fit for reports, file names and SQL: no markup, no path, at most 64 characters."""
    return _SAFE_NAME.sub("_", text)[:64] or "_"


def one_line(text: str, longest: int = 200) -> str:
    """A text without line breaks and control characters, cut where it is long."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * longest])
    return " ".join(printable.split())[:longest]


def frames(text: str) -> Iterator[str]:
    """The frames of an extxyz text; from a line on that is no number of atoms, the rest is one unreadable frame."""
    text = text.rstrip()
    at = 0
    while at < len(text):  # one at a time: small ones would take fifty times their size as a list of lines
        last = _after_line(text, at)
        count = _count(text[at:last])
        for _ in range(0 if count is None else count + 1):
            if last == len(text):
                break
            last = _after_line(text, last)
        last = len(text) if count is None else last
        yield text[at:last]
        at = last


def _after_line(text: str, at: int) -> int:
    """Where the line that begins at a place ends, its break included."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def guarded(what: str, name: str, parse: Callable[[], T]) -> T:
    """The result of a third party's function, whatever it may raise turned into a refusal.

    Raises:
        RejectedInput: The function raised; `name cannot be read as what`.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # parsers warn of what they mend; what they return is judged afterwards
        try:
            return parse()
        except (RejectedInput, MemoryError):  # the latter ends the process that parses, see `apart.py`
            raise
        except Exception as error:  # noqa: BLE001  parsers raise a dozen types on hostile text
            problem = one_line(f"{type(error).__name__}: {error}")
            raise RejectedInput(f"{name} cannot be read as {what}: {problem}") from None


# --- CIF -------------------------------------------------------------------------------------------------------------


def _from_cif(text: str, limits: InputLimits, name: str) -> Parsed:
    """Crystals of a CIF."""
    from pymatgen.io.cif import CifFile, CifParser

    # Blank lines and long ones cost the parser's expressions the square of their length.
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    longest = max(map(len, lines), default=0)
    if longest > limits.max_line_length:
        raise RejectedInput(f"{name} has a line of {longest} characters; CIF allows {limits.max_line_length}: break it")
    text = "\n".join(lines) + "\n"
    blocks = guarded("CIF", name, lambda: CifFile.from_str(text)).data.values()
    if len(blocks) != len(_BLOCK.findall(text)):
        raise RejectedInput(f"{name} has data blocks of the same name, or a powder pattern; give each crystal its own")
    for block in blocks:
        _check_block(block, limits, name)
    structures = guarded(
        "CIF", name, lambda: CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")
    )
    crystals = guarded("CIF", name, lambda: Crystals.from_structures(structures))
    listed = sum(map(_sites, (block.data for block in blocks)))
    if len(crystals.numbers) < listed:
        raise RejectedInput(f"only {len(crystals.numbers)} of the {listed} sites in {name} could be read; mend it")
    return crystals, ()


def _sites(data: Mapping[str, Any]) -> int:
    """How many atom sites a CIF block lists."""
    return max((len(v) for k, v in data.items() if k.startswith("_atom_site") and isinstance(v, list)), default=0)


def _check_block(block: CifBlock, limits: InputLimits, name: str) -> None:
    """Refuse a CIF block that asks too much of the parser, or whose cell is none."""
    data: Mapping[str, Any] = block.data
    sites = _sites(data)
    given = [v for k, v in data.items() if "symop" in k or "equiv_pos" in k]
    operations = max((len(v) for v in given if isinstance(v, list)), default=0) or _operations_of_name(data)
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
    longest = max((len(one) for v in given for one in ([v] if isinstance(v, str) else v)), default=0)
    if longest > _LONGEST_OPERATION:
        raise RejectedInput(f"{name} has a symmetry operation of {longest} characters, such as no space group has")
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
    for text in _column(data, "_atom_site_occupancy"):
        # "." and "?" mean not known, full occupancy by convention.
        if text not in (".", "?") and not abs(_number(text, name) - 1) < _OCCUPANCY_TOLERANCE:
            raise RejectedInput(f"{name} has a site with occupancy {text[:20]}; only full ones are accepted: order it")
    for axis in "xyz":
        for text in _column(data, f"_atom_site_fract_{axis}"):
            if not abs(_number(text, name)) <= LARGEST_COORDINATE:
                raise RejectedInput(f"{name} has a site with fract_{axis} {text[:20]}, which is no place in a cell")


def _column(data: Mapping[str, Any], key: str) -> Sequence[str]:
    """The values under a key, whether it heads a loop or stands alone."""
    values = data.get(key, ())
    return (values,) if isinstance(values, str) else values


def _number(text: str, name: str) -> float:
    """A number of a CIF, its uncertainty in brackets dropped."""
    from pymatgen.io.cif import str2float

    return guarded("CIF", name, lambda: float(str2float(text)))


# --- POSCAR ----------------------------------------------------------------------------------------------------------


def _from_poscar(text: str, limits: InputLimits, name: str) -> Parsed:
    """The crystal of a POSCAR with symbols on line 6 and their numbers on line 7."""
    from pymatgen.io.vasp import Poscar

    lines = text.splitlines()
    symbols, counts = (lines[5].split(), lines[6].split()) if len(lines) > 7 else ([], [])
    if not symbols or len(symbols) != len(counts) or any(_count(c) is None for c in counts):
        raise RejectedInput(f"{name} is no POSCAR with element symbols on line 6 and as many numbers on line 7")
    total = sum(int(c) for c in counts)
    if total > limits.max_atoms:
        raise RejectedInput(f"{name} holds {total} atoms; at most {limits.max_atoms} are accepted")
    return guarded("POSCAR", name, lambda: Crystals.from_structures([Poscar.from_str(text).structure])), ()


# --- extxyz ----------------------------------------------------------------------------------------------------------


def _from_extxyz(text: str, limits: InputLimits, name: str) -> Parsed:
    """The crystal of one frame of an extended XYZ text."""
    from ase.io.extxyz import read_extxyz

    lines = io.StringIO(text).readlines()  # as the parser does
    if not lines:
        raise RejectedInput(f"{name} holds no crystals")
    count = _count(lines[0])
    if count is None:
        raise RejectedInput(f"line 1 of {name} should be a number of atoms, but is {lines[0].strip()[:40]!r}")
    if count > limits.max_atoms:
        raise RejectedInput(f"{name} holds a crystal of {count} atoms; at most {limits.max_atoms} are accepted")
    if (columns := _columns(lines[1]) if len(lines) > 1 else 0) > _MOST_COLUMNS:
        raise RejectedInput(f"{name} has {columns} columns beside each atom; at most {_MOST_COLUMNS} are accepted")
    atoms: list[Atoms] = guarded("extxyz", name, lambda: list(read_extxyz(io.StringIO(text), slice(None))))
    return guarded("extxyz", name, lambda: Crystals.from_atoms(atoms)), [_notes(one.info) for one in atoms]


def _count(text: str) -> int | None:
    """A number of atoms; None where the text is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _columns(comment: str) -> int:
    """How many columns the comment of a frame announces."""
    found = _PROPERTIES.search(comment)
    parts = found.group(1).split(":") if found else []
    return sum(int(part) for part in parts[2::3] if part.isascii() and part.isdecimal() and len(part) < 10)


def _notes(info: Mapping[str, Any]) -> Notes:
    """The plain numbers among what stands beside a crystal; None for what is there, but no number."""
    return {str(key): _as_float(value) for key, value in info.items()}


def _as_float(value: Any) -> float | None:
    """A plain number as a float; None for anything else, and for an integer that is too large to be one."""
    try:
        return float(value) if isinstance(value, int | float | np.integer | np.floating) else None
    except OverflowError:
        return None


_LIBRARIES: Mapping[TextFormat | None, Sequence[str]] = {
    "cif": ("pymatgen.io.cif",),
    "poscar": ("pymatgen.io.vasp",),
    "extxyz": ("ase.io.extxyz",),
}
_PARSERS: Mapping[TextFormat, Callable[[str, InputLimits, str], Parsed]] = {
    "cif": _from_cif,
    "poscar": _from_poscar,
    "extxyz": _from_extxyz,
}
